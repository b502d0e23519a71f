"""Whether each role has the rights of the part that it is, and sees all rows.

Which part a role is, is told by a right that no other part has.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from outbox.finding import Finding
from outbox.operate.doctor.patient import Patient
from outbox.schema import TABLES, VERSION_TABLE
from outbox.schema.grants import FUNCTIONS, RIGHTS, Part

_RELATIONS = (*TABLES, "outbox_state", "outbox_id_seq", VERSION_TABLE)

_GRANTED = """
    WITH ours AS (
        SELECT c.oid, c.relname, c.relowner, c.relacl FROM pg_class c
        WHERE c.relname = ANY ($1)
          AND c.relnamespace = (
              SELECT relnamespace FROM pg_class WHERE oid = CAST('{schema}outbox' AS regclass))
    ), granted AS (
        SELECT relname, relowner, acl.grantee, acl.privilege_type AS privilege, NULL AS attname
        FROM ours, aclexplode(relacl) AS acl
        UNION ALL
        SELECT relname, relowner, acl.grantee, acl.privilege_type, attname
        FROM ours JOIN pg_attribute ON attrelid = ours.oid, aclexplode(attacl) AS acl
    )
    SELECT DISTINCT coalesce(r.rolname, 'PUBLIC') AS role, relname AS relation, privilege, attname AS column
    FROM granted LEFT JOIN pg_roles r ON r.oid = grantee
    WHERE grantee <> relowner AND NOT coalesce(r.rolsuper, false) AND (grantee = 0 OR r.oid IS NOT NULL)
"""
_LACKING = """
    SELECT r.relation, r.privilege, r.column
    FROM unnest($2::text[], $3::text[], $4::text[]) AS r (relation, privilege, "column")
    WHERE NOT coalesce(CASE
        WHEN r.relation = 'outbox_id_seq'
            THEN has_sequence_privilege($1::text, '{schema}' || r.relation, r.privilege)
        WHEN r.column <> ''
            THEN has_column_privilege($1::text, '{schema}' || r.relation, r.column, r.privilege)
        ELSE has_table_privilege($1::text, '{schema}' || r.relation, r.privilege)
    END, false)
"""
_MAY_ENTER = """
    SELECT has_schema_privilege($1::text, relnamespace, 'USAGE')
    FROM pg_class WHERE oid = CAST('{schema}outbox' AS regclass)
"""
_UNCALLABLE = """
    SELECT name FROM unnest($2::text[]) AS name
    WHERE NOT coalesce(
        has_function_privilege($1::text, to_regprocedure('{schema}' || name), 'EXECUTE'), false)
"""
_HIDING = """
    SELECT c.relname, r.rolname
    FROM pg_class c CROSS JOIN pg_roles r
    WHERE c.relname = ANY ($1) AND c.relrowsecurity
      AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = CAST('{schema}outbox' AS regclass))
      AND (r.rolname = ANY ($2) OR r.rolname = current_user)
      AND NOT r.rolsuper AND NOT r.rolbypassrls
      AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE'))
    ORDER BY 1, 2
"""


class Right(NamedTuple):
    """A right on a table, or on one column of it."""

    relation: str
    privilege: str
    column: str = ""

    def __str__(self) -> str:
        """Returns it for people."""
        return f"{self.privilege} on {self.relation}{f' ({self.column})' if self.column else ''}"


_TELLING: Mapping[Part, Right] = {
    "writer": Right("outbox", "INSERT", "available_at"),
    "relay": Right("outbox", "DELETE"),
    "operator": Right("outbox_queue", "INSERT"),
    "consumer": Right("outbox_inbox", "INSERT"),
}
"""By which a role is known as that part; a reader is who may only look."""


async def grants(patient: Patient) -> list[Finding]:
    """Looks whether each role has all rights of its parts, and nobody else has any."""
    found: list[Finding] = []
    for role, granted in (await _granted(patient)).items():
        if role == "PUBLIC":
            found.append(_of_everybody(granted))
            continue
        for part in parts_of(granted):
            if lacking := await _lacking(patient, role, part):
                command = f"outbox grants {part} {role} | psql, as the tables' owner"
                told = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
                found.append(Finding("error", f"Role {role} is a {part}, and lacks {told}.", command))
    return found


async def row_security(patient: Patient) -> list[Finding]:
    """Looks whether policies hide rows from those who must see all."""
    roles = [
        role
        for role, granted in (await _granted(patient)).items()
        if {"relay", "operator", "reader"}.intersection(parts_of(granted))
    ]
    return [
        Finding(
            "error",
            f"Row security is on for {row.relname}, and role {row.rolname} would not see all of its rows: "
            "it gets errors instead.",
            f'ALTER TABLE {row.relname} DISABLE ROW LEVEL SECURITY; or ALTER ROLE "{row.rolname}" BYPASSRLS',
        )
        for row in await patient.ask(_HIDING, list(TABLES), roles)
    ]


def parts_of(granted: Collection[Right]) -> list[Part]:
    """Returns which parts a role is, by the rights that it was given."""
    parts = [
        part
        for part, telling in _TELLING.items()
        if telling in granted or telling._replace(column="") in granted
    ]
    is_reader = not parts and any(right[:2] == ("outbox_state", "SELECT") for right in granted)
    return ["reader"] if is_reader else parts


async def _granted(patient: Patient) -> dict[str, set[Right]]:
    found: dict[str, set[Right]] = defaultdict(set)
    for row in await patient.ask(_GRANTED, list(_RELATIONS)):
        found[row.role].add(Right(row.relation, row.privilege, row.column or ""))
    return found


def _of_everybody(granted: Collection[Right]) -> Finding:
    tables = ", ".join(sorted({right.relation for right in granted}))
    return Finding(
        "warning",
        f"Everybody (PUBLIC) has rights on {tables}.",
        f"REVOKE ALL ON {tables} FROM PUBLIC",
    )


async def _lacking(patient: Patient, role: str, part: Part) -> list[str]:
    rights = list(_rights(part))
    columns = [list(each) for each in zip(*rights, strict=True)]
    lacking = [str(Right(*tuple(row))) for row in await patient.ask(_LACKING, role, *columns)]
    ((may_enter,),) = await patient.ask(_MAY_ENTER, role)
    if not may_enter:
        lacking.insert(0, "USAGE on the schema")
    uncallable = await patient.ask(_UNCALLABLE, role, list(FUNCTIONS.get(part, ())))
    return [*lacking, *(f"EXECUTE on {row.name.partition('(')[0]}" for row in uncallable)]


def _rights(part: Part) -> Iterator[Right]:
    for relation, rights in RIGHTS[part].items():
        for privilege, columns in re.findall(r"(\w+)(?: \(([^)]*)\))?", rights):
            for column in columns.split(", ") if columns else ("",):
                yield Right(relation, privilege, column)
