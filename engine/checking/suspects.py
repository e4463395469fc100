"""The second pass, over suspected events alone: which columns differ, and what the ledger knows about them.

    suspects ─► both sides read again, only these events, a print for each column ─► bucket by bucket:

    the row that counts, or another that may, equals the table's          ─► agreed
    the table's is a newer version than any here, and others revise rows  ─► revised
    another input brought the table's row, or a program without receipts  ─► elsewhere
    all else                                                              ─► changed: a difference
    ─► the first of each kind in input order ─► read a third time, for their values

If a row changes between the two passes, its state in the second pass counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.checking.provenance import Provenance
from headrace.checking.row_values import Groups, OwnColumns, Side
from headrace.events.prepare import Prepared
from headrace.partitioning.dedup import halves
from headrace.partitioning.id_buckets import BUCKETS, TaggedIds, buckets_of
from headrace.partitioning.versions import VERSION
from headrace.reading.inputs import Input
from headrace.storage.held import HeldRows

__all__ = ["KINDS", "Suspect", "Suspects"]

Mask = NDArray[np.bool_]
Records = NDArray[Any]
MOST_BYTES = 4 << 30  # on disk, in one turn
KINDS = ("changed", "elsewhere", "revised")
"""What a row can be whose values are not those of its input."""


@dataclass(frozen=True, slots=True, order=True)
class Suspect:
    """An event whose row differs: the number of its place in the inputs, its packed ID, the receipt of its row."""

    tag: int
    event_id: bytes
    receipt: int


@dataclass(slots=True)
class Told:
    """The events of one kind: their number, in how many of them each column differs, and the first of them."""

    events: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    first: list[Suspect] = field(default_factory=list)


class Suspects:
    """Suspected events with a print of each column. `low` are the low halves of their IDs, ``None`` for any. They are
    judged in as many turns as `turns` says, each over its part of the hash space.
    """

    def __init__(
        self, own: OwnColumns, side: Side, provenance: Provenance, low: NDArray[np.uint64] | None, folder: Path
    ) -> None:
        self._folder = folder
        self._own = own
        self._side = side
        self._provenance = provenance
        self._low = low
        self._columns = own.compared.names
        prints = [("prints", np.uint32, (len(self._columns),)), ("version", VERSION)]
        self._read_type = np.dtype([*prints, ("own", np.uint32), ("input", np.int64)])
        self._held_type = np.dtype(prints)
        self._buckets = range(0)
        self.told = {kind: Told() for kind in KINDS}

    def turns(self, rows: int) -> Iterator[None]:
        """The turns, each of which calls `read`, `held` and `judge`. There are enough turns for the records of both
        sides, `rows` rows in all, to fit on disk.
        """
        size = max(rows, 1) * self._read_type.itemsize
        count = min(-(-size // MOST_BYTES), BUCKETS)
        edges = [BUCKETS * turn // count for turn in range(count + 1)]
        for first, end in pairwise(edges):
            self._buckets = range(first, end)
            with (
                TaggedIds(self._folder, "suspected-input", self._read_type) as self._read,
                TaggedIds(self._folder, "suspected-table", self._held_type) as self._held,
            ):
                yield

    def read(self, number: int, item: Input, prepared: Prepared, tags: NDArray[np.int64]) -> None:
        """Read a chunk of the input `item`, which has this number."""
        among = self._among(prepared.ids)
        if not among.any():
            return
        rows = prepared.events.open()
        own = self._own.number(item, rows)
        rows = rows.filter(among)
        columns = self._side.of_input(rows, self._own.of(own))
        kept = self._printed(columns, rows.num_rows, self._read_type)
        kept["own"], kept["input"] = own, number
        self._read.add(prepared.ids[among], tags[among], kept)

    def held(self, rows: HeldRows) -> None:
        """Read rows of the table."""
        among = self._among(rows.ids)
        if among.any():
            rows = rows.where(among)
            self._held.add(rows.ids, rows.receipts, self._printed(rows.columns, len(rows.ids), self._held_type))

    def judge(self, limit: int) -> int:
        """Classify the suspects, and keep the first `limit` of each kind; return how many events agree after all."""
        return sum(
            self._judged(self._read.records(bucket), self._held.records(bucket), limit) for bucket in self._buckets
        )

    def _among(self, ids: NDArray[np.uint8]) -> Mask:
        bucket = buckets_of(ids)
        among: Mask = (bucket >= self._buckets.start) & (bucket < self._buckets.stop)
        if self._low is None:
            return among
        if not len(self._low):
            return np.zeros(len(ids), dtype=np.bool_)
        low = halves(ids)[0]
        at = np.minimum(np.searchsorted(self._low, low), len(self._low) - 1)
        among &= self._low[at] == low
        return among

    def _printed(self, columns: Any, rows: int, layout: np.dtype[Any]) -> Records:
        kept = np.zeros(rows, dtype=layout)
        for name, prints in self._side.prints(columns).items():
            kept["prints"][:, self._columns.index(name)] = prints >> np.uint64(32)
        kept["version"] = self._side.keys(columns, rows)
        return kept

    def _judged(self, read: Records, held: Records, limit: int) -> int:
        by_version = self._provenance.newest
        groups = Groups.of(read, held, newest=by_version)
        both = groups.both
        if not len(both):
            return 0
        row = _BucketRows(read, held, groups, self._own.matrix())
        self._provenance.look_up(held["tag"])
        brought = row.has & self._provenance.brought(row.receipts, read["more"]["input"])
        is_ours = row.any_of(brought)
        good = row.equal & (self._may_be_newest(row) if by_version else self._may_be_first(row, brought, is_ours))
        agreed = row.any_of(good)
        newer = row.held_version > row.newest
        revised = ~agreed & self._provenance.others_revise & newer
        receipts = held["tag"][groups.stored]
        elsewhere = ~agreed & ~revised & ~is_ours & self._provenance.known(receipts)
        if by_version:  # one that is older than ours would have been replaced
            elsewhere &= row.held_version >= row.newest
        chosen = self._chosen(row, brought, is_ours)
        for kind, mask in zip(KINDS, (~agreed & ~revised & ~elsewhere, elsewhere, revised), strict=True):
            self._tell(kind, both[mask[both]], row, chosen, limit)
        return int(agreed[both].sum())

    def _may_be_newest(self, row: _BucketRows) -> Mask:
        """The rows of the newest version: the first, or those of other inputs, which may have come before it."""
        expected = row.of_row(row.groups.expected)
        top = row.read["more"]["version"] == row.newest[row.groups.read]
        other_input = row.read["more"]["input"] != row.read["more"]["input"][expected]
        may: Mask = (np.arange(len(row.read)) == expected) | (top & other_input)
        return may

    def _may_be_first(self, row: _BucketRows, brought: Mask, is_ours: Mask) -> Mask:
        """The first of the rows that an input of the receipt brought; any where the order is not known."""
        free = ~row.of_row(is_ours) | (brought & self._provenance.unordered(row.receipts))
        if self._provenance.others_revise:  # it may have been loaded so from elsewhere, too
            chosen = row.of_row(self._chosen(row, brought, is_ours))
            free |= row.read["more"]["version"] > row.read["more"]["version"][chosen]
        # a receipt may have several inputs, in another order than this one: each one's first row may be the first
        rows = np.flatnonzero(brought)
        pairs = np.stack([row.groups.read[rows], row.read["more"]["input"][rows]])
        free[rows[np.unique(pairs, axis=1, return_index=True)[1]]] = True
        return free

    def _chosen(self, row: _BucketRows, brought: Mask, is_ours: Mask) -> NDArray[np.int64]:
        """The record of each group that is shown beside the table's row."""
        if self._provenance.newest:
            return row.groups.expected
        order = np.flatnonzero(brought)
        first = np.full(len(row.groups.expected), -1, dtype=np.int64)
        first[row.groups.read[order[::-1]]] = order[::-1]
        return np.where(is_ours, first, row.groups.expected)

    def _tell(
        self, kind: str, groups: NDArray[np.int64], row: _BucketRows, chosen: NDArray[np.int64], limit: int
    ) -> None:
        told, at = self.told[kind], chosen[groups]
        told.events += len(groups)
        for column, times in zip(self._columns, row.differs[at].sum(axis=0).tolist(), strict=True):
            if times:
                told.columns[column] = told.columns.get(column, 0) + times
        order = np.argsort(row.read["tag"][at], kind="stable")[:limit]
        told.first += [
            Suspect(int(row.read["tag"][record]), row.read["id"][record].tobytes(), int(row.receipts[record]))
            for record in at[order].tolist()
        ]
        told.first = sorted(told.first)[:limit]


