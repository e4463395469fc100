"""What a worker does: prepare a chunk, or carry a slice to the table. Stateless, so that any worker can do any of it.

    coordinator ──PrepareOrder──► prepare ──IDs──► coordinator: which rows are new? ──CommitOrder──► carry_out ──► table
                     chunk: a memory-mapped file        (one owner of all known IDs)     rows, by position

The same functions run inline in sequential mode. In another process everything that goes wrong comes back as plain
data, with the traceback it had there (`Outcome`).
"""

from __future__ import annotations

import atexit
import logging
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.chunk import Chunk
from headrace.enrich import apply, rejects_of
from headrace.errors import HeadraceError, WorkerError, no_room
from headrace.logs import about, working_on
from headrace.orders import CommitOrder, Piece, PrepareOrder
from headrace.parcel import SpoolUnseen, Unchanged, packer
from headrace.partitioning.dedup import id_order
from headrace.partitioning.identity import ids_to_arrow
from headrace.prepare import Prepared, prepare
from headrace.repeats import with_repeats
from headrace.rules import Alerting, judge
from headrace.storage import open_store
from headrace.storage.base import EVENT_ID, PROVIDER, RESERVED_COLUMNS, Address, Committed, Slice, Store
from headrace.storage.locks import RedisLocks
from headrace.storage.spans import Span, Stopwatch

__all__ = [
    "Gathered",
    "Outcome",
    "alert_keys",
    "attempt",
    "carry_out",
    "commit",
    "gather",
    "gathered",
    "identify",
    "prepare_apart",
]

log = logging.getLogger("headrace.worker")
SHOWN = 3  # addresses in a message
Order = TypeVar("Order")
Result = TypeVar("Result")


class _Closable(Protocol):
    def close(self) -> None: ...


Kind = TypeVar("Kind", bound=_Closable)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """A result, or the failure that came instead of it.

    `passing` failures say nothing about the order: the worker ran out of memory or does not see the spool.
    """

    result: Result | None = None
    error: HeadraceError | None = None
    trace: str = ""
    passing: BaseException | None = None

    def value(self) -> Result:
        """The result, or the failure raised with the traceback that it had in the worker."""
        if self.error is not None:
            if self.trace:
                self.error.add_note(f"in the worker:\n{self.trace}")
            raise self.error
        return self.result  # type: ignore[return-value]  # None is a result too


def attempt(work: Callable[[Order], Result], order: Order) -> Outcome[Result]:
    """`work(order)` with nothing raised: what a pool runs."""
    try:
        return Outcome(work(order))
    except SpoolUnseen as error:
        return Outcome(passing=error)
    except HeadraceError as error:
        trace = "".join([*traceback.format_exception(error), *getattr(error, "__notes__", [])])
        return Outcome(error=error, trace=trace)
    except Exception as error:  # noqa: BLE001 - a defect is reported with its place, not as a broken pool
        if no_room(error):
            return Outcome(passing=error)
        failure = WorkerError(
            f"{type(error).__name__}: {error}", where=str(order), hint="run the same command again to resume"
        )
        return Outcome(error=failure, trace="".join(traceback.format_exception(error)))


# Prepare --------------------------------------------------------------------------------------------------------


def identify(order: PrepareOrder) -> Prepared:
    """The identified events of a chunk, in this process's memory."""
    watch = _watch(order.address, None)
    told = about(run=order.run_id, provider=order.provider, chunk=str(order.address))
    with told, watch.stage("prepare", rows=order.address.rows) as stage:
        chunk = Chunk(order.address, order.chunk.open(), order.rows, order.rejects)
        stage.size = chunk.batch.nbytes
        prepared = prepare(chunk, order.contract, order.provider, order.key)
    return replace(prepared, spans=tuple(watch.spans))


def prepare_apart(order: PrepareOrder) -> Prepared:
    """`identify`, with the result in parcels that can leave this process.

    Rows that did not change stay where they are.
    """
    prepared = identify(order)
    pack = packer(order.spool)
    unchanged = len(prepared.rejects) == len(order.rejects)
    watch = _watch(order.address, None)
    with watch.stage("spool", rows=order.address.rows):
        events = Unchanged() if unchanged else pack(prepared.events.open())
        identity = pack(prepared.identity.open())
    return replace(prepared, events=events, identity=identity, spans=(*prepared.spans, *watch.spans))


def _watch(address: Address, partition: int | None) -> Stopwatch:
    return Stopwatch(address.source, address.first_row, partition)


# Commit ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gathered:
    """A slice's events, and what it took to gather them."""

    events: pa.RecordBatch
    spans: tuple[Span, ...]


