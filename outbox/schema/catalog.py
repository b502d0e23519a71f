"""What is in the database: which migration it is at, and everything that the migrations made there.

Alembic compares tables, columns and indexes. `catalog` also tells of triggers, functions, the view, CHECKs,
storage parameters and comments, so that a database can be compared with a freshly migrated one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from outbox.schema.limits import REVISIONS, TABLES, VERSION_TABLE

_EXPECTED = Path(__file__).with_name("catalog.json")

# Definitions name the schema; without it, those of two schemas can be compared.
_CATALOG = """
WITH here AS (
    SELECT oid, quote_ident(nspname) || '.' AS prefix
    FROM pg_namespace WHERE nspname = coalesce($1, current_schema())
), ours AS (
    SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.reloptions, c.relrowsecurity
    FROM pg_class c JOIN here ON here.oid = c.relnamespace
    WHERE c.relname = ANY ($2) AND c.relkind IN ('r', 'p', 'v', 'm')
), found (name, definition, comment) AS (
    SELECT 'table ' || relname,
           concat_ws(' ', relpersistence, array(SELECT unnest(reloptions) ORDER BY 1), relrowsecurity),
           obj_description(oid, 'pg_class')
    FROM ours WHERE relkind IN ('r', 'p')
    UNION ALL
    SELECT 'view ' || relname, pg_get_viewdef(oid), obj_description(oid, 'pg_class')
    FROM ours WHERE relkind IN ('v', 'm')
    UNION ALL
    SELECT 'column ' || relname || '.' || attname,
           concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
                     pg_get_expr(adbin, adrelid)),
           col_description(ours.oid, attnum)
    FROM ours JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef ON adrelid = ours.oid AND adnum = attnum
    WHERE relkind IN ('r', 'p')
    UNION ALL
    -- From PostgreSQL 18 on NOT NULL is here too (n); the columns tell of it already.
    SELECT 'constraint ' || relname || '.' || conname,
           concat_ws(' ', pg_get_constraintdef(c.oid), convalidated), obj_description(c.oid, 'pg_constraint')
    FROM ours JOIN pg_constraint c ON conrelid = ours.oid AND contype <> 'n'
    UNION ALL
    SELECT 'index ' || ours.relname || '.' || i.relname,
           concat_ws(' ', pg_get_indexdef(i.oid), indisvalid), obj_description(i.oid, 'pg_class')
    FROM ours JOIN pg_index ON indrelid = ours.oid JOIN pg_class i ON i.oid = indexrelid
    UNION ALL
    SELECT 'trigger ' || relname || '.' || tgname,
           concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled), obj_description(t.oid, 'pg_trigger')
    FROM ours JOIN pg_trigger t ON tgrelid = ours.oid AND NOT tgisinternal
    UNION ALL
    SELECT 'function ' || proname,
           concat_ws(' ', pg_get_functiondef(p.oid), has_function_privilege('public', p.oid, 'EXECUTE')),
           obj_description(p.oid, 'pg_proc')
    FROM pg_proc p JOIN here ON here.oid = pronamespace
    WHERE starts_with(proname, 'outbox_') AND prokind = 'f'
)
SELECT name, replace(definition, prefix, '') AS definition, comment FROM found, here
"""

# A migration leaves a CHECK so where older rows violate it.
_UNVALIDATED = """
SELECT format('%1$s on %2$s is not validated: new rows satisfy it, older ones may not. '
              'Find them: SELECT * FROM %2$s WHERE NOT (%3$s). '
              'Once they are gone: ALTER TABLE %2$s VALIDATE CONSTRAINT %1$s',
              conname, conrelid::regclass, pg_get_expr(conbin, conrelid))
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE NOT convalidated AND contype = 'c' AND relname = ANY ($2)
  AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = coalesce($1, current_schema()))
ORDER BY 1
"""


async def catalog(
    connection: asyncpg.Connection,
    schema: str | None = None,
    relations: Sequence[str] = (*TABLES, "outbox_state"),
) -> dict[str, str]:
    """Returns everything of the outbox in the database: what it is and its name, and how it is defined.

    Comments belong to the definitions.
    """
    found = await connection.fetch(_CATALOG, schema, list(relations))
    return {name: " -- ".join(filter(None, both)) for name, *both in found}


async def definitions(connection: asyncpg.Connection, schema: str | None = None) -> dict[str, str]:
    """Returns everything of the outbox in the database as `expected` has it: without comments."""
    found = await connection.fetch(_CATALOG, schema, [*TABLES, "outbox_state"])
    return {name: definition for name, definition, _ in found}


def expected() -> dict[str, str]:
    """Returns everything that the migrations of this version make, and how it is defined.

    `python -m tests.support.catalog` writes it down, from a database that is freshly migrated.
    """
    found: dict[str, str] = json.loads(_EXPECTED.read_text())
    return found


async def unvalidated(
    connection: asyncpg.Connection, schema: str | None = None, tables: Sequence[str] = TABLES
) -> list[str]:
    """Returns the CHECKs that older rows may violate, each in one line with what to do."""
    return [line for (line,) in await connection.fetch(_UNVALIDATED, schema, list(tables))]


async def version(connection: asyncpg.Connection, schema: str | None = None) -> str | None:
    """Returns the migration that the database is at; None where the outbox's tables are not there."""
    table = f'"{schema}".{VERSION_TABLE}' if schema else VERSION_TABLE
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return None
    found: str | None = await connection.fetchval(f"SELECT version_num FROM {table}")
    return found


async def missing(connection: asyncpg.Connection, schema: str | None = None) -> str | None:
    """Returns what `outbox migrate` has still to do before this version can work, in one line; None: nothing.

    A newer schema is no reason not to work: each release leaves the one before it working, so that a database
    can be migrated first and the relays replaced after it.
    """
    found = await version(connection, schema)
    if found is None:
        return "the outbox's tables are not there; run `outbox migrate`"
    if found in REVISIONS[:-1]:
        return f"the schema is at {found}, and this version needs {REVISIONS[-1]}; run `outbox migrate`"
    return None
