"""PostgreSQL, Kafka and Valkey on this machine, all real, for the demo and the tests."""

from __future__ import annotations

from outbox.devstack.kafka import Kafka
from outbox.devstack.postgres import Postgres
from outbox.devstack.server import DevstackError, Server
from outbox.devstack.valkey import Valkey

__all__ = ["DevstackError", "Kafka", "Postgres", "Server", "Valkey"]
