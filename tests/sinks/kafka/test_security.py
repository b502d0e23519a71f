"""The Kafka sink with a real broker that asks who one is, forbids and throttles."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from pydantic import SecretStr

from outbox.errors import SettingsError, Unavailable
from outbox.message import Result, Sent
from outbox.settings import KafkaSettings
from outbox.sinks.kafka import KafkaSink
from tests.support.certificates import make_certificates
from tests.support.deliveries import delivery
from tests.support.kafka import Topics
from tests.support.secured_kafka import PASSWORD, SHORT_LOGIN_MS, SecuredKafka
from tests.support.sinks import started
from tests.support.waiting import BOUNDED


def with_tls(broker: SecuredKafka, **settings: Any) -> KafkaSettings:
    return KafkaSettings(
        **{
            "bootstrap_servers": broker.tls,
            "security_protocol": "SSL",
            "ssl_ca_file": broker.certificates.ca,
            "ssl_cert_file": broker.certificates.client,
            "ssl_key_file": broker.certificates.client_key,
        }
        | settings
    )


def with_login(broker: SecuredKafka, mechanism: str, password: str = PASSWORD) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=broker.sasl,
        security_protocol="SASL_SSL",
        sasl_mechanism=mechanism,
        sasl_username="relay",
        sasl_password=SecretStr(password),
        ssl_ca_file=broker.certificates.ca,
    )


async def send_one(settings: KafkaSettings, topic: str) -> Result:
    async with started(KafkaSink(settings)) as sink:
        (result,) = await sink.send([delivery(topic)])
        return result


async def test_tls_with_a_client_certificate(secured: SecuredKafka) -> None:
    topic = await Topics(secured.url).create("allowed.tls")
    assert isinstance(await send_one(with_tls(secured), topic), Sent)


async def test_tls_without_the_certificate_that_the_broker_asks_for(secured: SecuredKafka) -> None:
    with pytest.raises(Unavailable, match="localhost:"):
        await send_one(with_tls(secured, ssl_cert_file=None, ssl_key_file=None), "t")


async def test_a_broker_that_a_stranger_vouches_for(secured: SecuredKafka, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await send_one(with_tls(secured, ssl_ca_file=make_certificates(tmp_path).ca), "t")


async def test_certificates_that_are_renewed_are_read_again(secured: SecuredKafka, tmp_path: Path) -> None:
    topic = await Topics(secured.url).create("allowed.renewed")
    mine = make_certificates(tmp_path)  # by an authority that the broker does not know
    settings = with_tls(secured, ssl_ca_file=mine.ca, ssl_cert_file=mine.client, ssl_key_file=mine.client_key)
    sink = KafkaSink(settings)
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await sink.start()
    renewed = secured.certificates
    mine.client.write_bytes(renewed.client.read_bytes())  # which does not fit its key yet
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await sink.start()
    mine.client_key.write_bytes(renewed.client_key.read_bytes())
    mine.ca.write_bytes(renewed.ca.read_bytes())
    async with started(sink):
        assert isinstance((await sink.send([delivery(topic)]))[0], Sent)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_login(secured: SecuredKafka, mechanism: str) -> None:
    topic = await Topics(secured.url).create(f"allowed.{mechanism}")
    assert isinstance(await send_one(with_login(secured, mechanism), topic), Sent)


async def test_logging_in_again_costs_no_uncertain_batch(secured: SecuredKafka) -> None:
    topic = await Topics(secured.url).create("allowed.again", partitions=3)
    links: set[int] = set()
    async with started(KafkaSink(with_login(secured, "SCRAM-SHA-256"))) as sink:
        began = monotonic()
        while monotonic() - began < 2.2 * SHORT_LOGIN_MS / 1_000:
            sends = (sink.send([delivery(topic, f"{pump}-{n}") for n in range(20)]) for pump in range(3))
            for results in await asyncio.gather(*sends):
                assert [result for result in results if not isinstance(result, Sent)] == []
            assert sink._cluster is not None
            links |= {id(link) for (_, purpose), link in sink._cluster._links.items() if purpose == "send"}
    assert len(links) > 1


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_wrong_password(secured: SecuredKafka, mechanism: str) -> None:
    with pytest.raises(Unavailable, match="SaslAuthenticationFailed"):
        await send_one(with_login(secured, mechanism, "wrong"), "t")


async def test_a_topic_that_is_forbidden(secured: SecuredKafka) -> None:
    topics = Topics(secured.url)
    allowed, forbidden = await topics.create("allowed.beside"), await topics.create("forbidden")
    async with started(KafkaSink(with_login(secured, "PLAIN"))) as sink:
        first, second = await sink.send([delivery(forbidden, "k"), delivery(allowed, "k")])
    assert isinstance(first, Unavailable)
    assert (str(first), first.scope, first.uncertain) == ("TOPIC_AUTHORIZATION_FAILED", "destination", False)
    assert isinstance(second, Sent)


async def test_a_quota_slows_down_but_loses_nothing(secured: SecuredKafka) -> None:
    topics = Topics(secured.url)
    topic = await topics.create("allowed.slow")
    await secured.limit("slow", 200_000)
    rows = [delivery(topic, "k", payload=bytes(100_000)) for _ in range(30)]  # ten seconds are free
    async with started(KafkaSink(with_tls(secured, client_id="slow"), timeout=3.0)) as sink:
        assert all(isinstance(result, Sent) for result in await sink.send(rows))
        began = monotonic()
        (result,) = await sink.send(rows[:1])
    assert monotonic() - began < 3.0, "it does not wait for what comes too late"
    assert isinstance(result, Unavailable)
    assert str(result).startswith("over a quota of the broker")
    assert (result.scope, result.uncertain) == ("sink", False)


async def test_start_and_stop_are_bounded_before_a_stalled_broker(secured: SecuredKafka) -> None:
    topic = await Topics(secured.url).create("allowed.stalled")
    async with started(KafkaSink(with_login(secured, "PLAIN"), timeout=1.0)) as sink:
        assert isinstance((await sink.send([delivery(topic)]))[0], Sent)
        secured.pause()
        (result,) = await sink.send([delivery(topic)])
        began = monotonic()
    assert isinstance(result, Unavailable)
    assert result.uncertain
    with pytest.raises(Unavailable, match="no answer"):
        await sink.start()
    await sink.stop()
    assert monotonic() - began < BOUNDED
    secured.resume()


# Settings


def test_a_ca_file_that_is_not_there(tmp_path: Path) -> None:
    settings = KafkaSettings(
        bootstrap_servers="h:1", security_protocol="SSL", ssl_ca_file=tmp_path / "none.pem"
    )
    with pytest.raises(SettingsError, match=r"OUTBOX_KAFKA_SSL_CA_FILE=.*none.pem: .*No such file"):
        KafkaSink(settings)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    certificates.client.write_text("nothing")
    settings = KafkaSettings(
        bootstrap_servers="h:1",
        security_protocol="SSL",
        ssl_ca_file=certificates.ca,
        ssl_cert_file=certificates.client,
        ssl_key_file=certificates.client_key,
    )
    with pytest.raises(SettingsError, match=r"OUTBOX_KAFKA_SSL_CERT_FILE=.*OUTBOX_KAFKA_SSL_KEY_FILE="):
        KafkaSink(settings)
