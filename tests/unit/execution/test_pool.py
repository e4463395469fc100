"""How tasks get done when their executor fails: against executors and crews that fail on command."""

from __future__ import annotations

import pickle
import select
import threading
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.pools import (
    BROKEN,
    EVENTS,
    FakeCrew,
    Here,
    Reaction,
    Scripted,
    breaks,
    commit_order,
    does_it,
    does_nothing,
    prepare_order,
    range_order,
    refuses,
    starves,
)

from headrace.errors import ConfigurationError, HeadraceError, WorkerError
from headrace.events.prepare import Prepared
from headrace.execution import crew, pool
from headrace.execution.crew import InFile, Packed, ProcessCrew
from headrace.execution.gather_events import gathered
from headrace.execution.orders import ChunkRows, PrepareOrder
from headrace.execution.pool import MOST_FAILURES, PooledWorkers
from headrace.execution.tasks import TaskOutcome, prepare_apart
from headrace.reading.steady_files import InputUnseen, Steady
from headrace.runtime.parcel import BytesParcel, FileParcel, SpoolUnseen
from headrace.storage.records import Address


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LOOK_EVERY", 0.01)


def pooled(source: Executor | ProcessCrew, tmp_path: Path, **more: Any) -> tuple[PooledWorkers, Here]:
    here = Here()
    return PooledWorkers(source, count=2, spool=tmp_path, inline=here, **more), here


def results(workers: PooledWorkers, *numbers: int, **more: Any) -> list[Any]:
    """What becomes of the tasks with these numbers, asked for in the order in which they are given out."""
    tasks = [workers.commit(commit_order(number, **more)) for number in numbers]
    return [task.result() for task in tasks]


# An executor that was given -----------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    workers, here = pooled(Scripted(does_it), tmp_path)
    assert results(workers, 3, 1, 2) == ["done 3", "done 1", "done 2"]
    assert (workers.fell_back, here.done) == (None, [])


@pytest.mark.parametrize("failure", [refuses, breaks])
def test_a_broken_executor_leaves_the_rest_to_this_process(tmp_path: Path, failure: Reaction) -> None:
    executor = Scripted(does_it, failure)
    workers, here = pooled(executor, tmp_path)
    assert results(workers, 0, 1, 2) == ["done 0", "inline 1", "inline 2"]
    assert workers.fell_back == "the executor failed: BrokenExecutor: its processes are gone"
    assert results(workers, 3) == ["inline 3"]
    assert here.done == [str(commit_order(number)) for number in (1, 2, 3)]
    assert 3 not in executor.numbers()
    # nothing of what was done is kept: its rows are
    assert workers._outstanding == []


@pytest.mark.parametrize(
    "error", [TimeoutError("a timeout of its own"), OSError("no process can be started"), BROKEN, KeyError("odd")]
)
def test_whatever_an_executor_fails_with_is_a_failure(tmp_path: Path, error: Exception) -> None:
    workers, _ = pooled(Scripted(lambda future, _: future.set_exception(error)), tmp_path)
    assert results(workers, 0) == ["inline 0"]
    assert type(error).__name__ in str(workers.fell_back)


def test_a_cancelled_task_is_a_failure(tmp_path: Path) -> None:
    def cancels(future: Future[Any], order: Any) -> None:
        future.cancel()

    workers, _ = pooled(Scripted(cancels), tmp_path)
    assert results(workers, 0) == ["inline 0"]


def test_a_task_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    def later(future: Future[Any], order: Any) -> None:
        threading.Timer(0.1, does_it, (future, order)).start()

    workers, _ = pooled(Scripted(later), tmp_path)
    assert results(workers, 0, 1) == ["done 0", "done 1"]
    assert workers.fell_back is None


def test_an_executor_that_does_nothing_is_given_up_after_the_tasks_timeout(tmp_path: Path) -> None:
    workers, _ = pooled(Scripted(does_it, does_nothing), tmp_path, task_timeout=0.1)
    assert results(workers, 0, 1, 2) == ["done 0", "inline 1", "inline 2"]
    assert workers.fell_back == "the executor has done nothing for 0.1 s"


def test_an_executor_that_may_have_met_the_users_deadly_code_fails_the_run(tmp_path: Path) -> None:
    for failure in (breaks, does_nothing):
        workers, here = pooled(Scripted(failure), tmp_path, task_timeout=0.1)
        with pytest.raises(WorkerError, match="pandas:f may be what ends them"):
            results(workers, 0, enrich=True)
        assert here.done == []


