"""Which events of a chunk are new: first against this run's own input, then against the snapshot.

    ids ──► first in the chunk? ──► met earlier in this run? ──► in the snapshot? ──► new
              no: duplicate_in_input   yes: duplicate_in_input     yes: duplicate_in_store

The order makes the books independent of the chunk size: an event's first occurrence in the input is new or in the
store, and every later one is a duplicate in the input. Nothing here decides what is stored: that is the unique key's
part. This only saves the database the work, and counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.partitioning.contract import Contract
from headrace.partitioning.dedup import SortedIds
from headrace.partitioning.identity import low_bound
from headrace.partitioning.snapshot import EVERYTHING, IdRuns, Segment, Snapshot
from headrace.storage.base import IdRange, Store, TimeRange

__all__ = ["KnownIds", "Verdict"]

T = TypeVar("T")
Mask = NDArray[np.bool_]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of a chunk's rows are `new`, shape (rows,), and whether the snapshot covers all of those, so that the fast
    path may be tried (`certain`).
    """

    new: Mask
    certain: bool


class KnownIds:
    """The IDs of this run's input so far, and the snapshot of those in the store."""

    def __init__(  # the snapshot's bounds come from four places: table, contract, options and server clock
        self,
        store: Store,
        table: str,
        contract: Contract,
        *,
        folder: Path,
        window: timedelta | None,
        budget: int,
        empty: bool,
    ) -> None:
        self._store = store
        self._table = table
        self._contract = contract
        self._window = window
        self._budget = budget
        self._folder = folder
        self._seen = IdRuns(folder)
        self._snapshot = Snapshot(folder)
        self._fetched = empty
        if empty:
            self._snapshot.extend(iter(()), EVERYTHING)

    def begin_again(self) -> None:
        """For another run: nothing is met yet, and the snapshot is still there."""
        self._seen.close()
        self._seen = IdRuns(self._folder)

    def exist(self, ids: NDArray[np.uint8]) -> Mask:
        """Which of `ids` (rows, 16) the snapshot has. Shape (rows,)."""
        return self._snapshot.known(ids)

    def remember(self, ids: NDArray[np.uint8]) -> None:
        """`ids` (rows, 16) were committed: for a run to come they are in the store."""
        self._snapshot.add(ids)

    def close(self) -> None:
        """Remove the IDs and their files. Idempotent."""
        self._seen.close()
        self._snapshot.close()

    @property
    def snapshot_ids(self) -> int:
        """IDs the snapshot holds."""
        return len(self._snapshot)

    def meet(self, ids: SortedIds) -> Mask:
        """Note `ids` as met in this run; returns which rows of the chunk are met for the first time. Shape (rows,)."""
        first = ids.first() & ~self._seen.contains_sorted(ids)
        self._seen.add_sorted(ids.where(first))
        return _by_row(ids, first)

    def needs_fetch(self, times_us: NDArray[np.int64] | None) -> bool:
        """Whether `judge` would have to query the store for events of these times first."""
        if not self._fetched:
            return True
        return bool(self._segments(times_us))

    def fetch(self, times_us: NDArray[np.int64] | None, now: datetime) -> None:
        """Make the snapshot cover `times_us` as far as the window, the layout and the budget allow.

        The first call fetches the window before `now`, the server's clock; later ones one statement for each time
        segment that the input touches and the snapshot lacks.
        """
        if not self._fetched:
            self._fetch_window(now)
            self._fetched = True
        for segment in self._segments(times_us):
            self._fetch_segment(segment)

    def judge(self, ids: SortedIds, times_us: NDArray[np.int64] | None, first: Mask) -> Verdict:
        """Judge the rows `first` (as `meet` returned them) of a chunk against the snapshot."""
        new = first[ids.rows]
        new[new] = ~self._snapshot.known_sorted(ids.where(new))
        by_row = _by_row(ids, new)
        return Verdict(by_row, self._certain(None if times_us is None else times_us[by_row]))

    def _certain(self, times_us: NDArray[np.int64] | None) -> bool:
        if self._snapshot.complete:
            return True
        return times_us is not None and bool(self._snapshot.covers(times_us).all())

    def _segments(self, times_us: NDArray[np.int64] | None) -> list[Segment]:
        """Late segments to fetch: only layout ``time`` has them as a range of the primary key."""
        if times_us is None or self._contract.layout != "time" or self._snapshot.complete:
            return []
        return self._snapshot.missing_segments(times_us)

    def _fetch_window(self, now: datetime) -> None:
        if self._contract.time is None or self._window is None:
            self._fetch_all()
        else:
            self._fetch_segment(Segment(_floor_us(now - self._window), None))

    def _fetch_all(self) -> None:
        everything = (
            IdRange() if self._contract.layout == "time" else None
        )  # along the key, where that is the table's order
        ids = self._store.fetch_ids(self._table, everything, limit=self._budget + 1)
        self._snapshot.extend(ids, None)
        if len(self._snapshot) <= self._budget:
            self._snapshot.extend(iter(()), EVERYTHING)

    def _fetch_segment(self, segment: Segment) -> None:
        where = self._id_range(segment) if self._contract.layout == "time" else self._time_range(segment)
        self._snapshot.extend(self._store.fetch_ids(self._table, where), segment)

    def _id_range(self, segment: Segment) -> IdRange:
        return IdRange(*(_or_none(low_bound, edge) for edge in (segment.low, segment.high)))

    def _time_range(self, segment: Segment) -> TimeRange:
        column = self._contract.time
        if column is None:
            raise ValueError("a time range needs a time column")
        return TimeRange(column, *(_or_none(_moment, edge) for edge in (segment.low, segment.high)))


def _by_row(ids: SortedIds, mask: Mask) -> Mask:
    rows = np.empty(len(ids), dtype=np.bool_)
    rows[ids.rows] = mask
    return rows


def _or_none(convert: Callable[[int], T], edge: int | None) -> T | None:
    return None if edge is None else convert(edge)


def _moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def _floor_us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
