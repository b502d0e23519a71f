from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from outbox.sinks.kafka.murmur2 import hashed, murmur2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # Kafka's own: UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_published_vectors(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected % 2**32


@given(st.binary(max_size=100))
def test_agrees_with_another_implementation(data: bytes) -> None:
    assert murmur2(data) == aiokafka_murmur2(data)


def test_a_key_is_hashed_as_utf_8_without_its_sign() -> None:
    assert hashed("bätch") == ("bätch".encode(), murmur2("bätch".encode()) & 0x7FFF_FFFF)