def test_a_given_executor_is_left_running(tmp_path: Path) -> None:
    executor = Scripted(does_it)
    executor.shutdown = lambda *_, **__: pytest.fail("it belongs to who gave it")  # type: ignore[method-assign]
    workers, _ = pooled(executor, tmp_path)
    with workers:
        results(workers, 0)
        workers.kill()


@pytest.mark.parametrize("ends", ["killed", "given up"])
def test_what_waits_in_a_given_executor_is_taken_back(tmp_path: Path, ends: str) -> None:
    executor = Scripted(does_nothing)
    workers, _ = pooled(executor, tmp_path, task_timeout=0.05)
    tasks = [workers.commit(commit_order(number)) for number in range(3)]
    if ends == "killed":
        workers.kill()
    else:
        assert str(tasks[0].result()) == "inline 0"
        executor.futures.pop(0)  # that task was no longer waiting
    assert all(future.cancelled() for future in executor.futures)


# A spool that workers do not see ------------------------------------------------------------------------------------


def unseen(future: Future[Any], order: Any) -> None:
    """A worker elsewhere."""
    parcels = [order.chunk] if isinstance(order, PrepareOrder) else [order.new and order.new.events]
    if any(isinstance(parcel, FileParcel) for parcel in parcels) or getattr(order, "spool", None):
        future.set_result(TaskOutcome(passing=SpoolUnseen("/nowhere")))
    else:
        does_it(future, order)


def test_rows_travel_as_bytes_once_a_worker_does_not_see_the_spool(tmp_path: Path) -> None:
    executor = Scripted(unseen)
    workers, here = pooled(executor, tmp_path)
    with pytest.raises(AttributeError):  # "done 0" is no prepared chunk, but the order was carried out
        workers.prepare(prepare_order(workers.pack(EVENTS))).result()
    first, second = executor.given
    assert isinstance(first.chunk, FileParcel)
    assert first.spool == tmp_path
    assert isinstance(second.chunk, BytesParcel)
    assert second.chunk.open() == EVENTS
    assert second.spool is None
    assert (workers.fell_back, here.done) == (None, [])


def test_a_slice_travels_with_its_own_rows_alone(tmp_path: Path) -> None:
    executor = Scripted(unseen)
    workers, _ = pooled(executor, tmp_path)
    ids = pa.array([bytes([n] * 16) for n in (30, 10, 20)], pa.binary(16))
    identity = workers.pack(pa.RecordBatch.from_pydict({"id": ids}))
    rows = np.array([0, 2], dtype=np.int32)
    chosen = ChunkRows(Address("events.csv", 100, 3), workers.pack(EVENTS), identity, rows, 3, numbered=True)
    assert results(workers, 0, new=chosen) == ["done 0"]
    carried = executor.given[-1].new
    assert carried.events.open().to_pydict() == {"key": [3, 2]}
    assert carried.numbers.tolist() == [100, 102]
    assert gathered(carried, "p") == gathered(chosen, "p")
    results(workers, 1, new=chosen)
    assert len(executor.given) == 3  # the second task was sent so at once


def test_a_worker_that_never_sees_its_rows_is_given_up(tmp_path: Path) -> None:
    workers, _ = pooled(Scripted(lambda future, _: future.set_result(TaskOutcome(passing=SpoolUnseen("x")))), tmp_path)
    assert results(workers, 0) == ["inline 0"]
    assert "failed 5 times at one task" in str(workers.fell_back)


# A crew -------------------------------------------------------------------------------------------------------------


def test_a_broken_pool_is_started_again_and_its_tasks_are_given_out_in_their_order(tmp_path: Path) -> None:
    first, second = Scripted(does_it, breaks, does_it, breaks), Scripted(does_it)
    workers, here = pooled(FakeCrew(first, second), tmp_path)
    assert results(workers, 0, 1, 2, 3, 4) == [f"done {number}" for number in range(5)]
    # what was done, though not asked for yet, is not done again
    assert second.numbers() == [1, 3, 4]
    assert (workers.fell_back, here.done) == (None, [])
    assert results(workers, 5) == ["done 5"]


def test_many_tasks_of_one_broken_pool_are_one_failure(tmp_path: Path) -> None:
    crew = FakeCrew(Scripted(breaks), Scripted(does_it))
    workers, _ = pooled(crew, tmp_path)
    results(workers, *range(2 * MOST_FAILURES))
    assert (workers.fell_back, crew.killed) == (None, 1)


