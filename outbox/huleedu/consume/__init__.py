"""Consuming from Kafka into PostgreSQL: each event is applied once, in the transaction that remembers it.

An event that can never be applied is parked in a table with the reason; what a retry may heal is tried again.
"""

from outbox.huleedu.consume.consumer import Consumer
from outbox.huleedu.consume.incoming import Incoming
from outbox.huleedu.consume.metrics import ConsumerMetrics
from outbox.huleedu.consume.receiver import Effect, Handler, Receiver
from outbox.huleedu.consume.settings import ConsumerSettings
from outbox.huleedu.consume.upkeep import Chore, counting, pruning

__all__ = [
    "Chore",
    "Consumer",
    "ConsumerMetrics",
    "ConsumerSettings",
    "Effect",
    "Handler",
    "Incoming",
    "Receiver",
    "counting",
    "pruning",
]