class _BucketRows:
    """The input's records of one bucket, each beside the table's row of its event, if that `has` one."""

    def __init__(self, read: Records, held: Records, groups: Groups, own: NDArray[np.bool_]) -> None:
        self.read, self.groups = read, groups
        stored = self.of_row(groups.stored)
        self.has = stored >= 0
        other = held[np.maximum(stored, 0)]
        self.differs = own[read["more"]["own"]] & (read["more"]["prints"] != other["more"]["prints"])
        self.equal = self.has & ~self.differs.any(axis=1)
        self.receipts = other["tag"]
        self.held_version = held["more"]["version"][np.maximum(groups.stored, 0)]
        self.newest = self._newest()

    def of_row(self, of_group: NDArray[Any]) -> NDArray[Any]:
        """What each row's group has."""
        return of_group[self.groups.read]

    def any_of(self, mask: Mask) -> Mask:
        """Whether `mask` holds for any row of each group."""
        marked = np.zeros(len(self.groups.expected), dtype=np.bool_)
        marked[self.groups.read[mask]] = True
        return marked

    def _newest(self) -> NDArray[np.bytes_]:
        """The greatest version of each group."""
        newest = np.zeros(len(self.groups.expected), dtype=VERSION)
        order = np.argsort(self.read["more"]["version"], kind="stable")
        newest[self.groups.read[order]] = self.read["more"]["version"][order]  # the last one stays
        return newest