def commit(order: CommitOrder) -> Committed:
    """Commit a slice over this worker's own connection."""
    return carry_out(order, _store(order.database))


def gather(order: CommitOrder) -> Gathered:
    """The slice's events in the order of their IDs. Needs no store, so that it can be done before the slice's turn."""
    watch = _watch(order.slice.address, order.slice.partition)
    if not order.pieces:
        return Gathered(order.slice.events, ())
    with watch.stage("gather") as stage:
        events = gathered(order.pieces, order.slice.provider)
        stage.rows, stage.size = events.num_rows, events.nbytes
    return Gathered(events, tuple(watch.spans))


def carry_out(order: CommitOrder, store: Store, ready: Gathered | None = None) -> Committed:
    """Gather the slice's events (or take those that are `ready`), enrich and judge them, take the slice's locks, and
    commit it in one transaction.
    """
    piece = order.slice
    with about(run=piece.run_id, provider=piece.provider, chunk=str(piece.address)), working_on(piece.partition):
        ready = ready or gather(order)
        committed = _carried_out(order, ready.events, store)
    return replace(committed, spans=(*ready.spans, *committed.spans))


def _carried_out(order: CommitOrder, events: pa.RecordBatch, store: Store) -> Committed:
    piece = replace(order.slice, events=events)
    watch = _watch(piece.address, piece.partition)
    if order.pieces:
        piece = _with_users_code(order, piece, store, watch)
    if order.revisions is not None:
        with watch.stage("gather"):
            piece = with_repeats(order, order.revisions, piece, store)
    committed = _written(order, piece, store, watch)
    spans = (*watch.spans, *committed.spans)
    return replace(committed, refused=_refused(events, piece.events), spans=spans)


def _with_users_code(order: CommitOrder, piece: Slice, store: Store, watch: Stopwatch) -> Slice:
    """The slice enriched, and with the alerts that its events raise."""
    without_value: Sequence[str] = ()
    if order.enrichment is not None:
        with watch.stage("enrich", rows=piece.events.num_rows):
            piece, without_value = _enriched(order, piece, store)
    if order.alerting is not None:
        with watch.stage("alerts", rows=piece.events.num_rows):
            piece = _judged(order, piece, without_value)
    return piece


def _refused(events: pa.RecordBatch, left: pa.RecordBatch) -> bytes:
    """The packed IDs of those of `events` that are not `left`."""
    if left.num_rows == events.num_rows:
        return b""
    ids = events.column(EVENT_ID)
    return b"".join(ids.filter(pc.invert(pc.is_in(ids, value_set=left.column(EVENT_ID)))).to_pylist())


def _written(order: CommitOrder, piece: Slice, store: Store, watch: Stopwatch) -> Committed:
    if order.locks is None:
        return store.commit(piece)
    with ExitStack() as held:
        with watch.stage("commit.locks"):
            waited = held.enter_context(_locks(order.locks).hold(piece.locks, piece.lock_timeout, where=str(order)))
        committed = store.commit(replace(piece, locks=()))
    return replace(committed, lock_seconds=committed.lock_seconds + waited)


def gathered(pieces: Sequence[Piece], provider: str) -> pa.RecordBatch:
    """The rows of `pieces` sorted by ID, with ID and provider added.

    Sorted inserts keep the index cheap and deadlocks away.
    """
    events, ids = _taken(pieces[0]) if len(pieces) == 1 else _taken_together(pieces)
    added = {EVENT_ID: ids_to_arrow(ids), PROVIDER: pa.repeat(provider, len(ids))}
    return pa.RecordBatch.from_arrays([*events.columns, *added.values()], names=[*events.schema.names, *added])


def _taken(piece: Piece) -> tuple[pa.RecordBatch, NDArray[np.uint8]]:
    """One piece's rows, sorted by ID. Rows that stand so already are not copied."""
    ids = piece.ids
    order = id_order(ids)
    rows = piece.rows[order]
    batch = piece.events.open()
    if len(rows) == batch.num_rows and bool((rows[:-1] < rows[1:]).all()):
        return batch, ids
    return batch.take(pa.array(rows)), ids[order]


def _taken_together(pieces: Sequence[Piece]) -> tuple[pa.RecordBatch, NDArray[np.uint8]]:
    """The rows of all pieces, sorted by ID, by one gather over the whole chunks: half the copies of one for each."""
    tables = [pa.Table.from_batches([piece.events.open()]) for piece in pieces]
    starts = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
    rows = np.concatenate([piece.rows + start for piece, start in zip(pieces, starts, strict=True)])
    ids = np.concatenate([piece.ids for piece in pieces])
    order = id_order(ids)
    # a column that one of the chunks lacks is null there
    whole = pa.concat_tables(tables, promote_options="default")
    return whole.take(pa.array(rows[order])).combine_chunks().to_batches()[0], ids[order]


