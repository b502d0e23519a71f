"""The page's server as a process: its start and end, its probes, its settings."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy.engine import make_url

from outbox.cli import main
from outbox.errors import SettingsError
from outbox.huleedu.page import PageSettings
from outbox.schema.grants import grants
from tests.huleedu.page.conftest import StartPage
from tests.support.gateway import SECRET, token
from tests.support.huleedu import API_KEY
from tests.support.page import client, new_batch, upload
from tests.support.relay_process import RelayProcess

NEEDED = {
    "PAGE_RAS_URL": "http://127.0.0.1:8082",
    "PAGE_RAS_API_KEY": API_KEY,
}
GOOD = {
    **NEEDED,
    "PAGE_DATABASE_URL": "postgresql://localhost/x",
    "PAGE_JWT_SECRET": SECRET,
    "PAGE_GATEWAY_URL": "ws://127.0.0.1:8080/ws",
    "PAGE_DEMO": "true",
}


async def test_as_a_process(huleedu_database: str, tmp_path: Path) -> None:
    settings = {
        **GOOD,
        "PAGE_DATABASE_URL": huleedu_database,
        "PAGE_PORT": "0",
        "PAGE_LOG_FORMAT": "json",
        "PAGE_LOG_LEVEL": "debug",
    }
    process = await RelayProcess.start(settings, tmp_path, command="huleedu page")
    try:
        started = await process.event("service.started")
        assert started["service.name"] == "upload-page"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{started['port']}") as http:
            assert (await http.get("/livez")).text == "ok\n"
            assert (await http.get("/readyz")).json() == {"ready": True, "reasons": []}
            bearer = (await http.post("/v1/demo/login", json={"user": "astrid"})).json()["token"]
            answer = await http.get("/v1/batches/x/status", headers={"Authorization": f"Bearer {bearer}"})
            assert answer.status_code == 503
            assert 'page_requests_total{status="503"} 1.0' in (await http.get("/metrics")).text
        process.terminate()
        assert await process.exited() == 0
    finally:
        process.kill()
    said = str([*process.lines, *process.other_output])
    assert "page.ras_away" in said
    for secret in (SECRET, API_KEY, bearer):
        assert secret not in said


async def test_the_rights_it_needs(huleedu_database: str, start_page: StartPage) -> None:
    role = f"page_{uuid4().hex[:8]}"
    owner = await asyncpg.connect(huleedu_database)
    await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'page'")
    for statement in (*grants("writer", role), *grants("reader", role)):
        await owner.execute(statement)
    # For correlation ids and times of commits.
    await owner.execute(f"GRANT SELECT ON outbox TO {role}")
    await owner.execute(f"GRANT SELECT, INSERT, UPDATE ON page_batches, page_files TO {role}")
    url = make_url(huleedu_database).set(username=role, password="page")
    page = await start_page(database_url=url.render_as_string(hide_password=False))
    batch, upload_id = await new_batch(page), uuid4()
    async with client(page, token()) as http:
        assert (await upload(http, batch, upload_id=upload_id)).status_code == 201
        assert len((await http.get(f"/v1/uploads/{upload_id}/way")).json()["messages"]) == 1
    await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await owner.close()


def test_settings_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["huleedu", "page"])
    assert result.exit_code == 2
    for name in ("DATABASE_URL", *(name.removeprefix("PAGE_") for name in NEEDED)):
        assert f"PAGE_{name}: field required" in result.output


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PAGE_GATEWAY_URL", "http://x", "must start with ws:// or wss://"),
        ("PAGE_GATEWAY_URL", "ws://x; script-src *", "must start with ws:// or wss://"),
        ("PAGE_RAS_URL", "ras", "must start with http:// or https://"),
        ("PAGE_JWT_SECRET", "short", "must be at least 32 bytes"),
        ("PAGE_DEMO_USERS", "Ada", "'Ada' is not made of lower-case letters"),
        ("PAGE_DEMO_USERS", ",", "value should have at least 1 item"),
        ("PAGE_DATABASE_URL", "mysql://x", "must look like postgresql://"),
        ("PAGE_SLOTS", "0", "input should be greater than or equal to 1"),
        ("PAGE_GATEWAY_URL", "", "PAGE_DEMO needs PAGE_GATEWAY_URL, and PAGE_JWT_SECRET to sign with"),
        ("PAGE_JWT_SECRET", "", "set either PAGE_JWT_SECRET"),
        ("PAGE_JWKS", "https://identity/keys", "set either PAGE_JWT_SECRET"),
    ],
)
def test_a_wrong_setting_names_itself(variable: str, value: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(complaint)) as raised:
        PageSettings.load({**GOOD, variable: value})
    assert variable in str(raised.value)
