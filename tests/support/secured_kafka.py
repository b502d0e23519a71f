"""A Kafka broker that asks who one is: by a client's certificate, or by a password over TLS."""

from __future__ import annotations

import asyncio
import subprocess

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from outbox.devstack import Kafka
from outbox.devstack.server import free_port
from tests.support import servers
from tests.support.certificates import Certificates

PASSWORD = "pass = word"
SHORT_LOGIN_MS = 2_000
"""How long a login by SCRAM-SHA-256 is good for."""
LOGIN = "org.apache.kafka.common.security"


class SecuredKafka(Kafka):
    """A broker that is open to its administrators, and has two ports for others: TLS, and SASL over TLS."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates
        self.tls, self.sasl = f"localhost:{free_port()}", f"localhost:{free_port()}"
        scram, plain = f"{LOGIN}.scram.ScramLoginModule required", f"{LOGIN}.plain.PlainLoginModule required"
        self.properties = {
            **servers.KAFKA_PROPERTIES,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port},"
            f"TLS://{self.tls},LOGIN://{self.sasl}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
            "TLS:SSL,LOGIN:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificates.server_store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificates.ca),
            "listener.name.tls.ssl.client.auth": "required",
            "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.login.plain.sasl.jaas.config": f'{plain} user_relay="{PASSWORD}";',
            "listener.name.login.scram-sha-256.sasl.jaas.config": f"{scram};",
            "listener.name.login.scram-sha-512.sasl.jaas.config": f"{scram};",
            "listener.name.login.scram-sha-256.connections.max.reauth.ms": str(SHORT_LOGIN_MS),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.principal.mapping.rules": "RULE:^.*CN=(relay).*$/$1/",
        }

    async def make_user(self) -> None:
        """The user `relay` may use what begins with `allowed`: write to topics, and read them in groups."""
        admin = AdminClient({"bootstrap.servers": self.url})
        rights = [
            _right(ResourceType.TOPIC, AclOperation.WRITE),
            _right(ResourceType.TOPIC, AclOperation.READ),
            _right(ResourceType.GROUP, AclOperation.READ),
        ]
        for future in admin.create_acls(rights).values():
            await asyncio.wrap_future(future)
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            info = ScramCredentialInfo(mechanism, 4_096)
            user = UserScramCredentialUpsertion("relay", info, PASSWORD.encode())
            await asyncio.wrap_future(admin.alter_user_scram_credentials([user])["relay"])

    async def allow(self, topic: str, operation: AclOperation) -> None:
        """The user may do that with a topic."""
        admin = AdminClient({"bootstrap.servers": self.url})
        for future in admin.create_acls([_right(ResourceType.TOPIC, operation, topic)]).values():
            await asyncio.wrap_future(future)

    async def limit(self, client_id: str, bytes_per_second: int) -> None:
        """Set a client's quota."""
        change = ["--alter", "--add-config", f"producer_byte_rate={bytes_per_second}"]
        which = ["--entity-type", "clients", "--entity-name", client_id]
        tool = ["kafka.admin.ConfigCommand", "--bootstrap-server", self.url]
        program = await asyncio.create_subprocess_exec(
            *self._java_command(*tool, *change, *which), stdout=subprocess.DEVNULL
        )
        assert await program.wait() == 0


def _right(kind: ResourceType, operation: AclOperation, prefix: str = "allowed") -> AclBinding:
    return AclBinding(
        kind,
        prefix,
        ResourcePatternType.PREFIXED,
        "User:relay",
        "*",
        operation,
        AclPermissionType.ALLOW,
    )
