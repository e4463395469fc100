"""The tasks of a worker: prepare a chunk, or commit a slice. Stateless, so that any worker can do any task.

    coordinator ──PrepareOrder──► prepare ──IDs──► coordinator: which rows are new? ──CommitOrder──► carry_out ──► table
                     chunk: a memory-mapped file        (one owner of all known IDs)     rows, by position

The same functions run inline in sequential mode. A failure in another process comes back as plain data, with its
traceback (`TaskOutcome`).
"""

from __future__ import annotations

import logging
import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import pyarrow as pa

from headrace.errors import HeadraceError, WorkerError, no_room
from headrace.events.alert_judge import Alerting, judge
from headrace.events.prepare import Prepared, prepare
from headrace.execution.enriched_slice import with_users_code
from headrace.execution.gather_events import gathered
from headrace.execution.gather_repeats import with_repeats
from headrace.execution.orders import ChunkRows, CommitOrder, PrepareOrder
from headrace.reading.chunk import Chunk
from headrace.runtime.parcel import Unchanged, Unseen, packer
from headrace.runtime.worker_logs import about, working_on
from headrace.storage import open_store
from headrace.storage.locks import RedisLocks
from headrace.storage.records import Address, Committed, Slice
from headrace.storage.spans import Span, Stopwatch
from headrace.storage.store import Store

__all__ = [
    "Gathered",
    "TaskOutcome",
    "alert_keys",
    "attempt",
    "carry_out",
    "commit",
    "gather",
    "identify",
    "prepare_apart",
]

log = logging.getLogger("headrace.worker")
Order = TypeVar("Order")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TaskOutcome(Generic[Result]):
    """A result, or a failure.

    `passing` failures say nothing about the order: the worker ran out of memory, or cannot read the spool or the input.
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


def attempt(work: Callable[[Order], Result], order: Order) -> TaskOutcome[Result]:
    """`work(order)` without raising errors, for a pool."""
    try:
        return TaskOutcome(work(order))
    except Unseen as error:
        return TaskOutcome(passing=error)
    except HeadraceError as error:
        trace = "".join([*traceback.format_exception(error), *getattr(error, "__notes__", [])])
        return TaskOutcome(error=error, trace=trace)
    except Exception as error:  # noqa: BLE001 - a defect is reported with its place, not as a broken pool
        if no_room(error):
            return TaskOutcome(passing=error)
        failure = WorkerError(
            f"{type(error).__name__}: {error}", where=str(order), hint="run the same command again to resume"
        )
        return TaskOutcome(error=failure, trace="".join(traceback.format_exception(error)))


# Prepare --------------------------------------------------------------------------------------------------------


def identify(order: PrepareOrder) -> Prepared:
    """The identified events of a chunk, in this process's memory."""
    watch = _watch(order.address, None)
    told = about(run=order.run_id, provider=order.provider, chunk=str(order.address))
    with told, watch.stage("prepare", rows=order.address.rows) as stage:
        chunk = Chunk(order.address, order.chunk.open(), order.rows, order.rejects)
        stage.size = chunk.batch.nbytes
        prepared = prepare(chunk, order.contract, order.provider, order.key, order.limits)
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
    """A slice's gathered events, and the time that gathering took."""

    events: pa.RecordBatch
    spans: tuple[Span, ...]


def commit(order: CommitOrder) -> Committed:
    """Commit a slice over this worker's own connection."""
    return carry_out(order, _store(order.database))


def gather(order: CommitOrder) -> Gathered:
    """The slice's events in the order of their IDs. Needs no store, so that it can be done before the slice's turn."""
    watch = _watch(order.slice.address, order.slice.partition)
    if order.new is None:
        return Gathered(order.slice.events, ())
    with watch.stage("gather") as stage:
        events = gathered(order.new, order.slice.provider)
        stage.rows, stage.size = events.num_rows, events.nbytes
    return Gathered(events, tuple(watch.spans))


def carry_out(order: CommitOrder, store: Store, ready: Gathered | None = None) -> Committed:
    """Gather the slice's events (or use those that are `ready`), enrich and judge them, take the slice's locks, and
    commit it in one transaction.
    """
    piece = order.slice
    with about(run=piece.run_id, provider=piece.provider, chunk=str(piece.address)), working_on(piece.partition):
        ready = ready or gather(order)
        committed = _carried_out(order, ready.events, store)
    return replace(committed, spans=(*ready.spans, *committed.spans))


def _carried_out(order: CommitOrder, events: pa.RecordBatch, store: Store) -> Committed:
    piece, refused = replace(order.slice, events=events), b""
    watch = _watch(piece.address, piece.partition)
    if order.new is not None:
        order, piece, refused = with_users_code(order, piece, store, watch)
    if order.revisions is not None:
        with watch.stage("gather"):
            piece = with_repeats(order, order.revisions, piece, store)
    committed = _written(order, piece, store, watch)
    return replace(committed, refused=refused, spans=(*watch.spans, *committed.spans))


def _written(order: CommitOrder, piece: Slice, store: Store, watch: Stopwatch) -> Committed:
    if order.locks is None:
        return store.events.commit(piece)
    with ExitStack() as held:
        with watch.stage("commit.locks"):
            waited = held.enter_context(_locks(order.locks).hold(piece.locks, piece.lock_timeout, where=str(order)))
        committed = store.events.commit(replace(piece, locks=()))
    return replace(committed, lock_seconds=committed.lock_seconds + waited)


def alert_keys(alerting: Alerting | None, new: ChunkRows | None, provider: str) -> frozenset[str]:
    """The keys of the alerts that the events of `new` raise, as `carry_out` would raise them."""
    if alerting is None or new is None:
        return frozenset()
    alerts = judge(alerting, gathered(new, provider), (), str(new.address)).alerts
    return frozenset() if alerts is None else frozenset(alerts.column("alert_key").to_pylist())


# This process's connections -------------------------------------------------------------------------------------


class _Ended:
    """Dropped when its thread ends."""


class _ThreadState(threading.local):
    """What a thread of this process keeps open between orders: a store serves one thread at a time.

    All of it is closed when the thread ends, or at the end of the process.
    """

    def __init__(self) -> None:
        self.stores: dict[str, Store] = {}
        self.locks: dict[str, RedisLocks] = {}
        self.open = ExitStack()
        self.ended = _Ended()
        weakref.finalize(self.ended, self.open.close)


_mine = _ThreadState()


def _store(url: str) -> Store:
    if url not in _mine.stores:
        _mine.stores[url] = _mine.open.enter_context(open_store(url))
    return _mine.stores[url]


def _locks(url: str) -> RedisLocks:
    if url not in _mine.locks:
        _mine.locks[url] = _mine.open.enter_context(closing(RedisLocks(url)))
    return _mine.locks[url]
