"""The browser's way to RAS in production: tokens of an identity service, and nothing of the demo."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from outbox.huleedu.ras import Ras
from tests.huleedu.gateway.test_keys import Issuer
from tests.huleedu.page.conftest import StartPage
from tests.support.gateway import token
from tests.support.page import client
from tests.support.waiting import until

PRODUCTION = {"demo": False, "jwt_secret": None, "gateway_url": None}


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """An identity service with two kinds of keys, which stand in a file."""
    made = Issuer()
    made.add("rsa")
    made.add("ec", "EC")
    (tmp_path / "jwks.json").write_text(made.document())
    return made


@pytest.mark.parametrize("signed", [("rsa", "RS256"), ("ec", "ES256")])
async def test_a_token_of_the_identity_service_is_good_for_its_users_batches(
    start_page: StartPage, issuer: Issuer, tmp_path: Path, ras: Ras, signed: tuple[str, str]
) -> None:
    key_id, algorithm = signed
    page = await start_page(
        **PRODUCTION,
        jwks=str(tmp_path / "jwks.json"),
        jwks_cooldown_seconds=0.001,
        ras_url=f"http://127.0.0.1:{ras.port}",
    )
    async with client(page, issuer.token(key_id, algorithm=algorithm)) as http:
        answer = await http.get("/v1/batches/batch-1/status")
        assert (answer.status_code, answer.json()["batch_id"]) == (200, "batch-1")
    # A secret that anybody may know, since no key is one.
    async with client(page, token()) as http:
        assert (await http.get("/v1/batches/batch-1/status")).status_code == 401


@pytest.mark.parametrize(("claim", "seconds"), [("exp", -5), ("iat", 5), ("nbf", 5)])
async def test_clocks_may_differ_as_they_may_for_the_gateway(
    start_page: StartPage, ras: Ras, claim: str, seconds: int
) -> None:
    page = await start_page(ras_url=f"http://127.0.0.1:{ras.port}")
    for difference, status in ((seconds, 200), (20 * seconds, 401)):
        changed: dict[str, Any] = {claim: int(time.time()) + difference}
        async with client(page, token(**changed)) as http:
            assert (await http.get("/v1/batches/batch-1/status")).status_code == status


async def test_without_the_switch_there_is_no_login_and_no_page(
    start_page: StartPage, issuer: Issuer, tmp_path: Path
) -> None:
    page = await start_page(**PRODUCTION, jwks=str(tmp_path / "jwks.json"))
    async with client(page, issuer.token("rsa")) as http:
        assert (await http.post("/v1/demo/login", json={"user": "astrid"})).status_code == 404
        for path in ("/", "/page.js", "/v1/page", "/v1/batches", "/v1/batches/x/files"):
            assert (await http.get(path)).status_code == 404


async def test_while_no_key_is_known_it_is_not_ready_and_refuses_nobody_for_good(
    start_page: StartPage, issuer: Issuer, tmp_path: Path
) -> None:
    late = tmp_path / "late.json"
    page = await start_page(**PRODUCTION, jwks=str(late), jwks_cooldown_seconds=0.05)
    async with client(page, issuer.token("rsa")) as http:
        assert (await http.get("/v1/batches/batch-1/status")).status_code == 503
        assert (await http.get("/readyz")).json()["reasons"] == ["keys: none were fetched yet"]
        late.write_text(issuer.document())

        async def is_ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await until(is_ready)
