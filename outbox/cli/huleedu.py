"""`outbox huleedu els|ras|gateway|page`: HuleEdu's services, each a process; their tables and input."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from outbox.cli.output import settings, settings_of_process
from outbox.cli.parked import parked
from outbox.distribution import install
from outbox.errors import OperatorError


@click.group()
def huleedu() -> None:
    """HuleEdu's services on the outbox, each a process of its own: the example that it was made for.

    Who adopts the outbox needs none of them. `outbox up` starts them all.
    """


@huleedu.command(short_help="Bring the database to the tables of these services.")
def migrate() -> None:
    """Bring the database in OUTBOX_DATABASE_URL to the tables of these services; after `outbox migrate`.

    Does nothing where they are there already.
    """
    from outbox.huleedu.migrate import upgrade

    upgrade(settings())
    click.echo("The database has the newest tables of HuleEdu's services.")


@huleedu.command(short_help="Assign uploaded essays to the slots of their batch.")
def els() -> None:
    """The Essay Lifecycle Service: assigns uploaded content to the slots of its batch.

    Settings are ELS_… variables, ELS_DATABASE_URL and ELS_KAFKA_BOOTSTRAP_SERVERS at least. Any number may
    run in one Kafka group. SIGTERM: finish what is under way, commit, end with 0.
    """
    service = _service("els")
    service.main(settings_of_process(service.ElsSettings))


@huleedu.command(short_help="Keep the results of essays, and tell how a batch is.")
def ras() -> None:
    """The Result Aggregator Service: keeps what events say of essays, and tells how a batch is.

    Settings are RAS_… variables: RAS_DATABASE_URL, RAS_KAFKA_BOOTSTRAP_SERVERS, RAS_INTERNAL_API_KEY and
    RAS_ALLOWED_SERVICE_IDS at least. SIGTERM: finish what is under way, commit, end with 0.
    """
    service = _service("ras")
    service.main(settings_of_process(service.RasSettings))


@huleedu.command(short_help="Bring what is published for a user to their browsers.")
def gateway() -> None:
    """The WebSocket gateway: brings what is published for a user to that user's browsers.

    Settings are GATEWAY_… variables, GATEWAY_REDIS_URL and GATEWAY_JWT_SECRET or GATEWAY_JWKS at least.
    SIGTERM: close every socket within a few seconds, end with 0.
    """
    service = _service("gateway")
    service.main(settings_of_process(service.GatewaySettings))


@huleedu.command(short_help="Ask RAS for browsers; show the upload page in a demo.")
def page() -> None:
    """The browser's way to RAS: checks a user's token, and tells how that user's batches are.

    Settings are PAGE_… variables: PAGE_DATABASE_URL, PAGE_RAS_URL, PAGE_RAS_API_KEY and PAGE_JWKS or
    PAGE_JWT_SECRET at least. PAGE_DEMO=true, with PAGE_GATEWAY_URL, adds the page on which anybody may upload
    essays as one of its demo users. SIGTERM: end with 0.
    """
    service = _service("page")
    service.main(settings_of_process(service.PageSettings))


huleedu.add_command(parked)


def _service(name: str) -> Any:
    try:
        return import_module(f"outbox.huleedu.{name}.service")
    except ModuleNotFoundError as error:
        raise OperatorError(f"outbox huleedu {name} needs {error.name}: {install('huleedu')}") from error
