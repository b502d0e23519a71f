"""Do the rows of the tables fit together: what `outbox repair` would do."""

from __future__ import annotations

import asyncio

from outbox.finding import Finding
from outbox.operate.doctor.patient import Patient
from outbox.operate.integrity import look
from outbox.operate.mend import survey

_SURVEY_SECONDS = 30.0
_SEE = "outbox repair --dry-run"


async def repair(patient: Patient) -> list[Finding]:
    """Looks through all rows as `outbox repair` does; where they are too many for that, at the newest."""
    async with patient.connection.begin():
        newest = await look(patient.connection)
    try:
        async with asyncio.timeout(_SURVEY_SECONDS):
            found = await survey(patient.connection)
    except TimeoutError:
        told = ", ".join(f"{number} {kind}" for kind, number in newest.counts.items() if number)
        amiss = [Finding("error", f"Rows do not fit together: {told}.", _SEE)] if newest else []
        sentence = f"Not all rows were looked through within {_SURVEY_SECONDS:g} s; the newest were."
        return [*amiss, Finding("unknown", sentence, _SEE)]
    return [Finding("error", sentence, _SEE) for sentence in found.sentences()]
