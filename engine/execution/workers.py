"""Workers, which carry orders out, and the simplest worker: this process.

    InlineWorkers   prepares at once in the calling thread, commits in one thread over the run's own connection
    PooledWorkers   a pool of processes, or the user's own executor

The latter are in `headrace.execution.pool`.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import pyarrow as pa

from headrace.events.prepare import Prepared
from headrace.execution.orders import CommitOrder, PrepareOrder, RangeDone, RangeOrder
from headrace.execution.range_task import read_range
from headrace.execution.tasks import carry_out, gather, identify
from headrace.observability.stages import PoolHealth
from headrace.runtime.parcel import MemoryParcel, Parcel
from headrace.storage.records import Committed
from headrace.storage.store import Store

__all__ = ["Done", "InlineWorkers", "Task", "Workers"]

Result_co = TypeVar("Result_co", covariant=True)


class Task(Protocol[Result_co]):
    """Assigned work."""

    def result(self) -> Result_co:
        """Wait for the work and return its result. Raises the work's error."""


@dataclass(frozen=True, slots=True)
class Done(Generic[Result_co]):
    """Finished work."""

    outcome: Result_co

    def result(self) -> Result_co:
        """The result."""
        return self.outcome


class Workers(Protocol):
    """Workers, which carry orders out."""

    @property
    def count(self) -> int:
        """The number of orders that they carry out at a time."""

    @property
    def fell_back(self) -> str | None:
        """The reason why this process does the rest, ``None`` while all is well."""

    def health(self) -> PoolHealth:
        """The workers' health."""

    def pack(self, batch: pa.RecordBatch) -> Parcel:
        """`batch` as a parcel that the workers can open."""

    def prepare(self, order: PrepareOrder) -> Task[Prepared]:
        """Order a chunk's rows to be identified."""

    def read(self, order: RangeOrder) -> Task[RangeDone]:
        """Order a range to be read, and its rows to be identified."""

    def commit(self, order: CommitOrder) -> Task[Committed]:
        """Order a slice to be committed."""


class InlineWorkers:
    """The run's own process, over `store`: a thread commits while the next chunk is prepared.

    The events of the next slice are gathered meanwhile, so that the database never waits between two commits.
    """

    count = 1
    fell_back: str | None = None

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gatherer = ThreadPoolExecutor(1, thread_name_prefix="headrace-gather")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="headrace-commit")
        self._given: set[Future[Committed]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._gatherer.shutdown()
        self._writer.shutdown()

    def health(self) -> PoolHealth:
        """Always well."""
        return PoolHealth(1, 1)

    def pack(self, batch: pa.RecordBatch) -> Parcel:
        """The batch itself."""
        return MemoryParcel(batch)

    def prepare(self, order: PrepareOrder) -> Task[Prepared]:
        """At once, in the calling thread."""
        return Done(identify(order))

    def read(self, order: RangeOrder) -> Task[RangeDone]:
        """At once, in the calling thread."""
        return Done(read_range(order))

    def commit(self, order: CommitOrder) -> Task[Committed]:
        """In the one thread that speaks to the store."""
        ready = self._gatherer.submit(gather, order)
        task = self._writer.submit(lambda: carry_out(order, self._store, ready.result()))
        self._given.add(task)
        task.add_done_callback(self._given.discard)
        return task

    def abandon(self) -> None:
        """Drop the commits that have not begun, and wait for the running commit: a run failed, and whoever uses
        the store now must be alone with it. An SQLite database in memory has one connection, and one transaction.
        """
        given = tuple(self._given)
        for task in given:
            task.cancel()
        wait(given)
