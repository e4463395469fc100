"""Workers that may die: if a worker dies or hangs, its task is assigned again.

    task ──► executor ──► outcome
      ▲          │ worker killed, out of memory, stopped, past its deadline
      └──────────┴─► the pool is started again, its tasks are given out again; when that does not help,
                     this process does the rest inline; or the run fails, if the user's own code may be the cause

The executor is the built-in crew's, or any `concurrent.futures.Executor`. Assigning a task again is safe: preparing is
pure, and a commit that had succeeded finds its own receipt.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa

from headrace.errors import ConfigurationError, WorkerError
from headrace.events.prepare import Prepared
from headrace.execution.crew import InFile, Packed, ProcessCrew, run
from headrace.execution.orders import ChunkRows, CommitOrder, PrepareOrder, RangeDone, RangeOrder
from headrace.execution.range_task import read_range_apart
from headrace.execution.tasks import TaskOutcome, commit, prepare_apart
from headrace.execution.workers import InlineWorkers, Task
from headrace.observability.stages import PoolHealth
from headrace.partitioning.folders import private_folder
from headrace.reading.steady_files import InputUnseen
from headrace.runtime.parcel import Parcel, SpoolUnseen, Unchanged, pack_bytes, packer
from headrace.storage.records import Committed

__all__ = ["PooledWorkers"]

log = logging.getLogger("headrace.pool")
Result = TypeVar("Result")
Order = PrepareOrder | RangeOrder | CommitOrder
LOOK_EVERY = 1.0  # seconds between looks at the workers' pulses
STANDSTILL = 10.0  # seconds without a result from a given executor, after which the log says so
_GUARD = (
    "the worker's output says why; a script must call Headrace under `if __name__ == '__main__':`, because each "
    "worker imports it"
)
MOST_TRIES = 5  # of one task
MOST_FAILURES = 5  # of the pool, one after the other, with no task done in between


class _Given(Generic[Result]):
    """A task of a pool."""

    def __init__(
        self, pool: PooledWorkers, work: Callable[[Any], Result], inline: Callable[[Any], Task[Result]]
    ) -> None:
        self.work = work
        self.inline = inline
        self.tries = 0
        self.future: Future[TaskOutcome[Result] | InFile[Result]] = Future()
        self.order: Order
        self._pool = pool

    def result(self) -> Result:
        return self._pool.result_of(self)


class PooledWorkers:
    """Workers of an executor: the built-in crew's, or one that the user gave.

    A given executor is not restarted, and its workers have no visible pulses: it is given up if none of its tasks
    returns for `task_timeout` seconds.
    """

    def __init__(
        self,
        source: ProcessCrew | Executor,
        *,
        count: int,
        spool: Path,
        inline: InlineWorkers,
        task_timeout: float = math.inf,
    ) -> None:
        self.count = count
        self.fell_back: str | None = None
        self._crew = source if isinstance(source, ProcessCrew) else None
        self._executor = source.start() if isinstance(source, ProcessCrew) else source
        self._inline = inline
        self._task_timeout = task_timeout
        self._moved = time.monotonic()
        self._told_of_standstill = 0.0
        self._over = False
        self._spool: Path | None = spool
        self._folder = spool
        self._pack = packer(spool)
        self._outstanding: list[_Given[Any]] = []
        self._failures = 0
        self._restarted = 0
        self._late: set[str] = set()
        self._lock = RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._crew is not None:  # an executor that was given belongs to who gave it
            with self._crew.leaving():
                self._executor.shutdown(cancel_futures=True)

    def kill(self) -> None:
        """End the crew's workers at once, and assign no more tasks; a given executor only loses its waiting tasks."""
        with self._lock:
            self._over = True
            self._call_back()

    def health(self) -> PoolHealth:
        """The workers' health; a given executor's workers count as alive."""
        alive = self.count if self._crew is None else self._crew.alive()
        return PoolHealth(self.count, alive, self._restarted, self.fell_back)

    def pack(self, batch: pa.RecordBatch) -> Parcel:
        """Write the batch into the spool; if the workers cannot read the spool, only the coordinator reads it again."""
        try:
            return self._pack(batch)
        except SpoolUnseen:
            private_folder(self._folder)
            return self._pack(batch)

    def prepare(self, order: PrepareOrder) -> Task[Prepared]:
        """By any worker."""
        return _Home(self._give_out(_Given(self, prepare_apart, self._inline.prepare), order), order.chunk)

    def read(self, order: RangeOrder) -> Task[RangeDone]:
        """By any worker that can open the input, else by this process."""
        return self._give_out(_Given(self, read_range_apart, self._inline.read), order)

    def commit(self, order: CommitOrder) -> Task[Committed]:
        """By any worker, over its own connection."""
        return self._give_out(_Given(self, commit, self._inline.commit), order)

    def result_of(self, task: _Given[Result]) -> Result:
        """Wait for `task`, and assign it again until it is done."""
        while True:
            if self._over:
                raise WorkerError("the workers were stopped", where=str(task.order))
            if self.fell_back is not None:
                self._take_off(task)
                return task.inline(task.order).result()
            future = task.future
            try:
                outcome = _opened(future.result(timeout=LOOK_EVERY))
            except Exception as error:  # noqa: BLE001 - an executor's own failure, whatever it is: the work raises nothing
                if isinstance(error, TimeoutError) and not _has_failed(future):
                    self._look_after_the_workers(task)
                else:
                    self._start_again(task, future, error)
            else:
                if outcome.passing is None:
                    self._take_off(task)
                    return outcome.value()
                if isinstance(outcome.passing, InputUnseen):
                    self._take_off(task)
                    return task.inline(task.order).result()
                self._answer(task, future, outcome.passing)

    # Giving out -------------------------------------------------------------------------------------------------

    def _give_out(self, task: _Given[Result], order: Order) -> Task[Result]:
        with self._lock:
            task.order = order
            self._outstanding.append(task)
            self._submit(task)
        return task

    def _submit(self, task: _Given[Any]) -> None:
        if self.fell_back is not None or self._over:
            return
        order = self._addressed(task.order)
        partition = order.slice.partition if isinstance(order, CommitOrder) else None
        try:
            sent = order if self._crew is None else Packed.of(order)
            task.future = self._executor.submit(run, task.work, sent, partition)
        except Exception as error:  # noqa: BLE001 - broken already, shut down, or no process could be started
            task.future = Future()
            task.future.set_exception(error)
        self._note_movement()
        task.future.add_done_callback(self._note_movement)

    def _note_movement(self, *_: object) -> None:
        self._moved = time.monotonic()
        self._told_of_standstill = 0.0

    def _addressed(self, order: Order) -> Order:
        """The order as the workers can use it: with the spool, or with the rows themselves."""
        if not isinstance(order, CommitOrder):
            order = replace(order, spool=self._spool)
        return order if self._spool is not None else _by_value(order)

    def _take_off(self, task: _Given[Any]) -> None:
        """`task` is done, or is about to be done inline."""
        with self._lock:
            self._outstanding.remove(task)
            self._failures = 0
            self._late.discard(str(task.order))

    # When something goes wrong ----------------------------------------------------------------------------------

    def _answer(self, task: _Given[Any], future: Future[Any], passing: BaseException) -> None:
        """A worker could not do this task, though it lives."""
        if not isinstance(passing, SpoolUnseen):
            # out of memory: the worker has held on to too much, and is replaced
            self._start_again(task, future, passing)
            return
        with self._lock:
            if not self._folder.is_dir():
                log.warning("the folder %s was removed while it was in use: it is created again", self._folder)
                private_folder(self._folder)
            elif self._spool is not None:
                log.warning("the workers cannot read the folder %s: rows are sent as bytes", self._spool)
                self._spool = None
            elif task.tries >= MOST_TRIES:
                self._fall_back(f"a worker failed {task.tries} times at one task: {passing!r}")
            task.tries += 1
            self._submit(task)

    def _look_after_the_workers(self, task: _Given[Any]) -> None:
        if self._crew is None:
            still = time.monotonic() - self._moved
            if still > self._task_timeout:
                self._give_up(task, f"the executor has done nothing for {self._task_timeout:g} s")
            elif still > self._told_of_standstill + STANDSTILL:
                self._told_of_standstill = still
                log.warning("no task of %d has come back from the executor for %.0f s", len(self._outstanding), still)
            return
        for pid in self._crew.stalled():
            log.error("worker %d shows no sign of life: it is killed", pid)
            self._crew.kill()
            return

    def _start_again(self, task: _Given[Any], failed: Future[Any], error: BaseException) -> None:
        with self._lock:
            if task.future is not failed:  # another task's failure had it given out again already
                return
            task.future = Future()
            task.tries += 1
            self._failures += 1
            if self._crew is None:
                said = str(error) or "it was given up, as when a cluster's scheduler was restarted"
                self._give_up(task, f"the executor failed: {type(error).__name__}: {said}")
                return
            self._blame_the_late(self._crew)
            if self._failures > 1 and not self._crew.can_start():
                raise ConfigurationError(f"no worker could be started ({error})", hint=_GUARD) from error
            if task.tries >= MOST_TRIES or self._failures >= MOST_FAILURES:
                self._give_up(task, f"the workers failed {self._failures} times in a row ({error!r})")
            else:
                log.warning("a worker failed (%r): the pool is restarted", error)
                self._replace_the_pool(task, self._crew)

    def _give_up(self, task: _Given[Any], why: str) -> None:
        """Go on inline, unless the user's code may be what ends workers: it would end this process too.

        Whichever task noticed: when a pool breaks, all its tasks do.
        """
        with self._lock:
            orders = [given.order for given in (task, *self._outstanding)]
        for order in orders:
            if isinstance(order, CommitOrder) and order.users_code is not None:
                raise WorkerError(
                    why,
                    where=str(order),
                    hint=f"{order.users_code} may be what ends them; correct it, or give it more memory with fewer "
                    "--workers or smaller --chunk-rows, and run again to resume",
                )
        self._fall_back(why)

    def _replace_the_pool(self, task: _Given[Any], crew: ProcessCrew) -> None:
        crew.kill()
        self._restarted += 1
        self._executor.shutdown(wait=False, cancel_futures=True)
        try:
            self._executor = crew.start()
        except ConfigurationError as error:  # the machine has not enough of something, which it had before
            self._give_up(task, error.what)
            return
        for given in self._outstanding:
            if not _has_come(given.future):
                self._submit(given)

    def _blame_the_late(self, crew: ProcessCrew) -> None:
        """An order that was too late twice would be so inline too, where nobody could end it."""
        late = set(crew.late())
        for order in late & self._late:
            raise WorkerError(
                "the task exceeded the time limit twice",
                where=order,
                hint="raise --task-timeout, or correct the function given to --enrich or --alert-function; "
                "then run again to resume",
            )
        self._late |= late

    def _fall_back(self, why: str) -> None:
        log.error("%s: this process does the rest sequentially", why)
        self.fell_back = why
        self._call_back()

    def _call_back(self) -> None:
        """Nobody wants what was given out any more."""
        if self._crew is not None:
            self._crew.kill()
            return
        with self._lock:
            for task in self._outstanding:
                task.future.cancel()


