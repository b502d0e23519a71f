"""PostgreSQL, Kafka and Valkey on this machine, all real, for the demo and the tests."""

from __future__ import annotations

from outbox.devstack.kafka import Kafka
from outbox.devstack.postgres import Postgres
from outbox.devstack.server import Server
from outbox.devstack.stack import Stack, running_stack
from outbox.devstack.valkey import Valkey

__all__ = ["Kafka", "Postgres", "Server", "Stack", "Valkey", "running_stack"]
