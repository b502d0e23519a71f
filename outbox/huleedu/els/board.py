"""The slots of some batches while their rows are locked: who has one, and which one is next. Pure.

Nothing here asks the database: what a transaction needs of its slots is read before, and written after.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

from outbox.huleedu.events import EssayContentProvisionedV1


class Slot(NamedTuple):
    """A slot of a batch, and the content that has it, if one has."""

    batch_id: str
    slot_index: int
    essay_id: str
    file_upload_id: str | None
    text_storage_id: str | None


class Board:
    """The slots that some contents have or may get, in batches whose rows are locked."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._of_upload: dict[tuple[str, str], Slot] = {}
        self._of_text: dict[tuple[str, str], Slot] = {}
        self._free: dict[str, deque[Slot]] = defaultdict(deque)
        for slot in sorted(slots):
            if slot.file_upload_id is None:
                self._free[slot.batch_id].append(slot)
            else:
                self._fill(slot)

    def slot_of(self, content: EssayContentProvisionedV1) -> Slot | None:
        """Returns the slot that this upload has, else the one that this text has; None if neither has one."""
        batch_id = content.entity_id
        upload = self._of_upload.get((batch_id, content.file_upload_id))
        return upload or self._of_text.get((batch_id, content.text_storage_id))

    def take(self, content: EssayContentProvisionedV1) -> tuple[Slot, bool] | None:
        """Gives the content the lowest free slot of its batch; returns None if there was none.

        Returns the slot, and True if it was the last free one.
        """
        free = self._free[content.entity_id]
        if not free:
            return None
        slot = free.popleft()._replace(
            file_upload_id=content.file_upload_id, text_storage_id=content.text_storage_id
        )
        self._fill(slot)
        return slot, not free

    def _fill(self, slot: Slot) -> None:
        assert slot.file_upload_id is not None and slot.text_storage_id is not None  # noqa: S101, PT018
        self._of_upload[slot.batch_id, slot.file_upload_id] = slot
        self._of_text[slot.batch_id, slot.text_storage_id] = slot
