"""All tables as SQLAlchemy describes them; Alembic compares this with the database.

Triggers, functions and the view `outbox_state` live in the migrations only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import MetaData, Table

from outbox.schema import acts, deliveries, parties, walks
from outbox.schema.limits import TABLES, VERSION_TABLE

_CONVENTION = {
    "pk": "%(table_name)s_pkey",
    "ck": "%(table_name)s_%(constraint_name)s",
    "ix": "%(table_name)s_%(column_0_N_name)s",
}


@cache
def metadata(schema: str | None = None) -> MetaData:
    """Describes all tables, in `schema` or in the connection's own."""
    tables = MetaData(schema=schema, naming_convention=_CONVENTION)
    for describe in (
        deliveries.outbox,
        deliveries.queue,
        deliveries.receipts,
        parties.lanes,
        parties.relays,
        parties.sinks,
        parties.inbox,
        parties.pauses,
        acts.operations,
        acts.acts,
        walks.walks,
        walks.amiss,
    ):
        describe(tables)
    return tables


def table(name: str, schema: str | None = None) -> Table:
    """Returns the table of that name, one of `TABLES`."""
    return metadata(schema).tables[f"{schema}.{name}" if schema else name]


@cache
def in_schema(statement: str, schema: str | None) -> str:
    """Returns a statement with its `{schema}` filled in; None is the connection's own."""
    return statement.replace("{schema}", f'"{schema}".' if schema else "")


def include_name(name: str | None, kind: str, _parents: Mapping[Any, str | None]) -> bool:
    """Keeps a service's own Alembic away from our tables: `context.configure(…, include_name=include_name)`.

    Without it, `alembic revision --autogenerate` proposes to drop every table that the service's
    metadata does not have. Not needed where the outbox has a schema of its own.
    """
    return kind != "table" or name not in (*TABLES, VERSION_TABLE)