def test_a_pool_that_is_broken_when_tasks_are_given_out_is_started_again(tmp_path: Path) -> None:
    workers, _ = pooled(FakeCrew(Scripted(refuses), Scripted(does_it)), tmp_path)
    assert results(workers, 0, 1) == ["done 0", "done 1"]


def test_a_starved_worker_is_replaced(tmp_path: Path) -> None:
    crew = FakeCrew(Scripted(starves, does_nothing), Scripted(does_it))
    workers, _ = pooled(crew, tmp_path)
    assert results(workers, 0, 1) == ["done 0", "done 1"]
    assert crew.killed == 1


def test_a_stopped_worker_is_killed_and_its_task_given_out_again(tmp_path: Path) -> None:
    stuck = Scripted(does_nothing)
    crew = FakeCrew(stuck, Scripted(does_it))
    crew.stalled_workers = [4711]
    crew.on_kill = stuck.end
    workers, _ = pooled(crew, tmp_path)
    assert results(workers, 0, 1) == ["done 0", "done 1"]
    assert workers.fell_back is None


def test_after_five_failures_in_a_row_the_rest_is_done_inline(tmp_path: Path) -> None:
    crew = FakeCrew(Scripted(does_it, breaks), Scripted(breaks))
    workers, here = pooled(crew, tmp_path)
    assert results(workers, 0, 1, 2) == ["done 0", "inline 1", "inline 2"]
    assert f"failed {MOST_FAILURES} times in a row" in str(workers.fell_back)
    assert workers._outstanding == []
    assert len(here.done) == 2


def test_failures_with_progress_in_between_are_not_in_a_row(tmp_path: Path) -> None:
    executors = [Scripted(does_it, breaks) for _ in range(3 * MOST_FAILURES)]
    workers, _ = pooled(FakeCrew(*executors), tmp_path)
    assert results(workers, *range(2 * MOST_FAILURES)) == [f"done {number}" for number in range(2 * MOST_FAILURES)]
    assert workers.fell_back is None


def test_a_killer_among_the_tasks_fails_the_run_whichever_task_notices(tmp_path: Path) -> None:
    workers, here = pooled(FakeCrew(Scripted(breaks)), tmp_path)
    innocent = workers.prepare(prepare_order(workers.pack(EVENTS)))
    workers.commit(commit_order(7, enrich=True))
    with pytest.raises(WorkerError, match="pandas:f may be what ends them") as caught:
        innocent.result()
    assert caught.value.where == str(commit_order(7))
    assert here.done == []


def test_a_task_that_is_too_late_twice_fails_the_run(tmp_path: Path) -> None:
    crew = FakeCrew(Scripted(breaks))
    crew.late_orders = [[str(commit_order(0))], [], [str(commit_order(0))]]
    workers, _ = pooled(crew, tmp_path)
    with pytest.raises(WorkerError, match="twice") as caught:
        results(workers, 0)
    assert caught.value.where == str(commit_order(0))


def test_a_task_that_was_too_late_once_and_then_done_starts_anew(tmp_path: Path) -> None:
    """Orders of two batches of an engine can have the same name."""
    crew = FakeCrew(Scripted(breaks), Scripted(does_it, breaks), Scripted(does_it))
    crew.late_orders = [[str(commit_order(0))], [str(commit_order(0))]]
    workers, _ = pooled(crew, tmp_path)
    assert [*results(workers, 0), *results(workers, 0)] == ["done 0", "done 0"]


def test_workers_that_never_come_to_life_are_a_matter_of_configuration(tmp_path: Path) -> None:
    crew = FakeCrew(Scripted(breaks))
    crew.can = False
    workers, here = pooled(crew, tmp_path)
    with pytest.raises(ConfigurationError, match="no worker could be started") as caught:
        results(workers, 0)
    assert "__main__" in str(caught.value.hint)
    assert here.done == []


def test_a_pool_that_cannot_be_started_again_leaves_the_rest_to_this_process(tmp_path: Path) -> None:
    crew = FakeCrew(Scripted(breaks), ConfigurationError("no worker can be started (no memory)"))
    workers, _ = pooled(crew, tmp_path)
    assert results(workers, 0, 1) == ["inline 0", "inline 1"]
    assert workers.fell_back == "no worker can be started (no memory)"


