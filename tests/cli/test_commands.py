from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from click.testing import CliRunner, Result

from outbox.cli import COMMANDS, main
from outbox.schema import REVISIONS
from tests.support import sql, waiting
from tests.support.relay_process import RelayProcess

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def outbox(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on the test's database, away from any .env; `await outbox("show", "1", OUTBOX_…=…)`."""
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
        env = {"OUTBOX_DATABASE_URL": database, **environment}
        # A command has a loop of its own.
        return await asyncio.to_thread(CliRunner().invoke, main, arguments, input=stdin, env=env)

    return run


@pytest.fixture
async def deliveries(database: str) -> list[int]:
    """Three of key `k` to Kafka, the first of them parked and held, and one to Redis."""
    connection = await asyncpg.connect(database)
    try:
        ids = [
            await connection.fetchval(
                "INSERT INTO outbox (message_id, type, sink, destination, key, payload, headers)"
                " VALUES ($1, 'order.placed', $2, $3, 'k', $4, '{\"correlation_id\": \"c-1\"}') RETURNING id",
                uuid4(),
                sink,
                destination,
                payload,
            )
            for sink, destination, payload in [
                ("kafka", "orders", b'{"total": 1}'),
                ("kafka", "orders", b"\xff\x00"),
                ("kafka", "orders", None),
                ("redis", "ws:1", b"hello"),
            ]
        ]
        await connection.execute(
            "UPDATE outbox_queue SET parked_at = now(), last_error = 'too large', attempts = 1,"
            " blocks = true, uncertain = true WHERE id = $1",
            ids[0],
        )
    finally:
        await connection.close()
    return ids


def lines(result: Result) -> list[str]:
    return [line.rstrip() for line in result.stdout.splitlines()]


async def test_what_a_terminal_would_obey_is_shown(outbox: Run, database: str) -> None:
    nasty = "\x1b]0;owned\x07\x9b2J\r\n\u202e"
    connection = await asyncpg.connect(database)
    try:
        id_ = await connection.fetchval(
            "INSERT INTO outbox (message_id, type, sink, destination, key, payload, headers)"
            " VALUES ($1, 't', 'kafka', 'orders', $2, $3, jsonb_build_object('x', $2::text)) RETURNING id",
            uuid4(),
            nasty,
            nasty.encode(),
        )
        await connection.execute(
            "UPDATE outbox_queue SET parked_at = now(), last_error = $2 WHERE id = $1", id_, nasty
        )
    finally:
        await connection.close()
    for command in (["stuck", "--parked"], ["show", str(id_), "--reveal"]):
        for result in await outbox(*command), await outbox(*command, "--json"):
            assert result.exit_code == 0
            assert not {each for each in result.stdout if not each.isprintable()} - {"\n"}
    (shown,) = json.loads((await outbox("show", str(id_), "--reveal", "--json")).stdout)
    assert {shown[name] for name in ("key", "last_error", "payload")} == {nasty}


# Help, errors and exit codes


def test_help_names_every_command_and_the_exit_codes() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, (_, line) in COMMANDS.items():
        assert f"{name}  " in result.output
        assert line in result.output
    assert "Exit codes:" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert f" {command} [OPTIONS]" in result.output


@pytest.mark.parametrize("service", ["els", "ras", "gateway", "page"])
def test_huleedus_services_are_a_group_of_their_own(service: str) -> None:
    result = CliRunner().invoke(main, ["huleedu", service, "--help"])
    assert result.exit_code == 0
    assert f" huleedu {service} [OPTIONS]" in result.output
    assert service not in COMMANDS


def python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ours


def test_help_imports_nothing_heavy() -> None:
    said = python(
        "-c",
        "import sys; from outbox.cli import main; main(['--help'], standalone_mode=False);"
        "print({'aiokafka', 'redis', 'starlette', 'rich.table', 'alembic'} & sys.modules.keys())",
    )
    assert said.splitlines()[-1] == "set()"


def test_python_m_outbox() -> None:
    assert python("-m", "outbox", "--version").startswith("outbox, version ")


@pytest.mark.parametrize(("words", "expected"), [("outbox gro", "groups"), ("outbox list --sta", "--state")])
def test_the_shell_completes_commands_and_options(words: str, expected: str) -> None:
    env = {"_OUTBOX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = CliRunner().invoke(main, [], prog_name="outbox", env=env)
    assert result.output == f"plain,{expected}\n"


async def test_a_wrong_setting_exits_2_and_says_what_is_allowed(outbox: Run) -> None:
    result = await outbox("status", OUTBOX_PUMPS="many")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: OUTBOX_PUMPS=many: input should be a valid integer")
    assert len(result.stderr.splitlines()) == 1


async def test_an_unknown_setting_is_a_warning(outbox: Run) -> None:
    result = await outbox("status", OUTBOX_BATCHSIZE="1")
    assert result.exit_code == 0
    assert "did you mean OUTBOX_BATCH_SIZE?" in result.stderr


@pytest.mark.parametrize("command", ["status", "stuck", "show 1", "retry 1", "skip 1", "migrate"])
async def test_a_database_that_is_down_is_one_line(outbox: Run, command: str) -> None:
    result = await outbox(*command.split(), OUTBOX_DATABASE_URL="postgresql://u:geheim@127.0.0.1:1/x")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in result.stderr
    assert "geheim" not in result.stderr


async def test_a_database_that_is_not_migrated(outbox: Run, empty_database: str) -> None:
    result = await outbox("status", OUTBOX_DATABASE_URL=empty_database)
    assert result.exit_code == 1
    assert "Run: outbox migrate" in result.stderr


async def test_no_database_at_all(outbox: Run) -> None:
    result = await outbox("status", OUTBOX_DATABASE_URL="")
    assert result.exit_code == 2
    assert "OUTBOX_DATABASE_URL is not set" in result.stderr


# config and migrate


async def test_config_tells_values_and_origins(outbox: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OUTBOX_PUMPS=2\n")
    result = await outbox("config", OUTBOX_DATABASE_URL="postgresql://u:geheim@h/d")
    rows = {line.split()[0]: line.split()[1:] for line in lines(result)}
    assert rows["OUTBOX_DATABASE_URL"] == ["postgresql://u:***@h/d", "environment"]
    assert rows["OUTBOX_PUMPS"] == ["2", ".env"]
    assert rows["OUTBOX_LOG_LEVEL"] == ["info", "default"]
    found = json.loads((await outbox("config", "--json")).stdout)
    assert {"variable": "OUTBOX_PUMPS", "value": 2, "origin": ".env"}.items() <= next(
        each for each in found if each["variable"] == "OUTBOX_PUMPS"
    ).items()


async def test_migrate(outbox: Run, empty_database: str) -> None:
    for _ in range(2):
        result = await outbox("migrate", "--json", OUTBOX_DATABASE_URL=empty_database)
        assert (result.exit_code, list(json.loads(result.stdout))) == (0, ["revision"])
    assert (await outbox("status", OUTBOX_DATABASE_URL=empty_database)).exit_code == 0


async def test_migrate_offline(outbox: Run) -> None:
    result = await outbox("migrate", "--sql", OUTBOX_DATABASE_URL="")
    assert result.exit_code == 0
    assert "CREATE TABLE outbox_queue" in result.stdout
    result = await outbox("migrate", "--sql", "--from", REVISIONS[-1], OUTBOX_DATABASE_URL="")
    assert result.exit_code == 0
    assert "CREATE TABLE" not in result.stdout
    result = await outbox("migrate", "--sql", "--from", "9999", OUTBOX_DATABASE_URL="")
    assert (result.exit_code, "9999 is not known here" in result.stderr) == (1, True)
    assert (await outbox("migrate", "--from", "0001")).exit_code == 2


# Looking


async def test_status(outbox: Run) -> None:
    result = await outbox("status")
    assert result.exit_code == 0
    assert lines(result)[-1].startswith("No relay is at work.")


async def test_status_exits_1_when_a_person_should_look(outbox: Run, deliveries: list[int]) -> None:
    del deliveries
    result = await outbox("status")
    assert result.exit_code == 1
    columns, *rows = (line.split() for line in lines(result)[:3])
    kafka, redis = (dict(zip(columns, row, strict=False)) for row in rows)
    assert kafka.items() >= {"pending": "2", "held": "2", "parked": "1"}.items()
    assert redis.items() >= {"pending": "1", "due": "1", "stuck": "0"}.items()
    found = json.loads((await outbox("status", "--json")).stdout)
    assert [(sink["sink"], sink["parked"]) for sink in found["sinks"]] == [("kafka", 1), ("redis", 0)]
    assert found["relays"] == []


async def test_stuck(outbox: Run, deliveries: list[int]) -> None:
    assert lines(await outbox("stuck")) == ["Nothing is stuck."]
    result = await outbox("stuck", "--parked")
    assert f"{deliveries[0]}" in lines(result)[1].split()
    assert lines(result)[1].endswith("too large (may have arrived)")
    assert lines(await outbox("stuck", "--parked", "--sink", "redis")) == ["Nothing is parked."]
    found = json.loads((await outbox("stuck", "--parked", "--json")).stdout)
    assert (found["rows"], found["deliveries"][0]["id"]) == (1, deliveries[0])


async def test_show(outbox: Run, deliveries: list[int]) -> None:
    first, second, third, fourth = map(str, deliveries)
    result = await outbox("show", second)
    assert result.exit_code == 0
    facts = {line[:21].strip(): line[21:].strip() for line in lines(result)}
    assert facts["state"] == f"held, behind {first}"
    assert facts["header correlation_id"] == "c-1"
    assert "payload" not in facts
    assert "total" not in (await outbox("show", first, "--json")).stdout

    async def shown(*arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((await outbox("show", *arguments, "--json")).stdout)
        return found

    assert (await shown(first, "--reveal"))[0]["payload"] == '{"total": 1}'
    told = json.loads((await outbox("show", first, "--reveal")).stderr)
    assert (told["event"], told["ids"]) == ("payload.revealed", [deliveries[0]])
    assert (await outbox("show", first)).stderr == ""
    assert (await shown(second, "--reveal"))[0]["payload_base64"] == "/wA="
    assert (await shown(third, "--reveal"))[0]["payload"] is None
    (by_message,) = await shown((await shown(fourth))[0]["message_id"])
    assert by_message["id"] == int(fourth)


async def test_show_what_is_not_there(outbox: Run) -> None:
    result = await outbox("show", "12345")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no such delivery" in result.stderr
    assert (await outbox("show", "abc")).exit_code == 2


# Acting


async def states(outbox: Run, deliveries: list[int]) -> list[str]:
    found = json.loads((await outbox("show", *map(str, deliveries), "--json")).stdout)
    return [each["state"] for each in found]


async def test_retry(outbox: Run, deliveries: list[int]) -> None:
    result = await outbox("retry", str(deliveries[0]))
    assert (result.exit_code, lines(result)) == (0, ["1 delivery is due now."])
    assert await states(outbox, deliveries) == ["ready"] * 4


async def test_retry_by_filter_and_as_json(outbox: Run, deliveries: list[int]) -> None:
    del deliveries
    result = await outbox("retry", "--sink", "kafka", "--error", "TOO LARGE", "--json")
    assert json.loads(result.stdout) == {"rows": 1, "left_out": 0, "busy": 0, "uncertain": 0}


async def test_skip_warns_of_what_may_have_arrived(outbox: Run, deliveries: list[int]) -> None:
    result = await outbox("skip", str(deliveries[0]))
    assert (result.exit_code, lines(result)) == (0, ["1 delivery is skipped."])
    assert "may have arrived all the same" in result.stderr
    assert await states(outbox, deliveries) == ["skipped", "ready", "ready", "ready"]


async def test_skip_a_key(outbox: Run, deliveries: list[int]) -> None:
    narrow = ("skip", "--sink", "kafka", "--destination", "orders", "--key", "k")
    assert (await outbox(*narrow)).exit_code == 2
    assert (await outbox(*narrow, "--yes")).exit_code == 0
    assert await states(outbox, deliveries) == ["skipped", "ready", "ready", "ready"]
    await outbox(*narrow, "--state", "ready", "--state", "held", "--yes")
    assert await states(outbox, deliveries) == ["skipped", "skipped", "skipped", "ready"]


@pytest.mark.parametrize("command", ["retry", "skip"])
async def test_a_dry_run_changes_nothing(outbox: Run, deliveries: list[int], command: str) -> None:
    before = await states(outbox, deliveries)
    result = await outbox(command, "--all", "--dry-run")
    assert lines(result)[-1] == "1 would be changed; nothing was."
    found = json.loads((await outbox(command, "--all", "--dry-run", "--json")).stdout)
    assert (found["dry_run"], found["rows"]) == (True, 1)
    assert await states(outbox, deliveries) == before


@pytest.mark.parametrize("command", ["retry", "skip"])
async def test_everything_must_be_asked_for(outbox: Run, command: str) -> None:
    for arguments in ([], ["1", "--all"], ["--sink", "kafka", "--all"]):
        result = await outbox(command, *arguments)
        assert result.exit_code == 2
        assert "narrow them down" in result.stderr


async def test_what_is_done_says_so(outbox: Run, deliveries: list[int]) -> None:
    first = str(deliveries[0])
    await outbox("skip", first)
    result = await outbox("retry", first)
    assert result.exit_code == 1
    assert f"{first} is skipped" in result.stderr
    assert "no such delivery" in (await outbox("retry", "12345")).stderr


async def test_what_is_about_more_than_one_asks_first(outbox: Run, deliveries: list[int]) -> None:
    result = await outbox("park", *map(str, deliveries[1:3]))
    assert result.exit_code == 2
    assert "Add --yes: it is about 2 deliveries" in result.stderr
    result = await outbox("park", *map(str, deliveries[1:3]), "--yes", "--reason", "the topic moves")
    assert lines(result) == ["2 deliveries are parked."]
    assert await states(outbox, deliveries) == ["parked", "parked", "parked", "ready"]
    (shown,) = json.loads((await outbox("show", str(deliveries[2]), "--json")).stdout)
    assert shown["last_error"] == "parked by hand: the topic moves"
    last = str(deliveries[2])
    result = await outbox("retry", last)
    assert "1 left out: an earlier one of their key is parked; --with-earlier" in result.stderr
    assert lines(await outbox("retry", last, "--with-earlier")) == ["3 deliveries are due now."]
    assert await states(outbox, deliveries) == ["ready"] * 4


async def test_acts_tell_who_did_what_and_why_and_can_be_cancelled(
    outbox: Run, deliveries: list[int], database: str
) -> None:
    await outbox("skip", str(deliveries[0]), "--reason", "nobody needs it")
    await outbox("pause", "kafka", "--reason", "an upgrade")
    await outbox("show", str(deliveries[1]), "--reveal")
    async with sql.connection(database) as connection:
        await connection.execute("INSERT INTO outbox_sinks VALUES ('kafka', '5 minutes', 'hold')")
        asked = "SELECT outbox_ask('skip', '{}', '{}', 99, NULL, NULL, NULL, NULL, NULL, NULL)"
        number = await connection.fetchval(asked)
    await outbox("pause", "kafka", "--reason", "an upgrade")
    found = json.loads((await outbox("acts", "--json")).stdout)
    assert [(each["act"], each["phase"], each["reason"]) for each in found["acts"]] == [
        ("pause", "done", "an upgrade"),
        ("skip", "asked", None),
        ("reveal", "done", None),
        ("skip", "done", None),
        ("skip", "asked", "nobody needs it"),
    ]
    assert [each["id"] for each in found["under_way"]] == [number]
    assert lines(await outbox("cancel", str(number))) == [f"skip {number} is cancelled: 0 so far."]
    assert (await outbox("cancel", str(number))).exit_code == 1
    assert "There is no operation 999" in (await outbox("acts", "999")).stderr


async def test_a_hook_hears_of_each_act_and_fails_alone(
    outbox: Run, deliveries: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hooks.py").write_text(
        "def hear(act):\n    with open('heard', 'a') as file:\n        print(act.act, act.phase, file=file)\n"
        "\ndef fail(act):\n    1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    await outbox("skip", str(deliveries[0]), OUTBOX_ACT_HOOK="hooks:hear")
    assert (tmp_path / "heard").read_text().splitlines() == ["skip asked", "skip done"]
    result = await outbox("skip", str(deliveries[1]), OUTBOX_ACT_HOOK="hooks:fail")
    assert result.exit_code == 0
    assert "Warning: OUTBOX_ACT_HOOK: ZeroDivisionError" in result.stderr
    result = await outbox("skip", str(deliveries[2]), OUTBOX_ACT_HOOK="hooks:nowhere")
    assert result.exit_code == 2
    assert await states(outbox, deliveries) == ["skipped", "skipped", "ready", "ready"]


# The relay


async def test_a_relay_needs_somewhere_to_deliver_to(
    relay_process: Callable[..., Awaitable[RelayProcess]], database: str
) -> None:
    relay = await relay_process({"OUTBOX_DATABASE_URL": database, "OUTBOX_REDISURL": "redis://h"})
    assert await relay.exited() == 2
    assert [line["event"] for line in relay.lines] == [
        "OUTBOX_REDISURL is not a setting; did you mean OUTBOX_REDIS_URL?"
    ]
    assert "OUTBOX_KAFKA_BOOTSTRAP_SERVERS" in " ".join(relay.other_output)


async def test_a_relay_beside_a_service_of_its_name_says_which_port_it_takes(
    relay_process: Callable[..., Awaitable[RelayProcess]], database: str, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("OUTBOX_HTTP_PORT=0\n")
    link = "tcp://10.96.0.7:8081"
    relay = await relay_process(
        {"OUTBOX_DATABASE_URL": database, "OUTBOX_REDIS_URL": redis_url, "OUTBOX_HTTP_PORT": link}
    )
    await relay.event("http.listening")
    first = relay.lines[0]
    assert (first["level"], first["service.name"]) == ("warning", "outbox-relay")
    assert first["event"].startswith(f"OUTBOX_HTTP_PORT={link} is a cluster's link to a service, not a port")


async def test_a_relay_process_delivers_and_tells(
    relay_process: Callable[..., Awaitable[RelayProcess]],
    database: str,
    redis_url: str,
    deliveries: list[int],
    outbox: Run,
) -> None:
    relay = await relay_process({"OUTBOX_DATABASE_URL": database, "OUTBOX_REDIS_URL": redis_url})
    port = (await relay.event("http.listening"))["port"]
    await relay.event("pump.settled", sink="redis", delivered=1)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).json()["ready"] is True
        assert 'outbox_events_published_total{sink="redis"} 1.0' in (await client.get("/metrics")).text
    (shown,) = json.loads((await outbox("show", str(deliveries[3]), "--json")).stdout)
    assert (shown["state"], shown["receivers"]) == ("delivered", 0)
    found = json.loads((await outbox("status", "--json")).stdout)
    assert [each["lanes"] for each in found["relays"]] == [{"redis": 64}]
    relay.terminate()
    assert await relay.exited() == 0
    assert [line["event"] for line in relay.lines if line["event"].startswith("relay.")] == [
        "relay.started",
        "relay.ready",
        "relay.stopping",
        "relay.stopped",
    ]


HANGING_SINK = """
import asyncio

class Sink:
    def __init__(self, options): ...
    async def start(self): ...
    async def send(self, deliveries):
        await asyncio.sleep(3600)
    async def stop(self): ...
"""


@pytest.fixture
async def hanging(
    relay_process: Callable[..., Awaitable[RelayProcess]], database: str, tmp_path: Path
) -> Callable[..., Awaitable[RelayProcess]]:
    """Starts a relay; it is in the middle of a send which never ends."""
    (tmp_path / "hanging.py").write_text(HANGING_SINK)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            "INSERT INTO outbox (message_id, type, sink, destination) VALUES ($1, 't', 'hanging', 'd')",
            uuid4(),
        )
    finally:
        await connection.close()

    async def start(**settings: str) -> RelayProcess:
        relay = await relay_process(
            {"OUTBOX_DATABASE_URL": database, "OUTBOX_SINKS": "hanging=hanging:Sink", **settings}
        )
        await relay.event("pump.fetched", rows=1)
        return relay

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
async def test_a_second_signal_ends_it_at_once(
    hanging: Callable[..., Awaitable[RelayProcess]], number: signal.Signals
) -> None:
    relay = await hanging()
    relay.signal(number)
    await relay.event("relay.stopping", reason=number.name)
    relay.signal(number)
    assert await relay.exited() == -number


async def test_the_grace_period_is_kept(hanging: Callable[..., Awaitable[RelayProcess]]) -> None:
    relay = await hanging(OUTBOX_SHUTDOWN_GRACE_SECONDS="200ms")
    relay.terminate()
    assert await relay.exited() == 1
    assert relay.other_output[-1].startswith("Error: Not done within OUTBOX_SHUTDOWN_GRACE_SECONDS=0.2;")


async def test_a_relay_that_hangs_is_not_ready(hanging: Callable[..., Awaitable[RelayProcess]]) -> None:
    relay = await hanging(OUTBOX_STALL_AFTER_SECONDS="500ms")
    port = (await relay.event("http.listening"))["port"]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def unready() -> bool:
            return (await client.get("/readyz")).status_code == 503

        await waiting.until(unready)
        (reason,) = (await client.get("/readyz")).json()["reasons"]
        assert reason.startswith("hanging stalls: ")
        assert (await client.get("/livez")).status_code == 200


async def test_without_the_web_extra_it_runs_without_http(
    relay_process: Callable[..., Awaitable[RelayProcess]], database: str, redis_url: str, tmp_path: Path
) -> None:
    # The directory that it runs in comes first where modules are looked for.
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(\"No module named 'starlette'\")")
    relay = await relay_process({"OUTBOX_DATABASE_URL": database, "OUTBOX_REDIS_URL": redis_url})
    assert "pip install 'outbox-relay[web]'" in (await relay.event("http.missing"))["reason"]
    await relay.event("relay.ready")
    relay.terminate()
    assert await relay.exited() == 0


# Rows that do not fit together


@pytest.fixture
async def lost(database: str, deliveries: list[int]) -> list[int]:
    """The deliveries, of which the last is in neither the queue nor the receipts."""
    async with sql.connection(database) as hand:
        await hand.execute("DELETE FROM outbox_queue WHERE id = $1", deliveries[-1])
    return deliveries


async def test_status_says_what_does_not_fit_together_and_what_to_do(outbox: Run, lost: list[int]) -> None:
    await outbox("skip", str(lost[0]))
    result = await outbox("status")
    assert result.exit_code == 1
    assert lines(result)[-2:] == [
        "1 written, but in neither the queue nor the receipts: nobody will send them.",
        "See what would be done: outbox repair --dry-run",
    ]
    assert json.loads((await outbox("status", "--json")).stdout)["amiss"]["lost"] == 1


async def test_repair(outbox: Run, lost: list[int]) -> None:
    rehearsed = await outbox("repair", "--dry-run")
    assert (rehearsed.exit_code, lines(rehearsed)) == (
        0,
        ["1 in neither the queue nor the receipts: they are queued, and go out.", "Nothing was changed."],
    )
    assert (await outbox("repair")).exit_code == 2
    assert json.loads((await outbox("repair", "--dry-run", "--json")).stdout)["mended"]["lost"] == 0
    done = await outbox("repair", "--yes")
    assert (done.exit_code, lines(done)[-1]) == (0, "It is done.")
    assert (await states(outbox, lost))[-1] == "ready"
    assert lines(await outbox("repair")) == ["Everything fits together."]


async def test_repair_skips_what_was_deleted_on_purpose(outbox: Run, lost: list[int]) -> None:
    done = await outbox("repair", "--lost", "skip", "--yes")
    assert done.exit_code == 0
    assert (await states(outbox, lost))[-1] == "skipped"


async def test_doctor_exits_1_for_errors_only_and_knows_its_checks(outbox: Run, database: str) -> None:
    healthy = await outbox("doctor", "--only", "ids,schema", "--only", "clock")
    assert (healthy.exit_code, healthy.output) == (0, "All is well. Looked at: schema, ids, clock.\n")
    warned = await outbox("doctor", "--only", "relays")
    assert (warned.exit_code, lines(warned)[0]) == (0, "warning: relays")
    async with sql.connection(database) as owner:
        await owner.execute("ALTER TABLE outbox ALTER COLUMN id SET CACHE 50")
    sick = await outbox("doctor", "--only", "ids", "--json")
    found = json.loads(sick.stdout)
    assert (sick.exit_code, found["checked"]) == (1, ["ids"])
    assert [(each["check"], each["severity"]) for each in found["findings"]] == [("ids", "error")]
    wrong = await outbox("doctor", "--only", "kafka")
    assert wrong.exit_code == 2
    assert "'kafka' is none of pooler, database, schema" in wrong.output
