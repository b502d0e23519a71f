from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from outbox.errors import SettingsError
from outbox.sinks.network import tls_context
from tests.support.certificates import Certificates, make_certificates


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Certificates whose client's key has a password."""
    made = make_certificates(tmp_path)
    key = load_pem_private_key(made.client_key.read_bytes(), password=None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open"))
    made.client_key.write_bytes(locked)
    return made


def test_a_key_with_a_password(certificates: Certificates) -> None:
    files = {"ca": certificates.ca, "cert": certificates.client, "key": certificates.client_key}
    tls_context("OUTBOX_KAFKA_SSL", **files, password="open")
    for password in ("wrong", None):
        with pytest.raises(SettingsError, match=r"OUTBOX_KAFKA_SSL_KEY_FILE=.*client-key"):
            tls_context("OUTBOX_KAFKA_SSL", **files, password=password)


def test_the_systems_authorities_are_the_default() -> None:
    assert tls_context("OUTBOX_REDIS_SSL", ca=None, cert=None, key=None).check_hostname
