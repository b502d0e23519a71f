"""Certificates of an authority that lives for one test run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: the authority, a server's and a client's certificate with their keys."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @property
    def server_store(self) -> Path:
        """The server's key and certificate in one file."""
        return self.server.with_name("server-store.pem")


def make_certificates(folder: Path) -> Certificates:
    """Write them to the folder; the server is `localhost`."""
    authority = trustme.CA()
    made = Certificates(
        *(folder / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key"))
    )
    authority.cert_pem.write_to_path(str(made.ca))
    server = authority.issue_cert("localhost", common_name="localhost")
    client = authority.issue_cert("relay@example.org", common_name="relay")
    for issued, cert, key in ((server, made.server, made.server_key), (client, made.client, made.client_key)):
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(_pkcs8(issued.private_key_pem.bytes()))
    made.server_store.write_bytes(made.server_key.read_bytes() + made.server.read_bytes())
    return made


def _pkcs8(key: bytes) -> bytes:
    # The only form that Java reads.
    private = load_pem_private_key(key, password=None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
