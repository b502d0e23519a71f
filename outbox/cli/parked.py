"""`outbox huleedu parked list|show|retry|drop`: input that ELS or RAS could not use."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar

import asyncpg
import click
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.cli.output import age, as_json, print_facts, print_json, print_table, settings
from outbox.distribution import install
from outbox.errors import OperatorError, unwrapped
from outbox.operate import connect

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_CONDITIONS = (
    click.option("--consumer", help="Only of this consumer group."),
    click.option("--topic", help="Only of this topic."),
    click.option("--kind", help="Only of this kind: unreadable, refused, unsendable, unstorable."),
    click.option("--reason", help="Only where the reason contains this."),
)
_ids = click.argument("ids", nargs=-1, type=click.IntRange(1), metavar="[ID]...")
_everything = click.option("--all", "everything", is_flag=True, help="Without any narrowing.")


def _narrowing(command: F) -> F:
    return reduce(lambda decorated, option: option(decorated), reversed(_CONDITIONS), command)


@click.group()
def parked() -> None:
    """Input that ELS or RAS could not use: look at it, try it again, or forget it.

    It is in the table huleedu_parked_input of OUTBOX_DATABASE_URL, each record with the reason, until it is
    older than ELS_PARKED_RETENTION or RAS_PARKED_RETENTION.
    """


@parked.command("list")
@_narrowing
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many.")
@as_json
def list_(*, limit: int, as_json: bool, **conditions: Any) -> None:
    """List parked records and why, oldest first."""
    store = _store()
    which = store.Which(**conditions)

    async def look(connection: AsyncConnection) -> tuple[int, list[Any]]:
        return await store.count(connection, which), await store.find(connection, which, limit)

    number, found = _ask(look)
    if as_json:
        print_json({"rows": number, "records": found})
        return
    if not found:
        click.echo("Nothing is parked.")
        return
    columns = ("id", "consumer", "topic", "partition", "partition_offset", "kind", "reason")
    rows = ([getattr(each, name) for name in columns] for each in found)
    table = ((*row, age(each.parked_at), each.retry_at) for row, each in zip(rows, found, strict=True))
    print_table((*(name.replace("partition_", "") for name in columns), "parked for", "retry since"), table)
    if number > len(found):
        click.echo(f"… and {number - len(found)} more; see --limit")


@parked.command()
@click.argument("id", type=click.IntRange(1))
@as_json
@click.pass_context
def show(ctx: click.Context, *, id: int, as_json: bool) -> None:  # noqa: A002 (click names it so)
    """Show a parked record with all that is in it, which may be personal data."""
    store = _store()

    async def look(connection: AsyncConnection) -> tuple[list[Any], Mapping[str, Any] | None]:
        found = await store.find(connection, store.Which(ids=[id]))
        return found, await store.content(connection, id)

    found, content = _ask(look)
    if not found or content is None:
        click.echo("There is no such record: it was applied, dropped, or is too old.", err=True)
        ctx.exit(1)
    facts = {name: getattr(found[0], name) for name in found[0].__slots__}
    texts = {name: _text(content[name]) for name in ("key", "value")}
    if as_json:
        print_json({**facts, **texts, "headers": content["headers"]})
    else:
        headers = {f"header {name}": value for name, value in content["headers"].items()}
        print_facts({**facts, **headers, **texts})


@parked.command()
@_ids
@_narrowing
@_everything
def retry(*, ids: Sequence[int], everything: bool, **conditions: Any) -> None:
    """Have parked records tried again, once their cause is mended.

    The service that parked them does it within seconds, as if they had come now: what was applied meanwhile
    is not applied twice. What still cannot be used is parked again, with the reason.
    """
    number = _act(ids, everything, conditions, lambda store: store.ask_for_retry)
    click.echo(f"{number} will be tried again. See what is left: outbox huleedu parked list")


@parked.command()
@_ids
@_narrowing
@_everything
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(*, ids: Sequence[int], everything: bool, yes: bool, **conditions: Any) -> None:
    """Forget parked records: they are never applied."""
    if not (yes or ids):
        if not sys.stdin.isatty():
            raise click.UsageError("Add --yes: what is dropped is gone.")
        click.confirm("Forget them? They will never be applied", abort=True)
    number = _act(ids, everything, conditions, lambda store: store.drop)
    click.echo(f"{number} dropped.")


def _act(
    ids: Sequence[int], everything: bool, conditions: Mapping[str, Any], choose: Callable[[Any], Any]
) -> int:
    narrowed = bool(ids) or any(value is not None for value in conditions.values())
    if narrowed == everything:
        raise click.UsageError("Name records or narrow them down (see --help), or say --all.")
    store = _store()

    async def act(connection: AsyncConnection) -> int:
        number: int = await choose(store)(connection, store.Which(ids=ids, **conditions))
        await connection.commit()
        return number

    done = _ask(act)
    if ids and not done:
        click.echo("There is no such record: it was applied, dropped, or is too old.", err=True)
        click.get_current_context().exit(1)
    return done


def _ask(question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    async def answer() -> T:
        async with connect(settings()) as connection:
            # These tables are in the connection's own schema, wherever the outbox's are.
            await connection.execution_options(schema_translate_map={})
            try:
                return await question(connection)
            except DBAPIError as error:
                if isinstance(unwrapped(error), asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError):
                    raise OperatorError(
                        "HuleEdu's tables are not there, or older: run `alembic -n huleedu upgrade head` "
                        "on this database, or set OUTBOX_DATABASE_URL to that of ELS or RAS"
                    ) from None
                raise

    return asyncio.run(answer())


def _store() -> Any:
    try:
        from outbox.huleedu.consume import parked as store
    except ModuleNotFoundError as error:
        raise OperatorError(f"outbox huleedu parked needs {error.name}: {install('huleedu')}") from error
    return store


def _text(value: bytes | None) -> str | None:
    """Returns bytes as text, or in base64 where they are none."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return json.dumps({"base64": base64.b64encode(value).decode()})
