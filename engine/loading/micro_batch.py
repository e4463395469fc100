"""A micro-batch: the chunks whose partitions commit together, cut into slices by the hash of the IDs.

    chunk 0   row 0 1 2 3 4 …          partition 0 ◄── rows 0, 3 of chunk 0, row 2 of chunk 1
    chunk 1   row 0 1 2 …      ──►     partition 1 ◄── rows 1, 2, 4 of chunk 0, rows 0, 1 of chunk 1

No ID is in two partitions, so no two slices can race for an ID. Within a partition the rows stay in input order.
Sequential mode is the case of one chunk and one partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.events.prepare import Prepared
from headrace.execution.orders import ChunkRows
from headrace.loading.known_ids import KnownIds, Mask
from headrace.partitioning.dedup import SortedIds, among
from headrace.partitioning.identity import digest_of
from headrace.partitioning.partition import rows_by_partition
from headrace.storage.records import Address, Counts
from headrace.storage.rejects import Reject

__all__ = ["Duplicates", "MicroBatch"]


class Duplicates(NamedTuple):
    """The duplicates of a chunk: its events and their IDs, which rows are met for the `first` time, and which are there
    `again`, from the input or the store.
    """

    events: pa.RecordBatch
    ids: NDArray[np.uint8]
    sorted: SortedIds
    first: Mask
    again: Mask


class MicroBatch:
    """Prepared chunks in input order, met by `known`, and judged once `judge` was called."""

    def __init__(self, chunks: Sequence[Prepared], known: KnownIds, partitions: int) -> None:
        self.chunks = chunks
        self.partitions = partitions
        self._known = known
        self._ids = [chunk.ids for chunk in chunks]
        self._sorted = [SortedIds.of(ids) for ids in self._ids]
        self._first = [known.meet(ids) for ids in self._sorted]
        self._new = self._first
        self._rows = [rows_by_partition(ids, partitions) for ids in self._ids]
        self.certain = False
        self.judged = False

    @property
    def address(self) -> Address:
        """The first chunk's source and first row, with the rows of all."""
        first = self.chunks[0].address
        return Address(first.source, first.first_row, sum(chunk.address.rows for chunk in self.chunks))

    @property
    def spans(self) -> tuple[Address, ...]:
        """The chunks' own addresses, where there are several."""
        return tuple(chunk.address for chunk in self.chunks) if len(self.chunks) > 1 else ()

    def first_times(self) -> NDArray[np.int64] | None:
        """The event times (microseconds) of the rows met for the first time, ``None`` without a time column."""
        times = [chunk.times_us for chunk in self.chunks]
        known = [part[first] for part, first in zip(times, self._first, strict=True) if part is not None]
        return np.concatenate(known) if known else None

    @property
    def newest_us(self) -> int | None:
        """The newest event time (microseconds), ``None`` without a time column or without a row."""
        times = [chunk.times_us for chunk in self.chunks]
        return max((int(part.max()) for part in times if part is not None and len(part)), default=None)

    @property
    def anything_first(self) -> bool:
        """Whether any row is met for the first time."""
        return any(first.any() for first in self._first)

    def believed(self) -> NDArray[np.uint8]:
        """The IDs, shape (rows, 16), that are in the store only according to an earlier call."""
        return np.concatenate(
            [self._known.believed(ids, first) for ids, first in zip(self._sorted, self._first, strict=True)]
        )

    def judge(self) -> None:
        """Determine which rows the snapshot does not have."""
        self.judged = True
        verdicts = [
            self._known.judge(ids, chunk.times_us, first)
            for ids, chunk, first in zip(self._sorted, self.chunks, self._first, strict=True)
        ]
        self._new = [verdict.new for verdict in verdicts]
        self.certain = all(verdict.certain for verdict in verdicts)

    def new_ids(self) -> NDArray[np.uint8]:
        """The IDs of the new events, shape (rows, 16); before `judge`, of those met for the first time."""
        return np.concatenate([ids[new] for ids, new in zip(self._ids, self._new, strict=True)])

    def first_ids(self) -> NDArray[np.uint8]:
        """The IDs met for the first time, shape (rows, 16)."""
        return np.concatenate(
            [ids if first.all() else ids[first] for ids, first in zip(self._ids, self._first, strict=True)]
        )

    def first_events(self, partition: int) -> NDArray[np.uint8]:
        """The events of a partition that were met for the first time: their IDs, shape (rows, 16)."""
        every = zip(self._ids, self._first, self._rows, strict=True)
        return np.concatenate([ids[rows[partition]][first[rows[partition]]] for ids, first, rows in every])

    def rows(self, partition: int) -> int:
        """The rows of a partition, duplicates included."""
        return sum(len(rows[partition]) for rows in self._rows)

    def numbers(self, partition: int) -> list[int]:
        """The numbers of the rows of a partition in the input, those of its rejects too.

        With one partition, these include the rows that a select has left out; with several partitions, there must
        be no select.
        """
        if self.partitions == 1:
            spans = [chunk.address for chunk in self.chunks]
            return [number for span in spans for number in range(span.first_row, span.first_row + span.rows)]
        carried = [
            int(number)
            for chunk, rows in zip(self.chunks, self._rows, strict=True)
            if chunk.rows is not None
            for number in chunk.rows[rows[partition]]
        ]
        return carried + [reject.row for reject in self.rejects(partition) if reject.row is not None]

    @property
    def anything_before(self) -> bool:
        """Whether any row was perhaps met in an earlier batch: its chunk's first of an event, not the first of all."""
        return any(
            bool((ids.first() & ~first[ids.rows]).any())
            for ids, first in zip(self._sorted, self._first, strict=True)
            if not first.all()
        )

    def reconsider(self) -> bool:
        """Let the next row of each event count as its first of which the user's code has refused all rows so far.

        Returns whether there is such a row: then the batch must be judged again.
        """
        pairs = zip(self._sorted, self._first, strict=True)
        chances = [self._known.reconsider(ids, first) for ids, first in pairs]
        if not any(chance.any() for chance in chances):
            return False
        self._first = self._new = [first | chance for first, chance in zip(self._first, chances, strict=True)]
        return True

    def numbers_of(self, partition: int, events: NDArray[np.uint8]) -> NDArray[np.int64] | None:
        """The numbers of all rows of a partition that are of `events` (rows, 16); ``None`` behind a select."""
        found = []
        for chunk, ids, rows in zip(self.chunks, self._ids, self._rows, strict=True):
            if chunk.rows is None:
                return None
            own = rows[partition]
            found.append(chunk.rows[own[among(ids[own], events)]])
        return np.concatenate(found)

    @property
    def anything_again(self) -> bool:
        """Whether any row was met before, in this batch or an earlier one."""
        return not all(first.all() for first in self._first)

    def duplicates(self) -> Iterator[Duplicates]:
        """The duplicates of each chunk that has any, as far as they are known; every chunk before `judge`."""
        for chunk, ids, ordered, first, new in zip(
            self.chunks, self._ids, self._sorted, self._first, self._new, strict=True
        ):
            if not self.judged or not new.all():
                yield Duplicates(chunk.events.open(), ids, ordered, first, ~new)

    def pieces(self, partition: int) -> tuple[ChunkRows, ...]:
        """Where the new events of a partition lie."""
        return self._pieces(partition, self._new)

    def repeats(self, partition: int) -> tuple[ChunkRows, ...]:
        """Where the other rows of a partition lie."""
        return self._pieces(partition, [~new for new in self._new])

    def spares(self, partition: int) -> tuple[ChunkRows, ...]:
        """Where the rows of a partition lie that repeat one of its new events."""
        if not self.anything_again:
            return ()
        new = self.new_ids()
        again = [
            ~first & among(ids, new) if not first.all() else ~first
            for ids, first in zip(self._ids, self._first, strict=True)
        ]
        return self._pieces(partition, again)

    def _pieces(self, partition: int, masks: Sequence[Mask]) -> tuple[ChunkRows, ...]:
        found = []
        for chunk, rows, mask in zip(self.chunks, self._rows, masks, strict=True):
            own = rows[partition]
            wanted = own[mask[own]]
            if len(wanted):
                found.append(ChunkRows(chunk.address, chunk.events, chunk.identity, wanted, chunk.rows))
        return tuple(found)

    def counts(self, partition: int) -> Counts:
        """The books as far as they are known before the commit.

        Rejects, which have no ID, go with partition 0.
        """
        own = [rows[partition] for rows in self._rows]
        first = _how_many(self._first, own)
        rejected = len(self.rejects(partition))
        read = self.rows(partition)
        return Counts(
            read=read + rejected,
            duplicate_in_input=read - first,
            duplicate_in_store=first - _how_many(self._new, own),
            rejected=rejected,
        )

    def rejects(self, partition: int) -> list[Reject]:
        """The chunks' rejects, which are kept by partition 0."""
        return [reject for chunk in self.chunks for reject in chunk.rejects] if partition == 0 else []

    def digest(self, partition: int) -> str:
        """What identifies the partition's content in its receipt: a digest of its IDs in input order."""
        if self.partitions == 1 and len(self.chunks) == 1:
            return self.chunks[0].digest
        parts = [ids[rows[partition]] for ids, rows in zip(self._ids, self._rows, strict=True)]
        return digest_of(np.concatenate(parts))

    def discard(self) -> None:
        """Give back the chunks' rows."""
        for chunk in self.chunks:
            chunk.events.discard()
            chunk.identity.discard()


def _how_many(masks: Sequence[Mask], rows: Sequence[NDArray[np.int32]]) -> int:
    return sum(int(mask[own].sum()) for mask, own in zip(masks, rows, strict=True))
