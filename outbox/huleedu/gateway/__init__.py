"""The WebSocket gateway: brings what is published on Redis channel `ws:{user_id}` to that user's browsers.

It relays text as it is, knows no event, and nothing of the outbox's tables. A process listens
with `main(GatewaySettings.load())`; a program embeds it with `async with Gateway(settings):`.
"""

from outbox.huleedu.gateway.service import Gateway, main
from outbox.huleedu.gateway.settings import GatewaySettings

__all__ = ["Gateway", "GatewaySettings", "main"]
