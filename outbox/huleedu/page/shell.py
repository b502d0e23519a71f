"""What every request and answer goes through: a correlation id, security headers, counts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outbox.huleedu.page.metrics import REQUESTS, SECONDS


class Shell:
    """Wraps an application; sets `request.state.correlation_id` to a new one for each request."""

    def __init__(self, app: ASGIApp, gateway_url: str | None) -> None:
        self._app = app
        self._headers = security_headers(gateway_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        correlation_id = uuid4()
        scope.setdefault("state", {})["correlation_id"] = correlation_id
        of_api = scope["path"].startswith("/v1/")

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers["X-Correlation-ID"] = str(correlation_id)
                headers["Cache-Control"] = "no-store" if of_api else "no-cache"
                REQUESTS.labels(message["status"]).inc()
                SECONDS.observe(time.monotonic() - began)
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=str(correlation_id)):
            await self._app(scope, receive, complete)


def security_headers(gateway_url: str | None) -> Mapping[str, str]:
    """Returns the headers of a page that loads nothing from elsewhere.

    It connects to this server and the gateway only.
    """
    scheme, _, rest = (gateway_url or "").partition("://")
    gateway = f" {scheme}://{rest.partition('/')[0]}" if rest else ""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self'{gateway}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