def _opened(outcome: TaskOutcome[Result] | InFile[Result]) -> TaskOutcome[Result]:
    return outcome.take() if isinstance(outcome, InFile) else outcome


def _has_failed(future: Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


def _has_come(future: Future[Any]) -> bool:
    """Whether a task's outcome is there, and says something."""
    if not future.done() or _has_failed(future):
        return False
    outcome = future.result()
    return isinstance(outcome, InFile) or outcome.passing is None


class _Home:
    """A prepared chunk on its way back: rows that did not change are those that were sent."""

    def __init__(self, task: Task[Prepared], chunk: Parcel) -> None:
        self._task = task
        self._chunk = chunk

    def result(self) -> Prepared:
        prepared = self._task.result()
        if isinstance(prepared.events, Unchanged):
            return replace(prepared, events=self._chunk)
        if prepared.events is not self._chunk:
            self._chunk.discard()
        return prepared


def _by_value(order: Order) -> Order:
    """The order with its rows in it, for workers who do not see the spool."""
    if isinstance(order, PrepareOrder):
        return replace(order, chunk=pack_bytes(order.chunk.open()))
    if isinstance(order, RangeOrder):
        return order
    return replace(order, new=_carried(order.new), repeats=_carried(order.repeats), spares=_carried(order.spares))


def _carried(chosen: ChunkRows | None) -> ChunkRows | None:
    """The chosen rows alone, as bytes."""
    if chosen is None:
        return None
    rows, identity = pa.array(chosen.rows), chosen.identity.open()
    if chosen.numbered and "row" not in identity.schema.names:
        identity = identity.append_column("row", pa.array(np.arange(chosen.of)))
    return replace(
        chosen,
        events=pack_bytes(chosen.events.open().take(rows)),
        identity=pack_bytes(identity.take(rows)),
        rows=np.arange(len(rows), dtype=np.int32),
        of=len(rows),
    )
