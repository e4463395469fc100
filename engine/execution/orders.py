"""Orders of the coordinator to a worker, as plain data: prepare a chunk or a range, or commit a slice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import InputError
from headrace.events.alert_judge import Alerting
from headrace.events.enrich import Enrichment
from headrace.events.prepare import Prepared, numbers_of
from headrace.events.revisions import Revisions
from headrace.partitioning.contract import Contract
from headrace.partitioning.identity import ids_from_arrow
from headrace.reading.ranges import Range, RangeEnd, RangeReader
from headrace.runtime.parcel import Parcel
from headrace.storage.records import Address, Slice
from headrace.storage.rejects import Reject
from headrace.storage.spans import Span
from headrace.storage.sql.limits import Limits

__all__ = ["ChunkRows", "CommitOrder", "PrepareOrder", "RangeDone", "RangeOrder"]


@dataclass(frozen=True, slots=True)
class PrepareOrder:
    """Identify the rows of one chunk. `spool` is where the result goes, ``None`` to send it back as bytes."""

    address: Address
    chunk: Parcel
    rows: NDArray[np.int64] | None
    rejects: list[Reject]
    contract: Contract
    provider: str
    key: bytes | None = field(repr=False)
    spool: Path | None = None
    run_id: str = ""
    limits: Limits = field(default_factory=dict)

    def __str__(self) -> str:
        return f"prepare {self.address}"

    def copied(self, chunk: Parcel) -> PrepareOrder:
        """The same order over another copy of the chunk."""
        return replace(self, chunk=chunk)


@dataclass(frozen=True, slots=True)
class RangeOrder:
    """Read a range of an input, and identify its rows. `spool` is as in `PrepareOrder`."""

    reader: RangeReader
    part: Range
    contract: Contract
    provider: str
    key: bytes | None = field(repr=False)
    run_id: str
    limits: Limits
    spool: Path | None = None

    def __str__(self) -> str:
        what = "bytes" if self.part.group is None else f"row group {self.part.group}, rows"
        return f"read {self.reader.name}, {what} {self.part.low}-{self.part.high - 1}"


@dataclass(frozen=True, slots=True)
class RangeDone:
    """A range that begins at `start`, read: its prepared chunks, whose rows and lines are counted from there, and its
    end; or the `error` that reading it raised.
    """

    start: int
    chunks: tuple[Prepared, ...] = ()
    end: RangeEnd | None = None
    error: InputError | None = None
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """The rows `rows` (their positions in the chunk, in input order) of one prepared chunk.

    With a select, rows are not `numbered`. It travels as one bit for each row of the chunk, or as their number where it
    is all of them.
    """

    address: Address
    events: Parcel
    identity: Parcel
    rows: NDArray[np.int32]
    of: int
    numbered: bool

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        bits = None
        if len(self.rows) != self.of:
            mask = np.zeros(self.of, dtype=np.bool_)
            mask[self.rows] = True
            bits = np.packbits(mask).tobytes()
        return _received, (self.address, self.events, self.identity, bits, self.of, self.numbered)

    @property
    def ids(self) -> NDArray[np.uint8]:
        """The event IDs of `rows`, shape (rows, 16)."""
        every = ids_from_arrow(self.identity.open().column("id"))
        return every if len(self.rows) == len(every) else every[self.rows]

    @property
    def numbers(self) -> NDArray[np.int64] | None:
        """The 0-based numbers in the input of `rows`, ``None`` if a select was applied."""
        return numbers_of(self.identity.open(), self.address)[self.rows] if self.numbered else None

    def only(self, mask: NDArray[np.bool_]) -> ChunkRows | None:
        """Those of the rows for which `mask`, shape (rows,), holds; ``None`` if there are none."""
        return replace(self, rows=self.rows[mask]) if mask.any() else None


def _received(
    address: Address, events: Parcel, identity: Parcel, bits: bytes | None, of: int, numbered: bool
) -> ChunkRows:
    if bits is None:
        rows = np.arange(of, dtype=np.int32)
    else:
        rows = np.flatnonzero(np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=of)).astype(np.int32)
    return ChunkRows(address, events, identity, rows, of, numbered)


@dataclass(frozen=True, slots=True)
class CommitOrder:
    """Commit one slice. `slice` has everything but the events, which are those of `new`, and the `repeats`, the rows
    that are no new events, which are sent along where `revisions` says how to compare them. `spares` are the rows that
    repeat one of `new`: where the user's code may reject that, the next is no duplicate.
    """

    slice: Slice
    new: ChunkRows | None
    database: str = field(repr=False)
    enrichment: Enrichment | None = None
    locks: str | None = field(default=None, repr=False)
    alerting: Alerting | None = None
    revisions: Revisions | None = None
    repeats: ChunkRows | None = None
    spares: ChunkRows | None = None

    @property
    def users_code(self) -> str | None:
        """The user's own functions that this order calls, by name; ``None`` if there are none."""
        enrich = None if self.enrichment is None else self.enrichment.name
        rules = None if self.alerting is None else self.alerting.users_code
        return ", ".join(filter(None, (enrich, rules))) or None

    def __str__(self) -> str:
        return f"commit partition {self.slice.partition} of {self.slice.address}"
