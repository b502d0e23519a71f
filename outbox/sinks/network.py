"""What sinks share below their protocols: TLS from files, and taking back what was not sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from outbox.errors import SettingsError, describe

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, no time


def tls_context(
    prefix: str, *, ca: Path | None, cert: Path | None, key: Path | None, password: str | None = None
) -> ssl.SSLContext:
    """Returns a client's TLS context, which reads the files again when they have changed.

    Raises SettingsError with the variable of the file that is at fault; `prefix` is what the variables begin
    with: `OUTBOX_KAFKA_SSL`.
    """
    files = [file for file in (ca, cert, key) if file is not None]
    return _FromFiles(files, lambda: _read(prefix, ca=ca, cert=cert, key=key, password=password))


class _FromFiles(ssl.SSLContext):
    """Makes each connection by the files as they are then.

    While they are wrong, in the middle of a rotation say, those that were read before are used on.
    """

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: Sequence[Path], read: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._read = read
        self._seen = self._states()
        self._made = read()

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self._current().wrap_bio(*args, **options)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return self._current().wrap_socket(*args, **options)

    def _current(self) -> ssl.SSLContext:
        states = self._states()
        if states != self._seen:
            self._seen = states
            try:
                self._made = self._read()
            except SettingsError as error:
                logging.getLogger("outbox").warning("%s; what was read before is used on", error)
        return self._made

    def _states(self) -> list[tuple[int, int, int] | None]:
        return [_state(file) for file in self._files]


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(
    prefix: str, *, ca: Path | None, cert: Path | None, key: Path | None, password: str | None
) -> ssl.SSLContext:
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