def test_nobody_waits_for_dismissed_workers(tmp_path: Path) -> None:
    crew = FakeCrew(Scripted(does_nothing))
    workers, _ = pooled(crew, tmp_path)
    before = workers.commit(commit_order(0))
    threading.Timer(0.05, workers.kill).start()
    with pytest.raises(WorkerError, match="workers were stopped"):
        before.result()
    with pytest.raises(WorkerError, match="workers were stopped"):
        results(workers, 1)


def test_the_works_own_error_is_raised_with_its_traceback_and_ends_nothing(tmp_path: Path) -> None:
    def fails(future: Future[Any], order: Any) -> None:
        future.set_result(TaskOutcome(error=HeadraceError("odd"), trace="where it was"))

    workers, _ = pooled(FakeCrew(Scripted(fails, does_it)), tmp_path)
    with pytest.raises(HeadraceError, match="odd") as caught:
        results(workers, 0)
    assert caught.value.__notes__ == ["in the worker:\nwhere it was"]
    assert results(workers, 1) == ["done 1"]
    assert workers.fell_back is None


# What goes through the pipe -----------------------------------------------------------------------------------------


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process as a member of a crew with this folder."""
    monkeypatch.setattr(crew._duty, "folder", tmp_path)
    return tmp_path


@pytest.mark.parametrize("size", [0, 100, 1_000, select.PIPE_BUF, 1 << 20])
def test_an_outcome_is_written_whole_or_not_at_all(member: Path, size: int) -> None:
    sent = crew.run(lambda order: order * size, b"x", None)
    # the pool's own envelope takes some hundred bytes; what is larger than the buffer can be cut short by a kill
    assert len(pickle.dumps(sent)) <= select.PIPE_BUF - 512
    outcome = pickle.loads(pickle.dumps(pool._opened(sent)))  # noqa: S301 - our own
    assert outcome.value() == b"x" * size
    assert list(member.iterdir()) == []


def test_a_large_outcome_that_comes_by_file_is_the_tasks_result(tmp_path: Path, member: Path) -> None:
    def by_file(future: Future[Any], order: Any) -> None:
        future.set_result(crew.run(lambda _: b"x" * 100_000, order, None))

    crew_ = FakeCrew(Scripted(by_file, breaks), Scripted(does_it))
    workers, _ = pooled(crew_, tmp_path)
    assert results(workers, 0, 1) == [b"x" * 100_000, "done 1"]


def test_an_outcome_whose_file_is_gone_is_asked_for_again(tmp_path: Path) -> None:
    def lost(future: Future[Any], order: Any) -> None:
        future.set_result(InFile(tmp_path / "gone"))

    workers, _ = pooled(FakeCrew(Scripted(lost), Scripted(does_it)), tmp_path)
    assert results(workers, 0) == ["done 0"]


def test_an_order_that_cannot_be_read_is_its_own_failure(member: Path) -> None:
    order: Packed[Any] = Packed(b"cheadrace.nowhere\nthing\n.", "commit partition 0")
    outcome = pool._opened(crew.run(lambda _: None, order, None))
    with pytest.raises(WorkerError, match=r"No module named 'headrace\.nowhere'") as caught:
        outcome.value()
    assert caught.value.where == "commit partition 0"


def test_a_prepared_chunk_comes_home_with_the_rows_that_did_not_change(tmp_path: Path) -> None:
    def carry_out(future: Future[Any], order: Any) -> None:
        future.set_result(crew.run(prepare_apart, order, None))

    workers, _ = pooled(FakeCrew(Scripted(carry_out)), tmp_path)
    chunk = workers.pack(EVENTS)
    prepared = workers.prepare(prepare_order(chunk)).result()
    assert isinstance(prepared, Prepared)
    assert prepared.events is chunk
    assert prepared.events.open() == EVENTS
    assert len(prepared.ids) == 3


def test_a_range_of_a_file_that_no_worker_can_open_is_read_by_this_process(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("key\n1\n")
    executor = Scripted(lambda future, _: future.set_result(TaskOutcome(passing=InputUnseen("a.csv"))))
    workers, here = pooled(executor, tmp_path)
    assert str(workers.read(range_order(Steady(path, "a.csv"), 3)).result()) == "inline 3"
    assert (workers.fell_back, here.done) == (None, ["read a.csv, bytes 3-3"])
