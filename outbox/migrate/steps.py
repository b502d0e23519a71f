"""What the authors of migrations write for the steps that plain DDL does badly under writers at work.

Each is safe to run again, since what has no transaction may have been interrupted anywhere. Migrations never
change, so neither does what these do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alembic import context, op
from sqlalchemy import text

from outbox.migrate.environment import LOCK

# Of a build that was interrupted, or that a duplicate or a deadlock ended.
_IS_BROKEN = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid)"

_IN_SCHEMA = """
DO $do$
BEGIN
EXECUTE format($create$
{statement}
$create$, current_schema());
END
$do$
"""

_VALIDATE = """
DO $do$
BEGIN
    ALTER TABLE outbox VALIDATE CONSTRAINT {name};
EXCEPTION WHEN check_violation THEN
    RAISE WARNING '{name} is not validated: older rows of outbox violate it';
END
$do$
"""

_UNVALIDATE = """
DO $do$
BEGIN
    EXECUTE (
        SELECT format('ALTER TABLE outbox DROP CONSTRAINT %1$s, ADD CONSTRAINT %1$s CHECK (%2$s) NOT VALID',
                      conname, pg_get_expr(conbin, conrelid))
        FROM pg_constraint WHERE conname = '{name}' AND conrelid = 'outbox'::regclass
    );
END
$do$
"""


def build_index(name: str, table: str, columns: Sequence[Any], **options: Any) -> None:
    """Builds an index while writers write; `columns` and `options` are those of `op.create_index`.

    A broken one is dropped first. It has no transaction, so it is all that its migration does. It waits,
    without blocking anybody, until every transaction ends that was open when it began.
    """
    with _without_transaction():
        schema = op.get_context().version_table_schema
        if not context.is_offline_mode():
            broken = text(_IS_BROKEN).bindparams(name=f'"{schema}".{name}' if schema else name)
            if op.get_bind().execute(broken).scalar_one():
                _drop(name, table)
        op.create_index(
            name, table, columns, schema=schema, postgresql_concurrently=True, if_not_exists=True, **options
        )


def drop_index(name: str, table: str) -> None:
    """Drops an index while writers write; it is all that its migration does."""
    with _without_transaction():
        _drop(name, table)


def add_check(name: str, condition: str) -> None:
    """Refuses new rows of `outbox` that do not satisfy `condition`; older ones are not looked at.

    Never on another table, where it would fail relays of an older version instead of the writer at fault.
    """
    op.execute(f"ALTER TABLE outbox ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")


def drop_check(name: str) -> None:
    """Takes a CHECK of `outbox` back."""
    op.execute(f"ALTER TABLE outbox DROP CONSTRAINT {name}")


def validate(*names: str) -> None:
    """Looks whether the older rows of `outbox` satisfy these CHECKs; one that they violate stays as it is.

    It reads the whole table, so it is all that its migration does.
    """
    for name in names:
        op.execute(_VALIDATE.format(name=name))


def unvalidate(*names: str) -> None:
    """Brings CHECKs of `outbox` back to what they were before `validate`."""
    for name in names:
        op.execute(_UNVALIDATE.format(name=name))


def create_in_schema(statement: str) -> None:
    """Runs a CREATE FUNCTION that names the outbox's schema, as SECURITY DEFINER demands, by %1$I.

    The database fills it in: a migration knows it no sooner, and nor does the SQL that is printed.
    """
    op.execute(_IN_SCHEMA.format(statement=statement))


def _drop(name: str, table: str) -> None:
    op.drop_index(
        name,
        table,
        schema=op.get_context().version_table_schema,
        postgresql_concurrently=True,
        if_exists=True,
    )


@contextmanager
def _without_transaction() -> Iterator[None]:
    with op.get_context().autocommit_block():
        # These block nobody while they wait, and begin from nothing if they are interrupted.
        op.execute("SET lock_timeout = 0")
        op.execute("SET statement_timeout = 0")
        yield
        op.execute(f"SET lock_timeout = '{LOCK.longest:g}s'")
