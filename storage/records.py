"""Plain data at the interface of a store: slices and their commits, ledger entries, rows of a table.

    running ──► done
      │  ▲ └──► failed, interrupted ──► running: the same job again, which goes on from the receipts
      │  └────────────┘          │
      └──────────────────────────┴────► failed, without a job: superseded by a run that does all of it again

A receipt is written in the transaction of its slice (`headrace.storage.sql.commit`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.storage.rejects import Reject, StoredReject
from headrace.storage.spans import Span

__all__ = [
    "EVENT_ID",
    "NO_RECEIPT",
    "PROVIDER",
    "RECEIPT",
    "RESERVED_COLUMNS",
    "RESERVED_TABLES",
    "Address",
    "Committed",
    "Counts",
    "DifferingRow",
    "Existing",
    "Holdings",
    "IdRange",
    "LedgerEntry",
    "Origin",
    "Receipt",
    "Repeats",
    "RunProgress",
    "RunRecord",
    "RunStatus",
    "Slice",
    "StatementHook",
    "TimeRange",
    "array_of_ids",
]

EVENT_ID = "event_id"
PROVIDER = "provider"
RECEIPT = "headrace_receipt"
RESERVED_COLUMNS = (EVENT_ID, PROVIDER, RECEIPT)
RESERVED_TABLES = ("headrace_slice", "headrace_repeats")
"""Temporary tables of a commit, which would hide one of events with the same name."""

Existing = Literal["snapshot", "conflict", "query"]
"""How a slice learns which events exist: the snapshot, the database's conflict resolution, or a query under locks."""
StatementHook = Callable[[str], None]
"""Called with the text of every statement sent to the database (``COPY`` included), just before it is sent."""
RunStatus = Literal["running", "done", "failed", "interrupted"]
NO_RECEIPT = 0
"""Stands for a null: receipts are numbered from 1."""

# Runs and receipts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Address:
    """Where a chunk stands in the input: `rows` rows of `source` from row `first_row` (0-based, header not counted)."""

    source: str
    first_row: int
    rows: int

    def __str__(self) -> str:
        return f"{self.source}, rows {self.first_row}-{self.first_row + self.rows - 1}"


@dataclass(frozen=True, slots=True)
class Counts:
    """The books of a chunk or a run, in rows: ``read`` must equal the sum of the next four.

    `revised` stands beside them: how many of the duplicates came with another payload than the row that they met, where
    revisions are looked at.
    """

    read: int = 0
    inserted: int = 0
    duplicate_in_input: int = 0
    duplicate_in_store: int = 0
    rejected: int = 0
    revised: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.read + other.read,
            self.inserted + other.inserted,
            self.duplicate_in_input + other.duplicate_in_input,
            self.duplicate_in_store + other.duplicate_in_store,
            self.rejected + other.rejected,
            self.revised + other.revised,
        )

    @property
    def books(self) -> tuple[int, int, int, int, int]:
        """The five figures that must balance."""
        return (self.read, self.inserted, self.duplicate_in_input, self.duplicate_in_store, self.rejected)

    @property
    def balanced(self) -> bool:
        """Whether `read` is the sum of the other four."""
        return self.read == self.inserted + self.duplicate_in_input + self.duplicate_in_store + self.rejected


@dataclass(frozen=True, slots=True)
class Receipt:
    """One row of the ledger: a chunk, whole or only its `partition`. Early versions committed several chunks together:
    `spans` names them.
    """

    receipt_id: int
    run_id: str
    address: Address
    digest: str
    counts: Counts
    committed_at: datetime
    partition: int = 0
    spans: tuple[Address, ...] = ()
    alerts: int = 0

    @property
    def chunks(self) -> tuple[Address, ...]:
        """All its chunks."""
        return self.spans or (self.address,)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of ``headrace_runs``. `job` is the key under which an unfinished run is resumed (``None``: never);
    `inputs_key` identifies the content of the inputs; `inputs` is a JSON list that describes them; `shape` is JSON text
    that the engine defines. `chunks` counts the slices committed. `holder` is the process that works at it or did last,
    `asked` JSON text that says what the load was told; both are the engine's. `supersedes` is the run that this one
    does again, because what its receipts said did not hold any more.
    """

    run_id: str
    table: str
    provider: str
    job: str | None
    inputs_key: str
    inputs: str
    mode: str
    strategy: str
    workers: int
    version: str
    status: RunStatus = "running"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float = 0.0
    chunks: int = 0
    counts: Counts = field(default_factory=Counts)
    error: str | None = None
    shape: str | None = None
    holder: str | None = None
    asked: str | None = None
    supersedes: str | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is: the slices committed, their books, and when the last commit was, by the server's clock.

    `ago` is how many seconds that was, by the same clock.
    """

    slices: int
    counts: Counts
    last_commit: datetime
    ago: float


