"""Which events of a chunk are new: first against this run's own input, then against the snapshot.

    ids ──► first in the chunk? ──► met earlier in this run? ──► in the snapshot? ──► new
              no: duplicate_in_input   yes: duplicate_in_input     yes: duplicate_in_store

In a warm engine the snapshot is older than the call: its events are then only believed to be in the store, because rows
may have been deleted since. Before an event is left out because of the snapshot, the store is queried
(`KnownIds.confirm`).

The order makes the books independent of the chunk size: an event's first occurrence in the input is new or in the
store, and every later one is a duplicate in the input. This module does not decide what is stored: the unique key does.
It only saves the database work, and counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.loading.lookup import Lookup
from headrace.partitioning.contract import Contract
from headrace.partitioning.dedup import SortedIds
from headrace.partitioning.identity import low_bound
from headrace.partitioning.snapshot import EVERYTHING, IdRuns, Segment, Snapshot
from headrace.storage.records import IdRange, TimeRange
from headrace.storage.store import Store

__all__ = ["KnownIds", "NewRows"]

T = TypeVar("T")
Mask = NDArray[np.bool_]
NO_IDS = np.empty((0, 16), dtype=np.uint8)
MOST_ASKED = 20_000  # IDs that a warm engine's call asks for one by one, at least, before it fetches all anew
SHARE_ASKED = 8  # looking an ID up takes about eight times as long as fetching one of many
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NewRows:
    """Which of a chunk's rows are `new`, shape (rows,), and whether the snapshot covers all new rows, so that the fast
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
        self._refused: set[bytes] = set()
        self._snapshot = Snapshot(folder)
        self._is_old = False
        self._asked = 0
        self._gone: IdRuns | None = None
        self._lookup = Lookup(store, table, contract)
        self._fetched = empty
        if empty:
            self._snapshot.extend(iter(()), EVERYTHING)

    def begin_again(self, *, in_doubt: bool) -> None:
        """Prepare for another run: no event is met yet, and the snapshot is kept, to be confirmed if it is
        `in_doubt`.
        """
        self._seen.close()
        self._seen = IdRuns(self._folder)
        self._refused.clear()
        self._forget_gone()
        self._is_old = self._is_old or in_doubt
        self._asked = 0

    def exist(self, ids: NDArray[np.uint8]) -> Mask:
        """Which of `ids` (rows, 16) are in the store, by the snapshot. Shape (rows,)."""
        known = self._snapshot.known(ids)
        return known if self._gone is None else known & ~self._gone.contains(ids)

    def believed(self, ids: SortedIds, first: Mask) -> NDArray[np.uint8]:
        """The rows of `first` (as `meet` returned them) that are in the store only according to an earlier call."""
        if not self._is_old:
            return NO_IDS
        met = ids.where(first[ids.rows])
        return met.where(self._snapshot.known_sorted(met)).packed()

    def held(self, ids: NDArray[np.uint8]) -> Mask:
        """Which of `ids` (rows, 16), without duplicates, are in the store according to this call. Shape (rows,)."""
        found: Mask = np.zeros(len(ids), dtype=np.bool_) if self._is_old else self._snapshot.known(ids)
        found[~found] = self._lookup.held(ids[~found])
        return found

    def confirm(self, ids: NDArray[np.uint8], times_us: NDArray[np.int64] | None, now: datetime) -> bool:
        """Query which of the `believed` IDs the store still holds; the others then count as new. Return whether all
        of them are known to be there.

        If that would query a large part of the snapshot, the snapshot is fetched anew instead, for `times_us`.
        """
        self._asked += len(ids)
        if self._asked > MOST_ASKED and self._asked > len(self._snapshot) // SHARE_ASKED:
            self._renew()
            self.fetch(times_us, now)
            return False
        gone = ids[~self._lookup.held(ids)]
        if len(gone):
            self._gone = self._gone or IdRuns(self._folder)
            self._gone.add(gone)
        return not len(gone)

    def _renew(self) -> None:
        self._snapshot.close()
        self._snapshot = Snapshot(self._folder)
        self._fetched = self._is_old = False
        self._forget_gone()

    def _forget_gone(self) -> None:
        if self._gone is not None:
            self._gone.close()
            self._gone = None

    def remember(self, ids: NDArray[np.uint8]) -> None:
        """Note that `ids` (rows, 16) were committed: for later runs they are in the store."""
        self._snapshot.add(ids)

    def close(self) -> None:
        """Remove the IDs and their files. Idempotent."""
        self._seen.close()
        self._snapshot.close()
        self._forget_gone()

    @property
    def snapshot_ids(self) -> int:
        """IDs the snapshot holds."""
        return len(self._snapshot)

    @property
    def seen(self) -> IdRuns:
        """The IDs met in this run."""
        return self._seen

    def meet(self, ids: SortedIds) -> Mask:
        """Note `ids` as met in this run; return which rows of the chunk are met for the first time. Shape (rows,)."""
        first = ids.first() & ~self._seen.contains_sorted(ids)
        self._seen.add_sorted(ids.where(first))
        return _by_row(ids, first)

    def refuse(self, packed: bytes) -> None:
        """Note the events of the packed IDs: met, but the user's code has rejected every row of them so far."""
        self._refused.update(packed[at : at + 16] for at in range(0, len(packed), 16))

    @property
    def refused(self) -> NDArray[np.uint8]:
        """The events that are noted as refused at this moment, shape (rows, 16)."""
        return np.frombuffer(b"".join(self._refused), dtype=np.uint8).reshape(-1, 16)

    def reconsider(self, ids: SortedIds, first: Mask) -> Mask:
        """Which rows of the chunk get their event's next chance: the first in it of each that was refused so far.

        They no longer count as refused, until their outcome is known. Shape (rows,).
        """
        chance = np.zeros(len(ids), dtype=np.bool_)
        if self._refused:
            again = np.flatnonzero(ids.first() & ~first[ids.rows])
            packed = ids.where(_at(again, len(ids))).packed().tobytes()
            for number, place in enumerate(again.tolist()):
                if (one := packed[16 * number : 16 * number + 16]) in self._refused:
                    self._refused.discard(one)
                    chance[place] = True
        return _by_row(ids, chance)

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

    def judge(self, ids: SortedIds, times_us: NDArray[np.int64] | None, first: Mask) -> NewRows:
        """Judge the rows `first` (as `meet` returned them) of a chunk against the snapshot."""
        new = first[ids.rows]
        looked_at = ids.where(new)
        known = self._snapshot.known_sorted(looked_at)
        if self._gone is not None:
            known &= ~self._gone.contains_sorted(looked_at)
        new[new] = ~known
        by_row = _by_row(ids, new)
        return NewRows(by_row, self._certain(None if times_us is None else times_us[by_row]))

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
        # a window that reaches back before the year 1 is all there is
        if self._contract.time is None or self._window is None or self._window >= now - BEGINNING:
            self._fetch_all()
        else:
            self._fetch_segment(Segment(_floor_us(now - self._window), None))

    def _fetch_all(self) -> None:
        everything = (
            IdRange() if self._contract.layout == "time" else None
        )  # along the key, where that is the table's order
        ids = self._store.events.fetch_ids(self._table, everything, limit=self._budget + 1)
        self._snapshot.extend(ids, None)
        if len(self._snapshot) <= self._budget:
            self._snapshot.extend(iter(()), EVERYTHING)

    def _fetch_segment(self, segment: Segment) -> None:
        where = self._id_range(segment) if self._contract.layout == "time" else self._time_range(segment)
        self._snapshot.extend(self._store.events.fetch_ids(self._table, where), segment)

    def _id_range(self, segment: Segment) -> IdRange:
        return IdRange(*(_or_none(low_bound, edge) for edge in (segment.low, segment.high)))

    def _time_range(self, segment: Segment) -> TimeRange:
        column = self._contract.time
        if column is None:
            raise ValueError("a time range needs a time column")
        return TimeRange(column, *(_or_none(_moment, edge) for edge in (segment.low, segment.high)))


def _at(places: NDArray[np.int64], rows: int) -> Mask:
    mask = np.zeros(rows, dtype=np.bool_)
    mask[places] = True
    return mask


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
