"""Rules and boards name what processes really tell, and alarm when a person is needed and only then."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from prometheus_client.parser import text_string_to_metric_families

from outbox.huleedu.els.service import Els
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.gateway import Gateway
from outbox.huleedu.migrate import upgrade
from outbox.huleedu.page import Page
from outbox.huleedu.ras import Ras
from outbox.relay import Relay
from outbox.settings import Settings
from outbox.web import serving
from tests.deploy.engine import run
from tests.deploy.images import DEPLOY
from tests.support import programs, servers
from tests.support.gateway import settings as gateway_settings
from tests.support.huleedu import ras_settings
from tests.support.manual import DOCS
from tests.support.page import page_settings
from tests.support.postgres import Cluster

RULES = DEPLOY / "prometheus" / "rules.yml"
BOARDS = sorted((DEPLOY / "grafana" / "boards").glob("*.json"))
METRIC = re.compile(r"\b(?:outbox|websocket|els|ras|page|process)_\w+")

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def expressions(board: Path) -> Iterator[str]:
    for panel in json.loads(board.read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


# What they name


@pytest.fixture
async def told(postgres: Cluster, redis_url: str) -> set[str]:
    """The name of each sample that a process of ours may tell, from a scrape of every one."""
    async with postgres.database(template=await postgres.template(upgrade)) as url:
        scrapes = [scrape async for scrape in _scrapes(url, redis_url)]
    return {name for scrape in scrapes for name in names(scrape)}


async def _scrapes(database: str, redis_url: str) -> AsyncIterator[str]:
    consumer = {"database_url": database, "kafka_bootstrap_servers": "127.0.0.1:1"}
    relay_settings = Settings.model_validate({"database_url": database, "http_port": 0})
    async with (
        Relay(relay_settings) as relay,
        serving(relay, relay_settings) as relays,
        Els(ElsSettings.model_validate({**consumer, "port": 0})) as els,
        Ras(ras_settings(database)) as ras,
        Gateway(gateway_settings(redis_url=redis_url)) as gateway,
        Page(page_settings(database_url=database)) as page,
        httpx.AsyncClient() as client,
    ):
        for port in (relays, els.port, ras.port, gateway.port, page.port):
            yield (await client.get(f"http://127.0.0.1:{port}/metrics")).text


def names(scrape: str) -> Iterator[str]:
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    for family in text_string_to_metric_families(scrape):
        yield from (f"{family.name}{ending}" for ending in endings.get(family.type, ("",)))


async def test_every_metric_that_rules_and_boards_name_is_told(told: set[str]) -> None:
    asked = [rule["expr"] for rule in rules()] + [text for board in BOARDS for text in expressions(board)]
    named = {name for text in asked for name in METRIC.findall(text)}
    assert len(named) > 40
    assert named - told == set()


@each_board
def test_a_board_is_one_for_grafana(board: Path) -> None:
    register_default_plugins()
    read = Dashboard.from_json(json.loads(board.read_text()))
    panels = [panel for panel in read.panels or () if isinstance(panel, Panel) and panel.targets]
    assert len(panels) > 15
    for panel in panels:
        assert panel.title
        assert panel.options is not None
        assert not any(isinstance(target, UnknownDataquery) for target in panel.targets or ())


@each_board
def test_every_question_of_a_board_can_be_asked(board: Path, tmp_path: Path) -> None:
    recorded = [
        {"record": "asked", "expr": text.replace("$__rate_interval", "1m")} for text in expressions(board)
    ]
    check("rules", tmp_path / "rules.yml", {"groups": [{"name": "asked", "rules": recorded}]}, lint="none")


def check(what: str, file: Path, content: object, **options: str) -> None:
    file.write_text(yaml.safe_dump(content))
    promtool("check", what, *(f"--{name}={value}" for name, value in options.items()), str(file))


def promtool(*arguments: str) -> str:
    program = programs.find("promtool") or servers.missing("promtool is not installed")
    return run([program, *arguments], {})


def test_every_alert_has_a_section_in_the_runbook_with_a_command() -> None:
    sections = dict(
        re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (DOCS / "alerts.md").read_text(), re.MULTILINE | re.DOTALL)
    )
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
        # That each command is one of ours a test of all pages sees.
        assert re.search(r"^(outbox|curl) ", sections[rule["alert"]], re.MULTILINE), rule["alert"]
    assert sections.keys() == {rule["alert"] for rule in rules()}


# When they alarm

WELL = {
    'outbox_relay_ready{instance="a"}': "1x200",
    'outbox_oldest_due_seconds{sink="kafka"}': "0.2x200",
    'outbox_events_published_total{sink="kafka"}': "0+3000x200",
    'outbox_breakers_open{sink="kafka"}': "0x200",
    'outbox_queue_depth{sink="kafka",state="ready"}': "40x200",
    'outbox_queue_depth{sink="kafka",state="parked"}': "0x200",
    'outbox_queue_depth{sink="(unserved)",state="ready"}': "0x200",
    'outbox_stuck{sink="kafka"}': "0x200",
    'outbox_queue_count_age_seconds{instance="a"}': "12x200",
    'outbox_amiss{kind="lost"}': "0x200",
    'websocket_redis_up{instance="g"}': "1x200",
    'els_partitions_held{instance="e"}': "0x200",
    'els_lag_records{instance="e",topic="t"}': "7x200",
    'els_parked_input{kind="data"}': "0x200",
    "els_content_waiting_oldest_seconds{}": "3x200",
    'ras_requests_total{job="ras",status="200"}': "0+300x200",
}
"""Series as a scrape every 30 s finds them while all is well and much goes on."""

QUIET = {'outbox_events_published_total{sink="kafka"}': "900x200"}
NOTHING_GOES = {**QUIET, 'outbox_oldest_due_seconds{sink="kafka"}': "0+30x200"}
DEEP = {'outbox_queue_depth{sink="kafka",state="ready"}': "1000+100000x200"}

CASES: dict[str, tuple[Mapping[str, str], set[str]]] = {
    "steady heavy traffic": ({}, set()),
    "a quiet table": (QUIET, set()),
    "a deep queue behind an open breaker": (
        {**NOTHING_GOES, **DEEP, 'outbox_breakers_open{sink="kafka"}': "1x200"},
        {"OutboxBreakerOpen"},
    ),
    "a backlog that is being sent": (DEEP, set()),
    "something is due and nothing goes": (NOTHING_GOES, {"OutboxStalled", "OutboxBehind"}),
    "it goes, but late": ({'outbox_oldest_due_seconds{sink="kafka"}': "45x200"}, {"OutboxBehind"}),
    "no relay is ready": (
        {'outbox_relay_ready{instance="a"}': "0x200"},
        {"OutboxNoRelay", "OutboxRelayNotReady"},
    ),
    "one relay of two is not ready": ({'outbox_relay_ready{instance="b"}': "0x200"}, {"OutboxRelayNotReady"}),
    "nobody tells of relays": ({'outbox_relay_ready{instance="a"}': "_x200"}, {"OutboxNoRelay"}),
    "stuck": ({'outbox_stuck{sink="kafka"}': "0x9 3x190"}, {"OutboxStuck"}),
    "parked": ({'outbox_queue_depth{sink="kafka",state="parked"}': "2x200"}, {"OutboxParked"}),
    "many fail": (
        {'outbox_events_failed_total{sink="kafka",outcome="retry"}': "0+300x200"},
        {"OutboxRetries"},
    ),
    "some fail": ({'outbox_events_failed_total{sink="kafka",outcome="retry"}': "0+100x200"}, set()),
    "some come late": (
        {'outbox_events_failed_total{sink="redis",outcome="expired"}': "0+1x200"},
        {"OutboxExpired"},
    ),
    "a sink without a relay": (
        {'outbox_queue_depth{sink="(unserved)",state="ready"}': "5x200"},
        {"OutboxUnserved"},
    ),
    "rows do not fit together": ({'outbox_amiss{kind="lost"}': "1x200"}, {"OutboxAmiss"}),
    "nobody counts": ({'outbox_queue_count_age_seconds{instance="a"}': "0+30x200"}, {"OutboxCountOld"}),
    "a pump fails": ({'outbox_pump_failures_total{sink="kafka"}': "0+1x200"}, {"OutboxPumpFails"}),
    "lanes are lost": ({'outbox_lanes_lost_total{sink="kafka"}': "_x80 32x120"}, {"OutboxLanesLost"}),
    "the database goes away": ({"outbox_database_lost_total{}": "0+1x200"}, {"OutboxDatabaseLost"}),
    "a gateway without Redis": ({'websocket_redis_up{instance="h"}': "0x200"}, {"GatewayRedisLost"}),
    "a full gateway": ({'websocket_refused_total{code="1013"}': "0+5x200"}, {"GatewayRefuses"}),
    "a bad token now and then": ({'websocket_refused_total{code="4401"}': "0+5x200"}, set()),
    "browsers load again and again": (
        {'websocket_resyncs_total{cause="rate"}': "0+60x200"},
        {"GatewayResyncs"},
    ),
    "an event that fails": ({'ras_partitions_held{instance="r"}': "1x200"}, {"ConsumerHeld"}),
    "a consumer that lags": ({'els_lag_records{instance="e",topic="t"}': "5000x200"}, {"ConsumerBehind"}),
    "input that nobody can use": ({'els_parked_input{kind="data"}': "1x200"}, {"ConsumerParked"}),
    "uploads without a batch": ({"els_content_waiting_oldest_seconds{}": "0+30x200"}, {"UploadsWait"}),
    "RAS answers with errors": ({'ras_requests_total{job="ras",status="500"}': "0+30x200"}, {"AnswersFail"}),
}
"""What is the matter → what is otherwise then, and which alerts fire after fifty minutes of it."""


def test_an_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    promtool("check", "rules", str(RULES))
    tests = [
        {
            "name": name,
            "interval": "30s",
            "input_series": [
                {"series": series, "values": values} for series, values in {**WELL, **changed}.items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "50m",
                    "exp_samples": [
                        {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(fire)
                    ],
                }
            ],
        }
        for name, (changed, fire) in CASES.items()
    ]
    file = tmp_path / "tests.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": tests})
    )
    promtool("test", "rules", str(file))


def test_each_alert_is_made_to_fire() -> None:
    assert {alert for _, fire in CASES.values() for alert in fire} == {rule["alert"] for rule in rules()}


def test_the_series_of_the_cases_have_the_labels_of_the_metrics() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| (.*?) \|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    labels = {name: set(re.findall(r"`(\w+)`", listed)) for name, listed in rows}
    for series in (*WELL, *(series for changed, _ in CASES.values() for series in changed)):
        name, _, given = series.partition("{")
        # The scraper's own are there too.
        assert set(re.findall(r"(\w+)=", given)) - {"instance", "job"} == labels[name], series