# A slice ---------------------------------------------------------------------------------------------------------


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
    revision is kept aside. `own` are the columns that the slice's input has: these are compared. `reject` makes the row
    that is kept aside.

    `alerts` (`headrace.storage.outbox.REVISION_COLUMNS`) are what each event and each row raises if it takes the
    table's row, ``None`` where no rule asks for revisions.
    """

    rows: pa.RecordBatch
    identity: Sequence[str]
    version: str | None
    columns: Sequence[str]
    own: Sequence[str]
    reject: Callable[[DifferingRow], Reject]
    alerts: pa.RecordBatch | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """What one transaction commits.

    `events` has the table's data columns in canonical Arrow types plus ``event_id`` (fixed_size_binary[16]) and
    ``provider`` (string), not ``headrace_receipt``, which the store adds; only rows believed to be new, no ID twice,
    sorted by ``event_id``. `counts.inserted` is 0 and `counts.rejected` the number of rejects: the store fills in what
    the database decides (inserted, and further duplicates in the store). `digest` identifies the chunk's content on
    resume. `replayed` are the rejects that this slice settles, by the number that each has as a row of the replay.
    All of them must still be pending. They are marked as replayed in the same transaction; a row that is rejected again
    takes the place of its reject.

    `locks` are signed 64-bit keys (`headrace.storage.locks.lock_keys`), each waited for `lock_timeout` seconds at most.
    `partition` is the one that the events belong to, 0 where there is only one.
    `alerts` (`headrace.storage.outbox.ALERT_COLUMNS`) are what its events raise if they are new.
    `repeats` are its rows that are no new events, ``None`` where revisions are not looked at.
    """

    run_id: str
    table: str
    provider: str
    address: Address
    digest: str
    events: pa.RecordBatch
    existing: Existing
    counts: Counts
    rejects: Sequence[Reject] = ()
    replayed: Mapping[int, StoredReject] = field(default_factory=dict)
    partition: int = 0
    locks: Sequence[int] = ()
    lock_timeout: float = 0.0
    alerts: pa.RecordBatch | None = None
    repeats: Repeats | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did. `counts` are the slice's complete, balanced books; `inserted_ids` is ``None`` when all of
    `Slice.events` went in, else the packed 16-byte IDs of those that did. `refused` are the packed IDs of the events of
    which the user's code has rejected every row; whoever commits a slice fills them in. `lock_seconds` is how long the
    slice's locks were waited for, `alerts` how many were raised, `spans` what its stages took, tries that failed
    included. `server_was_away` says that a connection was lost.
    """

    receipt_id: int
    counts: Counts
    already_done: bool = False
    inserted_ids: bytes | None = None
    path: Literal["fast", "safe", "none"] = "none"
    retries: int = 0
    lock_seconds: float = 0.0
    alerts: int = 0
    refused: bytes = b""
    server_was_away: bool = False
    spans: tuple[Span, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class IdRange:
    """IDs with ``low <= event_id < high``, each 16 bytes; ``None`` is unbounded. For layout ``time``."""

    low: bytes | None = None
    high: bytes | None = None


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Events with ``low <= column < high`` or a null there. For layout ``hash`` with a time column."""

    column: str
    low: datetime | None = None
    high: datetime | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event in the table came from: its row and the receipt and run that brought it."""

    row: Mapping[str, object]
    receipt: Receipt | None
    run: RunRecord | None


# What a table holds ------------------------------------------------------------------------------------------------


class LedgerEntry(NamedTuple):
    """What a receipt says about the table: how many events it inserted, and their digest.

    `digest` is as `headrace.storage.digest.Digest.to_bytes` wrote it, ``None`` under receipts of early versions.
    """

    receipt_id: int
    inputs_key: str
    inserted: int
    digest: bytes | None


class Holdings(NamedTuple):
    """Some rows of an event table: packed 16-byte IDs, and the receipt of each, `NO_RECEIPT` where it is null."""

    ids: bytes
    receipts: NDArray[np.int64]


def array_of_ids(packed: bytes) -> pa.FixedSizeBinaryArray:
    """Packed event IDs as an Arrow array, which views them."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(packed) // 16, [None, pa.py_buffer(packed)])
