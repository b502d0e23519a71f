"""The public keys of a JWKS: fetched, kept for a while, and fetched again when they rotate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import jwt
import structlog

from outbox.errors import describe
from outbox.huleedu.token_settings import TokenSettings

_log = structlog.get_logger(__name__)


class KeysUnavailable(Exception):
    """The keys could not be fetched now, so nothing can be said of a token."""


class JwksKeys:
    """The keys at a URL or in a file, by key id.

    They are fetched again when they are old (by `run`), and when a token is not signed by the one it names,
    but then at most once per cooldown. While they cannot be fetched the last ones count.
    """

    have_ids = True

    def __init__(self, source: str, settings: TokenSettings) -> None:
        self._source = source
        self._max_age = settings.jwks_max_age_seconds
        self._cooldown = settings.jwks_cooldown_seconds
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._asked = self._fetched = float("-inf")
        self._fetching = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """True if there are any keys."""
        return bool(self._keys)

    async def run(self) -> None:
        """Keeps the keys fresh, for ever."""
        while True:
            fetched = await self._refresh()
            await asyncio.sleep(self._max_age if fetched else self._cooldown)

    def known(self, key_id: str | None) -> Sequence[jwt.PyJWK]:
        """Returns the key with this id; without an id, the only key there is."""
        if key_id is None and len(self._keys) == 1:
            return list(self._keys.values())
        key = self._keys.get(key_id) if isinstance(key_id, str) else None
        return [key] if key else []

    async def fresh(self, key_id: str | None) -> Sequence[jwt.PyJWK]:
        """Returns what `known` does, from keys fetched now. Raises `KeysUnavailable` if none could be."""
        if not await self._refresh():
            raise KeysUnavailable
        return self.known(key_id)

    async def _refresh(self) -> bool:
        """Fetches the keys, unless that was tried within the cooldown; returns whether it was done."""
        clock = asyncio.get_running_loop().time
        called = clock()
        async with self._fetching:
            if self._fetched >= called:
                return True
            if clock() - self._asked < self._cooldown:
                return False
            self._asked = clock()
            try:
                self._keys = _signing_keys(await self._fetch())
            except (OSError, httpx.HTTPError, ValueError, RecursionError, jwt.PyJWTError) as error:
                _log.warning("jwks.not_fetched", reason=describe(error))
                return False
            self._fetched = clock()
            _log.info("jwks.fetched", keys=len(self._keys))
            return True

    async def _fetch(self) -> str:
        if not self._source.startswith(("https://", "http://")):
            return await asyncio.to_thread(Path(self._source).read_text, "utf-8")
        async with httpx.AsyncClient(timeout=5.0) as client:
            response = await client.get(self._source)
            return response.raise_for_status().text


def _signing_keys(text: str) -> dict[str | None, jwt.PyJWK]:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("a JWKS is a JSON object")  # noqa: TRY004 (of a document, not an argument)
    keys = jwt.PyJWKSet.from_dict(document).keys
    named = [key for key in keys if isinstance(key.key_id, str | None)]
    return {key.key_id: key for key in named if key.public_key_use in (None, "sig")}
