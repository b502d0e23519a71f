"""The Kafka sink: acknowledged by all in-sync replicas, in record batches, on the Java client's partitions.

It sends plainly, not idempotently: an idempotent producer fails the record batches that follow a
refused one. So a record may arrive twice, but never out of its key's order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aiokafka.codec import has_lz4, has_snappy, has_zstd
from aiokafka.conn import collect_hosts
from pydantic import SecretStr

from outbox.clock import since_boot
from outbox.distribution import install
from outbox.errors import Scope, SettingsError, Unavailable
from outbox.finding import Finding
from outbox.message import Delivery, Result
from outbox.settings import KafkaSettings
from outbox.sinks.checking import Use
from outbox.sinks.kafka.check import Limits, check
from outbox.sinks.kafka.cluster import Address, Cluster
from outbox.sinks.kafka.dispatch import Dispatch, Troubles
from outbox.sinks.kafka.link import BrokerError
from outbox.sinks.kafka.records import CODECS, RecordFormat
from outbox.sinks.kafka.sending import Sending
from outbox.sinks.network import tls_context

_START_SECONDS = 5.0
_PATIENCE_SECONDS = 3.0
"""How long one broker is waited for when any other could answer as well."""


class KafkaSink:
    """Sends to the Kafka cluster of `settings`; each send takes at most `timeout` seconds.

    `clock` is the time that records have, in seconds since 1970.
    """

    def __init__(
        self, settings: KafkaSettings, *, timeout: float = 10.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._bootstrap = _addresses(settings.bootstrap_servers)
        self._timeout = timeout
        self._clock = clock
        self._options = {
            "client_id": settings.client_id,
            # Longer than ours, so that it is always we who give up and take back what was written.
            "request_timeout_ms": int(timeout * 1_000) + 5_000,
            **connection_options(settings),
        }
        self._format = _format(settings)
        self._limits = Limits(settings.max_batch_bytes, settings.sasl_username)
        self._cluster: Cluster | None = None
        self._troubles = Troubles()
        self._turns = itertools.count()

    async def start(self) -> None:
        """Connects. Raises `Unavailable` while no broker answers, after a few seconds at the most."""
        if self._cluster is None:
            patience = min(_PATIENCE_SECONDS, self._timeout / 3)
            self._cluster = Cluster(self._bootstrap, patience, self._options)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._cluster.look([])
        except TimeoutError:
            raise Unavailable(f"no broker answered within {_START_SECONDS:g} s") from None
        except BrokerError as error:
            raise Unavailable(str(error)) from None

    async def send(self, deliveries: Sequence[Delivery]) -> list[Result]:
        """Sends a batch; returns one result per delivery, in its order."""
        if self._cluster is None:
            raise Unavailable("not started")
        now = int(self._clock() * 1_000)
        sending = Sending(deliveries, self._format, turn=next(self._turns), now=now)
        deadline = since_boot() + self._timeout
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout), asyncio.TaskGroup() as tasks:
                Dispatch(self._cluster, sending, tasks, self._troubles, deadline).start()
                if self._cluster.stale:
                    tasks.create_task(self._cluster.look_again())
        scope: Scope = "part" if sending.answered else "sink"
        return sending.finish(partial(Unavailable, f"no answer within {self._timeout:g} s", scope=scope))

    async def check(self, use: Use) -> list[Finding]:
        """Returns what of the cluster's topics, rights and limits would keep deliveries from arriving."""
        if self._cluster is None:
            raise Unavailable("not started")
        try:
            return await check(self._cluster, use, self._limits)
        except BrokerError as error:
            raise Unavailable(str(error)) from None

    async def stop(self) -> None:
        """Closes all connections; a send that is under way ends, uncertain."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.close()


def _addresses(servers: str | None) -> list[Address]:
    try:
        found = [(host, port) for host, port, _ in collect_hosts(servers or "") if host]
    except ValueError:
        found = []
    if not found:
        raise SettingsError(
            f"OUTBOX_KAFKA_BOOTSTRAP_SERVERS={servers or ''}: must be host:port, several separated by commas"
        )
    return found


def _format(settings: KafkaSettings) -> RecordFormat:
    missing = {"snappy": not has_snappy(), "lz4": not has_lz4(), "zstd": not has_zstd()}
    if missing.get(settings.compression):
        raise SettingsError(f"OUTBOX_KAFKA_COMPRESSION={settings.compression} needs: {install('kafka')}")
    return RecordFormat(
        codec=CODECS[settings.compression],
        max_batch_bytes=settings.max_batch_bytes,
        cloudevents_source=settings.client_id if settings.cloudevents else None,
        occurred=settings.timestamp == "occurred",
    )


def connection_options(settings: KafkaSettings, *, prefix: str = "OUTBOX_KAFKA") -> dict[str, Any]:
    """Returns how any client of aiokafka reaches this Kafka: whether by TLS, and as whom.

    Raises `SettingsError` for files that are wrong, with their variables; `prefix` is what those begin with.
    """
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        options["ssl_context"] = tls_context(
            f"{prefix}_SSL",
            ca=settings.ssl_ca_file,
            cert=settings.ssl_cert_file,
            key=settings.ssl_key_file,
            password=_secret(settings.ssl_key_password),
        )
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": _secret(settings.sasl_password),
        }
    return options


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None
