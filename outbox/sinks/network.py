"""What sinks share below their protocols: TLS from files, and taking back what was not sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from pathlib import Path

from outbox.errors import SettingsError, describe

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, no time


def tls_context(
    prefix: str, *, ca: Path | None, cert: Path | None, key: Path | None, password: str | None = None
) -> ssl.SSLContext:
    """Returns a client's TLS context. Raises SettingsError with the variable of the file that is at fault.

    `prefix` is what the variables begin with: `OUTBOX_KAFKA_SSL`.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SettingsError(f"{prefix}_CA_FILE={ca}: {describe(error)}") from None
    if cert is not None:
        try:
            # A wrong password must fail, not ask at a terminal.
            context.load_cert_chain(cert, key, password=password or "")
        except OSError as error:
            raise SettingsError(
                f"{prefix}_CERT_FILE={cert} with {prefix}_KEY_FILE={key}: {describe(error)}"
            ) from None
    return context


def withdraw(transport: asyncio.WriteTransport) -> None:
    """Closes a connection at once, and with it whatever has not reached the other side yet.

    A plain close would go on sending what is buffered, here and in the kernel, for minutes if the
    other side is stalled or out of reach.
    """
    with contextlib.suppress(OSError):
        handle: socket.socket | None = transport.get_extra_info("socket")
        if handle is not None and handle.fileno() >= 0:
            # A duplicate, because not every event loop's socket can set options.
            with socket.socket(fileno=os.dup(handle.fileno())) as duplicate:
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
