"""A chunk whose event IDs the run has met: which rows are new, and the slices that it is cut into.

    rows 0 1 2 3 4 …  ──► met for the first time? ──► in the snapshot? ──► new ──► one slice, or under the strategy
                                                                                   `locked` one for each partition

No ID is new in two chunks, so no two slices can race for an ID, whoever commits them. The rows of a slice stay in input
order.
"""

from __future__ import annotations

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

__all__ = ["MetChunk"]

Ids = NDArray[np.uint8]


class MetChunk:
    """A prepared chunk, met by `known`, and judged once `judge` was called.

    `first` are the rows met for the first time in the run, `new` those of them that the snapshot does not have, both of
    shape (rows,).
    """

    def __init__(self, prepared: Prepared, known: KnownIds, partitions: int) -> None:
        self.prepared = prepared
        self.ids = prepared.ids
        self.sorted = SortedIds.of(self.ids)
        self.first: Mask = known.meet(self.sorted)
        self.new = self.first
        self.certain = False
        self.judged = False
        self._known = known
        self._rows = rows_by_partition(self.ids, partitions)

    @property
    def address(self) -> Address:
        """Where the chunk stands in the input."""
        return self.prepared.address

    @property
    def events(self) -> pa.RecordBatch:
        """Its rows."""
        return self.prepared.events.open()

    @property
    def times_us(self) -> NDArray[np.int64] | None:
        """The event times (microseconds) of the rows met for the first time, ``None`` without a time column."""
        times = self.prepared.times_us
        return None if times is None else times[self.first]

    @property
    def newest_us(self) -> int | None:
        """The newest event time (microseconds), ``None`` without a time column or without a row."""
        times = self.prepared.times_us
        return None if times is None or not len(times) else int(times.max())

    def believed(self) -> Ids:
        """The IDs, shape (rows, 16), that are in the store only according to an earlier call."""
        return self._known.believed(self.sorted, self.first)

    def judge(self) -> None:
        """Determine which rows the snapshot does not have."""
        self.judged = True
        verdict = self._known.judge(self.sorted, self.prepared.times_us, self.first)
        self.new, self.certain = verdict.new, verdict.certain

    def first_ids(self) -> Ids:
        """The IDs met for the first time, shape (rows, 16)."""
        return self.ids if self.first.all() else self.ids[self.first]

    def first_events(self, partition: int) -> Ids:
        """The events of a partition that were met for the first time: their IDs, shape (rows, 16)."""
        own = self._rows[partition]
        return self.ids[own[self.first[own]]]

    def rows(self, partition: int) -> int:
        """The rows of a partition, duplicates included."""
        return len(self._rows[partition])

    def numbers(self, partition: int) -> list[int]:
        """The numbers of the rows of a partition in the input, those of its rejects too.

        With one partition, these include the rows that a select has left out; with several partitions, there must
        be no select.
        """
        if len(self._rows) == 1:
            return list(range(self.address.first_row, self.address.first_row + self.address.rows))
        carried = [] if self.prepared.rows is None else self.prepared.rows[self._rows[partition]].tolist()
        return carried + [reject.row for reject in self.rejects(partition) if reject.row is not None]

    @property
    def anything_before(self) -> bool:
        """Whether any row was perhaps met in an earlier chunk: its chunk's first of an event, not the first of all."""
        return not self.first.all() and bool((self.sorted.first() & ~self.first[self.sorted.rows]).any())

    def reconsider(self) -> bool:
        """Let the next row of each event count as its first of which the user's code has refused all rows so far.

        Returns whether there is such a row: then the chunk must be judged again.
        """
        chances = self._known.reconsider(self.sorted, self.first)
        if chances.any():
            self.first = self.new = self.first | chances
        return bool(chances.any())

    def numbers_of(self, partition: int, events: Ids) -> NDArray[np.int64] | None:
        """The numbers of all rows of a partition that are of `events` (rows, 16); ``None`` behind a select."""
        own = self._rows[partition]
        return None if self.prepared.rows is None else self.prepared.rows[own[among(self.ids[own], events)]]

    @property
    def anything_again(self) -> bool:
        """Whether any row was met before, in this chunk or an earlier one."""
        return not self.first.all()

    @property
    def has_duplicates(self) -> bool:
        """Whether there may be a row that is no new event: always before `judge`."""
        return not self.judged or not self.new.all()

    def new_rows(self, partition: int) -> ChunkRows | None:
        """Where the new events of a partition lie."""
        return self._where(partition, self.new)

    def repeats(self, partition: int) -> ChunkRows | None:
        """Where the other rows of a partition lie."""
        return self._where(partition, ~self.new)

    def spares(self, partition: int) -> ChunkRows | None:
        """Where the rows of a partition lie that repeat one of its new events."""
        if not self.anything_again:
            return None
        return self._where(partition, ~self.first & among(self.ids, self.ids[self.new]))

    def _where(self, partition: int, mask: Mask) -> ChunkRows | None:
        own = self._rows[partition]
        wanted = own[mask[own]]
        if not len(wanted):
            return None
        prepared = self.prepared
        return ChunkRows(
            self.address, prepared.events, prepared.identity, wanted, len(self.ids), numbered=prepared.numbered
        )

    def counts(self, partition: int) -> Counts:
        """The books as far as they are known before the commit.

        Rejects, which have no ID, go with partition 0.
        """
        own = self._rows[partition]
        first, rejected = int(self.first[own].sum()), len(self.rejects(partition))
        return Counts(
            read=len(own) + rejected,
            duplicate_in_input=len(own) - first,
            duplicate_in_store=first - int(self.new[own].sum()),
            rejected=rejected,
        )

    def rejects(self, partition: int) -> list[Reject]:
        """The chunk's rejects, which are kept by partition 0."""
        return list(self.prepared.rejects) if partition == 0 else []

    def digest(self, partition: int) -> str:
        """What identifies the partition's content in its receipt: a digest of its IDs in input order."""
        return self.prepared.digest if len(self._rows) == 1 else digest_of(self.ids[self._rows[partition]])

    def discard(self) -> None:
        """Give back the chunk's rows."""
        self.prepared.discard()
