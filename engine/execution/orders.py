"""Orders of the coordinator to a worker, as plain data: prepare a chunk, or commit a slice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.events.alert_judge import Alerting
from headrace.events.enrich import Enrichment
from headrace.events.revisions import Revisions
from headrace.partitioning.contract import Contract
from headrace.partitioning.identity import ids_from_arrow
from headrace.runtime.parcel import Parcel
from headrace.storage.records import Address, Slice
from headrace.storage.rejects import Reject
from headrace.storage.sql.limits import Limits

__all__ = ["ChunkRows", "CommitOrder", "PrepareOrder"]


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
class ChunkRows:
    """The rows `rows` (their positions in the chunk, in input order) of one prepared chunk.

    `numbers` are the 0-based row numbers in the input of *all* the chunk's rows, ``None`` when a select was applied.
    """

    address: Address
    events: Parcel
    identity: Parcel
    rows: NDArray[np.int32]
    numbers: NDArray[np.int64] | None = None

    @property
    def ids(self) -> NDArray[np.uint8]:
        """The event IDs of `rows`, shape (rows, 16)."""
        every = ids_from_arrow(self.identity.open().column("id"))
        return every if len(self.rows) == len(every) else every[self.rows]


@dataclass(frozen=True, slots=True)
class CommitOrder:
    """Commit one slice. `slice` has everything but the events, which are those of `pieces`, and the `repeats`, the rows
    that are no new events, which are sent along where `revisions` says how to compare them. `spares` are the rows that
    repeat one of `pieces`: where the user's code may reject that, the next is no duplicate.
    """

    slice: Slice
    pieces: tuple[ChunkRows, ...]
    database: str = field(repr=False)
    enrichment: Enrichment | None = None
    locks: str | None = field(default=None, repr=False)
    alerting: Alerting | None = None
    revisions: Revisions | None = None
    repeats: tuple[ChunkRows, ...] = ()
    spares: tuple[ChunkRows, ...] = ()

    @property
    def users_code(self) -> str | None:
        """The user's own functions that this order calls, by name; ``None`` if there are none."""
        enrich = None if self.enrichment is None else self.enrichment.name
        rules = None if self.alerting is None else self.alerting.users_code
        return ", ".join(filter(None, (enrich, rules))) or None

    def __str__(self) -> str:
        return f"commit partition {self.slice.partition} of {self.slice.address}"
