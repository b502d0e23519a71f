"""The Redis sink."""

from outbox.sinks.redis.sink import RedisSink

__all__ = ["RedisSink"]