def _enriched(order: CommitOrder, piece: Slice, store: Store) -> tuple[Slice, Sequence[str]]:
    """The slice with the user's columns, and the names of those without any value.

    The table gets the columns that it lacks, before the transaction begins.
    """
    if order.enrichment is None:
        return piece, ()
    done = apply(order.enrichment, piece.events, _where(order))
    data = [column for column in done.events.schema if column.name not in RESERVED_COLUMNS]
    if done.events.num_rows and len(data) + 2 > len(piece.events.schema):
        store.create_or_widen(piece.table, pa.schema(data), time_index=None)
    return _without(order, piece, done.events, done.failed), done.without_value


def _judged(order: CommitOrder, piece: Slice, without_value: Sequence[str]) -> Slice:
    """The slice with what its events raise."""
    if order.alerting is None or not piece.events.num_rows:
        return piece
    judged = judge(order.alerting, piece.events, without_value, _where(order))
    return replace(_without(order, piece, judged.events, judged.failed), alerts=judged.alerts)


def alert_keys(alerting: Alerting | None, pieces: Sequence[Piece], provider: str) -> frozenset[str]:
    """The keys of what the events of `pieces` raise, as `carry_out` would find them."""
    if alerting is None or not any(len(piece.rows) for piece in pieces):
        return frozenset()
    alerts = judge(alerting, gathered(pieces, provider), (), _places(pieces)).alerts
    return frozenset() if alerts is None else frozenset(alerts.column("alert_key").to_pylist())


def _without(order: CommitOrder, piece: Slice, events: pa.RecordBatch, failed: Sequence[tuple[int, str]]) -> Slice:
    """The slice with `events` for its own, and with rejects for those of its own that the user's code `failed` on."""
    if not failed:
        return replace(piece, events=events)
    rejects = rejects_of(piece.events, failed, _places_of(order, piece.events, [at for at, _ in failed]))
    counts = replace(piece.counts, rejected=piece.counts.rejected + len(rejects))
    return replace(piece, events=events, rejects=[*piece.rejects, *rejects], counts=counts)


def _where(order: CommitOrder) -> str:
    return f"partition {order.slice.partition}, {_places(order.pieces)}"


def _places_of(order: CommitOrder, events: pa.RecordBatch, at: Sequence[int]) -> list[tuple[str, int | None]]:
    """The source and the row number of some events: found again by their IDs, since only a failure asks."""
    ids = ids_to_arrow(np.concatenate([piece.ids for piece in order.pieces]))
    found = pc.index_in(events.column(EVENT_ID).take(pa.array(at, pa.int64())), value_set=ids)
    starts = np.cumsum([0, *(len(piece.rows) for piece in order.pieces)])
    return [_place(order.pieces, starts, place) for place in found.to_pylist()]


def _place(pieces: Sequence[Piece], starts: NDArray[np.int64], place: int) -> tuple[str, int | None]:
    """The source and the row number of what stands at `place` in `pieces`, one after the other."""
    which = int(np.searchsorted(starts, place, side="right")) - 1
    piece = pieces[which]
    number = None if piece.numbers is None else int(piece.numbers[piece.rows[place - starts[which]]])
    return piece.address.source, number


def _places(pieces: Sequence[Piece]) -> str:
    shown = [str(piece.address) for piece in pieces[:SHOWN]]
    return "; ".join(shown) + (f" and {len(pieces) - SHOWN} chunks more" if len(pieces) > SHOWN else "")


# This process's connections -------------------------------------------------------------------------------------


_kept: WeakSet[_Kept[Any]] = WeakSet()


class _Kept(Generic[Kind]):
    """A store or a client that a thread keeps open, closed when the thread is gone, or at the end of the process."""

    def __init__(self, it: Kind) -> None:
        self.it = it
        _kept.add(self)

    def __del__(self) -> None:
        self.it.close()


class _Mine(threading.local):
    """What a thread of this process keeps open between orders: a store serves one thread at a time."""

    def __init__(self) -> None:
        self.stores: dict[str, _Kept[Store]] = {}
        self.locks: dict[str, _Kept[RedisLocks]] = {}


_mine = _Mine()


@atexit.register
def _close_all() -> None:
    for kept in list(_kept):
        kept.it.close()


def _store(url: str) -> Store:
    if url not in _mine.stores:
        _mine.stores[url] = _Kept(open_store(url))
    return _mine.stores[url].it


def _locks(url: str) -> RedisLocks:
    if url not in _mine.locks:
        _mine.locks[url] = _Kept(RedisLocks(url))
    return _mine.locks[url].it
