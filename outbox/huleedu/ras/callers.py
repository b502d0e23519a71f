"""Who may ask: services that know the internal key and are on the list."""

from __future__ import annotations

import hashlib
import hmac
import re
from uuid import uuid4

from outbox.huleedu.ras.settings import RasSettings

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Callers:
    """Checks credentials in a time that tells nothing of them."""

    def __init__(self, settings: RasSettings) -> None:
        self._key = _digest(settings.internal_api_key.get_secret_value())
        self._services = [_digest(service) for service in settings.allowed_service_ids]

    def may_ask(self, api_key: str | None, service_id: str | None) -> bool:
        """Returns True if this is the key, and the service is on the list."""
        knows_key = hmac.compare_digest(_digest(api_key or ""), self._key)
        service = _digest(service_id or "")
        matches = [hmac.compare_digest(service, known) for known in self._services]
        return knows_key and any(matches)


def correlation_id_of(given: str | None) -> str:
    """Returns the id to answer with: the caller's if it is short and harmless, else a new one."""
    return given if given and _CORRELATION_ID.fullmatch(given) else str(uuid4())


def _digest(text: str) -> bytes:
    # Of one length, whatever the text's.
    return hashlib.sha256(text.encode()).digest()
