"""What every process answers to probes and scrapers: `/livez`, `/readyz` and `/metrics`.

The answers know no server; `probes` makes routes of them for an ASGI application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class ProbeAnswer(NamedTuple):
    """An answer, whoever sends it."""

    status: HTTPStatus
    content_type: str
    body: bytes


def livez() -> ProbeAnswer:
    """Returns that the process lives: who hears this knows that its loop turns."""
    return ProbeAnswer(HTTPStatus.OK, "text/plain; charset=utf-8", b"ok\n")


def readyz(reasons: Sequence[str], **facts: object) -> ProbeAnswer:
    """Returns that the process is ready, or the reasons why not, a line each; `facts` stand beside."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    body = {"ready": not reasons, "reasons": reasons, **facts}
    return ProbeAnswer(status, "application/json", to_json(body))


def metrics_of(registry: CollectorRegistry, accept: str | None) -> ProbeAnswer:
    """Returns all metrics, in OpenMetrics if the header `Accept` asks for it, else as Prometheus has them."""
    encode, content_type = choose_encoder(accept or "")
    return ProbeAnswer(HTTPStatus.OK, content_type, encode(registry))


async def _nothing() -> None:
    """Measures nothing, for a process that counts everything as it happens."""


def probes(
    ready: Callable[[], Awaitable[ProbeAnswer]],
    registry: CollectorRegistry,
    measure: Callable[[], Awaitable[None]] = _nothing,
) -> list[Route]:
    """Returns the routes: `ready` gives what `/readyz` answers, `measure` is awaited before each scrape."""

    async def answer_livez(_: Request) -> Response:
        return _response(livez())

    async def answer_readyz(_: Request) -> Response:
        return _response(await ready())

    async def answer_metrics(request: Request) -> Response:
        await measure()
        return _response(metrics_of(registry, request.headers.get("accept")))

    return [
        Route("/livez", answer_livez),
        Route("/readyz", answer_readyz),
        Route("/metrics", answer_metrics),
    ]


def _response(answer: ProbeAnswer) -> Response:
    return Response(answer.body, answer.status, media_type=answer.content_type)
