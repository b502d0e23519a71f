"""The image is built, and the compose file's system runs: an upload reaches the browser and RAS."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin, Subprotocol

from outbox.distribution import VERSION
from tests.deploy import images
from tests.deploy.conftest import System
from tests.deploy.engine import Engine
from tests.support.gateway import receive
from tests.support.page import upload

# Images are made and servers are started within the first test that asks for them.
pytestmark = [pytest.mark.deploy, pytest.mark.timeout(2_400)]

OURS = ("relay", "els", "ras", "gateway", "page")


def test_the_image_is_no_root_writes_nothing_and_installs_nothing(
    engine: Engine, built: dict[str, str]
) -> None:
    image = built["OUTBOX_IMAGE"]
    once = ("run", "--rm", "--read-only", "--network=none", "--cap-drop=ALL")
    assert f"version {VERSION}" in engine.docker(*once, image, "--version")
    assert "CREATE TABLE outbox " in engine.docker(*once, image, "migrate", "--sql")
    python = (*once, "--entrypoint=python3", image, "-c")
    assert engine.docker(*python, "import os; print(os.getuid(), os.getgid())").split() == ["10001", "10001"]
    assert "ModuleNotFoundError" in engine.docker(*python, "import pip", check=False)
    asked = ("image", "inspect", "--format={{.Size}}")
    base = images.BASE if engine.docker("images", "--quiet", images.BASE) else images.default_base()
    ours = int(engine.docker(*asked, image)) - int(engine.docker(*asked, base))
    assert ours < 150_000_000


async def test_an_upload_reaches_the_browser_and_ras(system: System) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{system.variables['PAGE_PORT']}") as http:
        token = (await http.post("/v1/demo/login", json={"user": "astrid"})).json()["token"]
        http.headers["Authorization"] = f"Bearer {token}"
        async with browser(system, token) as socket:
            batch = (await http.post("/v1/batches", json={"slots": 2})).json()["batch_id"]
            file = uuid4()
            assert (await upload(http, batch, upload_id=file)).status_code == 201
            told = await receive(socket, 120.0)
        assert (told["event"], told["file_upload_id"]) == ("essay_slot_assigned", str(file))
        async with asyncio.timeout(120.0):
            while str(file) not in await _uploads(http, batch):  # noqa: ASYNC110 - RAS tells nobody
                await asyncio.sleep(0.2)


def browser(system: System, token: str) -> connect:
    """A socket as the page opens one."""
    page, gateway = (system.variables[name] for name in ("PAGE_PORT", "GATEWAY_PORT"))
    return connect(
        f"ws://127.0.0.1:{gateway}/ws",
        subprotocols=[Subprotocol("bearer"), Subprotocol(token)],
        origin=Origin(f"http://127.0.0.1:{page}"),
        proxy=None,
    )


async def _uploads(http: httpx.AsyncClient, batch: str) -> set[str]:
    answer = await http.get(f"/v1/batches/{batch}/status")
    if answer.status_code == 404:
        return set()
    return {essay["file_upload_id"] for essay in answer.json()["essays"]}


@pytest.mark.parametrize("service", OURS)
def test_a_container_has_no_rights_and_no_place_to_write(system: System, service: str) -> None:
    container: Any = system.container(service)
    host = container["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert any("no-new-privileges" in option for option in host["SecurityOpt"])
    assert container["Config"]["User"] == "10001:10001"
    assert container["Mounts"] == []


def test_an_operator_asks_within_the_container(system: System) -> None:
    told = json.loads(system.compose("exec", "-T", "relay", "outbox", "status", "--json"))
    assert [sorted(relay["lanes"]) for relay in told["relays"]] == [["kafka", "redis"]]


def test_a_stopped_container_ends_in_good_order_and_another_takes_over(system: System) -> None:
    for service in OURS:
        system.compose("stop", service)
        state: Any = system.container(service)["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), system.compose(
            "logs", "--tail=20", service
        )
    system.compose("start", *OURS)
    system.wait_until_healthy()
