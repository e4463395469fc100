"""Rows whose ID was met or stored before, as a slice carries them when revisions are asked for.

Their payload is compared with what the table holds, inside the slice's transaction (`headrace.storage.sql.revise`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.storage.rejects import Reject

__all__ = ["DifferingRow", "Repeats"]


@dataclass(frozen=True, slots=True)
class DifferingRow:
    """A row that must be kept aside. `at` is its position: an event's in `Slice.events`, or a repeat's after those.

    ``revision``: it has another payload than the row of the table. ``tie``: likewise, and its version is that row's, so
    that neither is newer. ``collision``: another event has the same ID. ``absent``: the table has no such event.
    `columns` are those that differ: what the table holds and what came, as text.
    """

    at: int
    kind: Literal["revision", "tie", "collision", "absent"]
    columns: Mapping[str, tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True)
class Repeats:
    """The rows of a slice that are no new events, and how to compare them.

    `rows`, in input order, have data columns, ``event_id`` and ``provider``; an ID may stand there several times.
    `identity` are the columns that make an event the same event. The newest by the column `version` takes the table's
    row, in all of the data columns `columns` (null where it has none); with ``None`` nothing is changed, and every
    revision is kept aside. `own` are the sets of columns that are compared; `groups` says which of them counts for each
    event and each row, shape (events + rows,). `reject` makes the row that is kept aside.

    `alerts` (`headrace.storage.outbox.REVISION_COLUMNS`) are what each event and each row raises if it takes the
    table's row, ``None`` where no rule asks for revisions.
    """

    rows: pa.RecordBatch
    identity: Sequence[str]
    version: str | None
    columns: Sequence[str]
    own: Sequence[Sequence[str]]
    groups: NDArray[np.int64]
    reject: Callable[[DifferingRow], Reject]
    alerts: pa.RecordBatch | None = None
