"""The Kafka sink, and how any client of aiokafka reaches the same Kafka."""

from outbox.sinks.kafka.sink import KafkaSink, connection_options

__all__ = ["KafkaSink", "connection_options"]
