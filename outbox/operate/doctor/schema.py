"""Whether the schema is that of this version, and everything is there that its migrations make."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import asyncpg

from outbox.finding import Finding
from outbox.operate.doctor.patient import Patient
from outbox.schema import REVISIONS
from outbox.schema.catalog import definitions, expected, unvalidated, version

_MOST = 20
"""So many differences are told one by one."""
_LONGEST = 500

_QUALIFIER = re.compile(r"\b\w+\.|\s+")
_BY_MIGRATIONS = "see its statement: outbox migrate --sql"


async def schema(patient: Patient) -> list[Finding]:
    """Compares the version and the catalog with what this version makes."""
    database, name = await patient.session(), patient.settings.database_schema
    found = await version(database, name)
    if found not in REVISIONS:
        return [_of_another_version(found)]
    if found != REVISIONS[-1]:
        sentence = f"The schema is at {found}, and this version is at {REVISIONS[-1]}."
        return [Finding("error", sentence, "outbox migrate")]
    differences = list(_differences(expected(), await definitions(database, name), name))
    return [*_few(differences), *await _violated(database, name)]


def _of_another_version(found: str | None) -> Finding:
    if found is None:
        return Finding("error", "The outbox's tables are not there.", "outbox migrate")
    return Finding(
        "warning",
        f"The schema is at {found}, newer than this version, which knows {REVISIONS[-1]}: "
        "it works, and was not compared.",
        "replace the relays and this command by the newer version",
    )


def _few(found: list[Finding]) -> list[Finding]:
    if len(found) <= _MOST:
        return found
    rest = f"{len(found) - _MOST} more things are not as the migrations make them."
    return [*found[:_MOST], Finding("error", rest, "outbox doctor --only schema, once these are mended")]


async def _violated(database: asyncpg.Connection, schema: str | None) -> list[Finding]:
    """Tells of the CHECKs that older rows may violate."""
    told = (line.partition(". Find them: ") for line in await unvalidated(database, schema))
    return [Finding("warning", f"{sentence}.", f"find them: {remedy}") for sentence, _, remedy in told]


def _differences(
    wanted: Mapping[str, str], found: Mapping[str, str], schema: str | None
) -> Iterator[Finding]:
    path = f'SET search_path = "{schema}"; ' if schema else ""
    missing = {name.partition(" ")[2] for name in wanted if name.startswith("table ") and name not in found}
    for name, definition in wanted.items():
        kind, _, thing = name.partition(" ")
        relation, _, own = thing.partition(".")
        if own and (relation in missing or (kind == "index" and f"constraint {thing}" in wanted)):
            continue
        told = (
            _changed(kind, relation, own, definition, found[name])
            if name in found
            else _missing(kind, relation, own, definition)
        )
        if told:
            yield Finding("error", told[0], told[1].replace("{path}", path))
    yield from _of_others(wanted, found)


def _missing(kind: str, relation: str, own: str, definition: str) -> tuple[str, str]:
    body = definition.rpartition(" ")[0]
    sentence = f"The {_told(kind, relation, own)} is missing."
    match kind:
        case "index":
            made = body.replace("INDEX", "INDEX CONCURRENTLY", 1)
            return f"{sentence[:-1]}: what looks rows up by it reads all of them.", f"{{path}}{made}"
        case "trigger":
            return f"{sentence[:-1]}: {_untriggered(own)}", f"{{path}}{body}; then: outbox repair"
        case "constraint":
            return sentence, f"{{path}}ALTER TABLE {relation} ADD CONSTRAINT {own} {body}"
        case "column":
            return sentence, f"{{path}}ALTER TABLE {relation} ADD COLUMN {own} {definition}"
        case _:
            return sentence, _BY_MIGRATIONS


def _untriggered(trigger: str) -> str:
    """Returns what comes of it that a trigger does not fire."""
    match trigger:
        case "outbox_enqueue":
            return "what is written is not queued, and nobody sends it."
        case "outbox_begin_writing":
            return "relays may pass by what is committed late."
        case _:
            return "what it does is left undone."


def _changed(kind: str, relation: str, own: str, wanted: str, found: str) -> tuple[str, str] | None:
    """Returns what is other than wanted and matters, with its remedy."""
    told = _told(kind, relation, own)
    if disabled := _disabled(kind, relation, own, wanted, found):
        return f"The {told} is {disabled[0]}", disabled[1]
    if _comparable(kind, wanted) == _comparable(kind, found):
        return None
    match kind:
        case "table":
            logged = f"{{path}}ALTER TABLE {relation} SET LOGGED"
            return f"The {told} is unlogged: a crash of the server empties it.", logged
        case "column":
            return f"The {told} is {found}, and should be {wanted}.", _BY_MIGRATIONS
        case "index" | "trigger" | "constraint":
            body = found.rpartition(" ")[0]
            return f"The {told} is other than it should be: {body}.", f"it should be: {wanted[:-2]}"
        case _:
            return f"The {told} is not what the migrations make.", _BY_MIGRATIONS


def _disabled(kind: str, relation: str, own: str, wanted: str, found: str) -> tuple[str, str] | None:
    """Returns what the server says of a thing that is there and of no use, with its remedy."""
    state = found.rpartition(" ")[2]
    match kind:
        case "index" if state == "f":
            return "invalid: nothing is looked up by it.", f"{{path}}REINDEX INDEX CONCURRENTLY {own}"
        case "trigger" if state not in "OA":
            enabled = f"{{path}}ALTER TABLE {relation} ENABLE TRIGGER {own}; then: outbox repair"
            return f"not enabled: {_untriggered(own)}", enabled
        case "function" if state == "t" and wanted.endswith(" f"):
            revoked = f"{{path}}REVOKE ALL ON FUNCTION {relation} FROM PUBLIC"
            return "everybody's to call, and acts with its owner's rights.", revoked
    return None


def _comparable(kind: str, definition: str) -> str:
    """Returns of a definition what matters of it, and what servers of all versions say alike."""
    match kind:
        case "table":  # Storage parameters may be tuned, and row security is looked at elsewhere.
            return definition[:1]
        case "view":
            return _QUALIFIER.sub("", definition)
        case "column":
            return definition
        case _:
            return definition.rpartition(" ")[0].removesuffix(" NOT VALID")


def _of_others(wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Finding]:
    """Tells of what somebody added to our tables."""
    for name in sorted(found.keys() - wanted.keys()):
        kind, _, thing = name.partition(" ")
        relation, _, own = thing.partition(".")
        if own and not (kind == "index" and f"constraint {thing}" in found):
            sentence = (
                f"The {_told(kind, relation, own)} is none of the outbox's: whoever writes there pays for it."
            )
            body = found[name] if kind == "column" else found[name].rpartition(" ")[0]
            dropped = f"DROP INDEX CONCURRENTLY {own}" if kind == "index" else "drop it"
            yield Finding("warning", sentence, f"{dropped}, unless it is needed: it is {body}"[:_LONGEST])


def _told(kind: str, relation: str, own: str) -> str:
    return f"{kind} {own} of {relation}" if own else f"{kind} {relation}"
