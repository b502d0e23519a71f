"""RAS asked whatever its OpenAPI allows, and what it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings

from outbox.huleedu.consume import Receiver
from outbox.web.listen import listening
from tests.huleedu.ras.test_record import story, tell
from tests.support.huleedu import CREDENTIALS


def ask_everything(port: int) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    operation = schema["/internal/v1/batches/{batch_id}/status"]["GET"]
    for mode in schemathesis.GenerationMode:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        def asked(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(headers=CREDENTIALS)

        asked()


async def test_every_answer_is_one_that_the_description_has(app: FastAPI, receiver: Receiver) -> None:
    await tell(receiver, story("0"))
    async with listening(app, "127.0.0.1", 0, variable="RAS_PORT") as port:
        await asyncio.to_thread(ask_everything, port)
