"""Rejects: rows that could not be loaded, as they are kept and settled (`headrace.storage.sql.rejects`).

    kept ──► replayed (by the slice that loads its row, in its transaction) ──► perhaps a new reject, which replaces it
      └────► discarded

A reject is written in the transaction of its slice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

__all__ = ["Reject", "RejectStage", "RejectState", "StoredReject"]

RejectState = Literal["kept", "replayed", "discarded"]
RejectStage = Literal["read", "prepare", "revision"]


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejected row. `row` and `line` are its address (row 0-based without the header, line 1-based physical).

    `raw` is the row's text as it stood in the input (or its JSON where the input was not text). `record` is a JSON
    object of column to text (or null) from which the row can be loaded again, `None` where the row could not be split
    into columns. `stage` says whether `record` is a row of the relation ``source`` (``read``) or one that came out of
    the user's ``select`` (``prepare``). A row of the stage ``revision`` is a duplicate that the books count as one;
    `differs` is a JSON object of the columns in which it differs from the table's row: [there, here], as text or null.
    `replaces` is the number of the reject that this row was before it was replayed and failed again.
    """

    source: str
    row: int | None
    line: int | None
    column: str | None
    reason: str
    raw: str
    record: str | None = None
    stage: RejectStage = "read"
    differs: str | None = None
    replaces: int | None = None

    def behind(self, rows: int, lines: int) -> Reject:
        """The same row `rows` rows and `lines` lines further on in the input."""
        row = None if self.row is None else self.row + rows
        return replace(self, row=row, line=None if self.line is None else self.line + lines)


@dataclass(frozen=True, slots=True)
class StoredReject:
    """A `Reject` as the database holds it."""

    reject_id: int
    run_id: str
    table: str
    provider: str
    state: RejectState
    created_at: datetime
    reject: Reject
