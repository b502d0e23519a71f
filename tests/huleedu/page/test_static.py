"""The page as it is served: what a browser is allowed, and that its modules hold together."""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from outbox.huleedu.events import TOPICS
from tests.huleedu.page.conftest import StartPage
from tests.support import servers
from tests.support.node import CLIENT, npm
from tests.support.page import client

PAGE = Path(str(files("outbox.huleedu").joinpath("page")))


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/client/client.js", "/missing", "/v1/page", "/v1/batches"]
)
async def test_every_answer_says_what_a_browser_may_do(start_page: StartPage, path: str) -> None:
    page = await start_page(gateway_url="wss://ws.example.com:444/ws")
    async with client(page) as http:
        headers = (await http.get(path)).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["img-src"] == "'self'"
    assert policy["connect-src"] == "'self' wss://ws.example.com:444"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == ("no-store" if path.startswith("/v1/") else "no-cache")


async def test_it_is_served_with_its_types(start_page: StartPage) -> None:
    async with client(await start_page()) as http:
        for path, kind in {
            "/": "text/html",
            "/style.css": "text/css",
            "/page.js": "javascript",
            "/client/client.js": "javascript",
            "/icon.svg": "image/svg+xml",
        }.items():
            answer = await http.get(path)
            assert answer.status_code == 200
            assert kind in answer.headers["Content-Type"]
        assert (await http.get("/missing.js")).json() == {"error": "Not Found"}
        assert (await http.get("/..%2f..%2fserver.py")).status_code == 404


def test_nothing_in_it_is_inline_or_from_elsewhere() -> None:
    page = (PAGE / "static" / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page)
    assert not re.search(r"(src|href)=\"(\w+:)?//", page)
    for module in (PAGE / "static").glob("*.js"):
        code = module.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|document\.write", code)


def test_what_its_modules_look_for_is_there() -> None:
    page = (PAGE / "static" / "index.html").read_text()
    there = set(re.findall(r' id="([^"]+)"', page))
    for module in (PAGE / "static").glob("*.js"):
        assert set(re.findall(r'byId\("([^"]+)"', module.read_text())) <= there


def test_no_topic_is_typed_again() -> None:
    for module in (PAGE / "static").glob("*.js"):
        assert not [topic for topic in TOPICS if topic in module.read_text()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files beside the client's, whose tools look at both."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(PAGE, folder / "page", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(CLIENT, folder / "client", ignore=shutil.ignore_patterns("node_modules", "build"))
    installed = npm(folder / "client", "ci", "--no-progress")
    if installed.returncode:
        servers.missing(f"npm could not install the client's tools: {installed.stdout[-500:]}")
    return folder / "client"


@pytest.mark.parametrize(
    "tool", ["tsc --project ../page/jsconfig.json", "prettier --print-width 110 --check ../page"]
)
def test_its_modules_are_checked(checkout: Path, tool: str) -> None:
    done = npm(checkout, "exec", "--no", "--", *tool.split())
    assert done.returncode == 0, done.stdout
