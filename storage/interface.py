"""The `Store` protocol and the plain data that crosses it; the transaction contract in prose.

**The transaction contract.** `Store.commit` takes one `Slice` and makes it durable in exactly one transaction:

0. Lock the table against changes of what it is (types, keys, triggers), and read what it is like now.
1. Insert the receipt. Its key is (run, source, first row, partition). If it exists, the slice is already in:
   change nothing, return the counts that receipt holds with ``already_done=True``. Idempotency needs no other
   machinery.
2. Take the slice's locks (`Slice.locks`), ascending, before anything is read. They end with the transaction, so that
   neither a crash nor a connection pooler can leave one behind. One that is not granted in time is a
   `LockTimeoutError`, and the whole transaction is rolled back.
3. Write the events, as `Slice.existing` says: those that the snapshot vouches for go by the fast path; for ``query``
   the database is first asked which of the IDs it holds, and the others go by the fast path. Should the unique key
   refuse one (writers that take no lock exist), the events alone roll back to a savepoint and go by the safe path
   (``ON CONFLICT (event_id) DO NOTHING``), which says exactly which were inserted, and which ``conflict`` goes by at
   once.
4. Compare the slice's repeats, and the events that did not go in, with the table (`Slice.repeats`); bring its rows up
   to date where that is asked for.
5. Write the alerts of the events that were really inserted (`Slice.alerts`) and of the rows that have taken the table's
   row (`Repeats.alerts`), but for keys that are in the outbox already, and the rejects.
   Settle those that are replayed (`Slice.replayed`): if one of them is kept no more, somebody else has loaded or
   discarded its row; that is a `SettledError`, and the whole transaction is rolled back.
6. Where triggers or children act on the table's rows, look for every event that was sent
   (`headrace.storage.postgres.written_slice`).
7. Complete the receipt with the counts, and commit.

Rows, alerts, rejects and receipt are therefore visible together or not at all. A transaction that fails for a reason
that passes (serialization failure, deadlock, a table's lock, a lost connection) is run again whole, with jitter and a
cap.
A connection lost during COMMIT leaves the outcome unknown; running the slice again is safe because of step 1.

The unique key on ``event_id`` is the sole authority over what is a duplicate; a snapshot only saves work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.storage.held import HeldRows
from headrace.storage.holdings import Holdings
from headrace.storage.id_sums import IdSum
from headrace.storage.outbox import Outbox
from headrace.storage.rejects import Reject, Rejects, StoredReject
from headrace.storage.repeats import Repeats
from headrace.storage.runs import Address, Counts, Receipt, RunRecord, Runs, RunStatus
from headrace.storage.spans import Span
from headrace.storage.sql.limits import Limits
from headrace.storage.sql.stored_forms import StoredForms

__all__ = [
    "EVENT_ID",
    "PROVIDER",
    "RECEIPT",
    "RESERVED_COLUMNS",
    "RESERVED_TABLES",
    "Address",
    "Committed",
    "Counts",
    "Existing",
    "IdRange",
    "Origin",
    "Receipt",
    "RunRecord",
    "RunStatus",
    "Slice",
    "StatementHook",
    "Store",
    "TimeRange",
]

EVENT_ID = "event_id"
PROVIDER = "provider"
RECEIPT = "headrace_receipt"
RESERVED_COLUMNS = (EVENT_ID, PROVIDER, RECEIPT)
RESERVED_TABLES = ("headrace_slice", "headrace_repeats")
"""Temporary tables of a commit, which would hide one of events with the same name."""

Existing = Literal["snapshot", "conflict", "query"]
"""How a slice learns which events exist: by the snapshot, the database's conflict resolution, or a query under locks."""
StatementHook = Callable[[str], None]
"""Called with the text of every statement sent to the database (``COPY`` included), just before it is sent."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one transaction commits.

    `events` has the table's data columns in canonical Arrow types plus ``event_id`` (fixed_size_binary[16]) and
    ``provider`` (string), not ``headrace_receipt``, which the store adds; only rows believed to be new, no ID twice,
    sorted by ``event_id``. `counts.inserted` is 0 and `counts.rejected` the number of rejects: the store fills in what
    the database decides (inserted, and further duplicates in the store). `digest` identifies the chunk's content on
    resume. `replayed` are the rejects that this slice settles, by the number that each has as a row of the replay.
    All of them must be kept yet; they are marked in the same transaction, and what is rejected again gets their places.

    `locks` are signed 64-bit keys (`headrace.storage.locks.lock_keys`), each waited for `lock_timeout` seconds at most.
    `partition` is the one that the events belong to, 0 where there is only one. A slice that gathers several chunks (a
    micro-batch) names them in `spans`; its `address` is the first chunk's source and first row with all their rows.
    `alerts` (`headrace.storage.outbox.ALERT_COLUMNS`) are what its events raise if they are new.
    `repeats` are its rows that are no new events, ``None`` where revisions are not looked at.
    `lacking` tells of columns that some of the slice's inputs do not have which events come from those: there such a
    column is left to the database, if it fills it.
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
    spans: Sequence[Address] = ()
    locks: Sequence[int] = ()
    lock_timeout: float = 30.0
    alerts: pa.RecordBatch | None = None
    repeats: Repeats | None = None
    lacking: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


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


class Store(Outbox, Rejects, Runs, Protocol):
    """A database that keeps events, ledger, rejects and alerts. One instance serves one thread at a time.

    Every method raises `headrace.errors.StoreError` (final) or `RetryableStoreError`; `SchemaError` where noted.
    """

    @property
    def url(self) -> str:
        """The database's URL without its password, fit for logs."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None:
        """Release every connection. Idempotent."""
        ...

    def is_in_place(self) -> bool:
        """Whether the database at the URL is the one that was opened: a file may have been removed or replaced.

        No statement.
        """
        ...

    # Tables -----------------------------------------------------------------------------------------------------

    def has_ledger(self) -> bool:
        """Whether Headrace's own tables are there. Raises `SchemaError` where a newer release has been at work."""
        ...

    def prepare_ledger(self, *, create: bool = True) -> None:
        """Create Headrace's own tables where they are missing, and bring those of an older release up to date.

        Where there are none, and `create` is false, none is made.
        Safe when several processes do it at once. Raises `SchemaError` where a newer release has been at work.
        """
        ...

    def table_schema(self, table: str, *, keyed: bool = True) -> pa.Schema | None:
        """The data columns of `table` in canonical Arrow types (without reserved columns, and those of types that no
        canonical one maps to), ``None`` if absent.

        Raises `SchemaError` if the table exists but lacks a reserved column or, unless `keyed` is false, no events can
        be written to it under a unique key on ``event_id``.
        """
        ...

    def filled_columns(self, table: str) -> frozenset[str]:
        """The data columns to which the database itself gives a value where a row has none: by DEFAULT, an identity, or
        because they are generated.
        """
        ...

    def require_writable(self, table: str, columns: Sequence[str], *, whole: bool = True) -> None:
        """Raise `SchemaError` where rows with these data columns cannot be written to `table`, if it exists: one is
        generated or of a type that Headrace does not write, or, where they are the `whole` row, one is missing that
        may not be null and has no default.
        """
        ...

    def create_or_widen(self, table: str, schema: pa.Schema, *, time_index: str | None) -> bool:
        """Create `table` with `schema` and the reserved columns, or add the columns it lacks (nullable).

        Returns whether it was created. A column of `schema` whose type differs from the table's raises `SchemaError`
        naming both. `time_index` names a column to index (layout ``hash`` with a time column).
        """
        ...

    def pinned_contract(self, table: str) -> str | None:
        """The contract stored with `table` (JSON text), ``None`` if there is none."""
        ...

    def pin_contract(self, table: str, contract: str) -> str:
        """Store `contract` unless `table` has one already; return the one that is stored."""
        ...

    def extend_contract(self, table: str, stored: str, contract: str) -> str:
        """Put `contract` in the place of `stored`, unless another is there by now; return the one that is there."""
        ...

    # Existing IDs -----------------------------------------------------------------------------------------------

    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]:
        """Packed 16-byte IDs of the events in `table`, in blocks of bounded size and no particular order.

        One statement. `limit` bounds the number of IDs.
        """
        ...

    def held(self, table: str, ids: bytes) -> Iterator[bytes]:
        """Those of the packed `ids` (each once) that `table` holds now, packed, in any order.

        One statement for each 10,000, through the key: asking costs the same whatever the size of the table.
        """
        ...

    def id_sum(self, table: str, ranges: Sequence[IdRange | None]) -> IdSum | None:
        """The sum of the IDs that `table` holds in `ranges` (disjoint; ``None`` is all of it), by the database itself;
        ``None`` where it cannot. One statement.
        """
        ...

    def holdings(self, table: str) -> Iterator[Holdings]:
        """Every row's ID and receipt, in blocks of bounded size and no particular order. One statement."""
        ...

    def rows(self, table: str, columns: pa.Schema, *, ids: Sequence[bytes] | None = None) -> Iterator[HeldRows]:
        """Every row's ID, receipt and `columns` (some of `table_schema`), or those of the events `ids`: in blocks of
        bounded size and no particular order. One statement.
        """
        ...

    def limits(self, table: str) -> Limits:
        """What the columns of `table` cannot hold, as it was when it was last looked at."""
        ...

    def stored_forms(self, table: str) -> StoredForms:
        """What the table's own types make of the canonical values that are written into it."""
        ...

    # Commit -----------------------------------------------------------------------------------------------------

    def commit(self, piece: Slice) -> Committed:
        """Commit one slice as the module's transaction contract says."""
        ...

    # Reading back -----------------------------------------------------------------------------------------------

    def origin(self, table: str, event_id: bytes) -> Origin | None:
        """The event's row and what brought it."""
        ...

    def tables(self) -> list[str]:
        """The event tables: those with a stored contract."""
        ...

    def describe(self) -> dict[str, str]:
        """Facts for ``headrace doctor``: server version, clock, durability settings."""
        ...
