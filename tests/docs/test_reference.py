"""The manual's settings and metrics are those of the code."""

from __future__ import annotations

import pytest

from tests.support.reference import COMMAND, DOCS, pages


@pytest.mark.parametrize("name", pages())
def test_a_page_is_what_the_code_makes(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], f"{COMMAND} writes it anew"


@pytest.mark.parametrize("prefix", ["OUTBOX_", "ELS_", "RAS_", "GATEWAY_", "PAGE_"])
def test_each_process_has_its_settings(prefix: str) -> None:
    assert f"| `{prefix}LOG_LEVEL` | `info` |" in pages()["settings.md"]


@pytest.mark.parametrize(
    "prefix", ["outbox_events", "els_events", "ras_events", "websocket_sent", "page_requests"]
)
def test_each_process_has_its_metrics(prefix: str) -> None:
    assert f"| `{prefix}" in pages()["metrics.md"]
