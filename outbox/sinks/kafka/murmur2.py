"""The hash by which the Java client chooses a key's partition, and every client that wants to agree.

Murmur2 as in `org.apache.kafka.common.utils.Utils.murmur2`. Consumers that join topics by
partition rely on it, so it never changes.
"""

from __future__ import annotations

import struct
from functools import lru_cache

_SEED = 0x9747B28C
_M = 0x5BD1E995
_32_BITS = 0xFFFF_FFFF


@lru_cache(maxsize=65_536)
def hashed(key: str) -> tuple[bytes, int]:
    """Returns a key's bytes, and the number whose remainder by the count of partitions is the partition."""
    data = key.encode()
    return data, murmur2(data) & 0x7FFF_FFFF


def murmur2(data: bytes) -> int:
    """Returns the hash of some bytes as an unsigned 32-bit number."""
    size = len(data)
    value = _SEED ^ size
    for word in struct.unpack_from(f"<{size // 4}I", data):
        mixed = word * _M & _32_BITS
        value = (value * _M ^ (mixed ^ mixed >> 24) * _M) & _32_BITS
    if rest := data[size & ~3 :]:
        value = (value ^ int.from_bytes(rest, "little")) * _M & _32_BITS
    value = (value ^ value >> 13) * _M & _32_BITS
    return value ^ value >> 15
