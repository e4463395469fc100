"""Any `concurrent.futures.Executor` does the work: threads, processes, a custom one.

The table is the sequential one in every column but provenance, so are the books and the rejects: also where workers do
not see the spool. `test_cluster.py` has those of several machines.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.enrichments import blind
from support.executors import (
    HASH_KEY,
    KEYS,
    SECRET,
    STRATEGIES,
    UNSEEN,
    check_same,
    load,
    rejects,
    wait_until,
    with_password,
    write_events,
)
from support.program import Headrace

import headrace as package
from headrace.execution import pool


@pytest.fixture
def events(tmp_path: Path) -> list[Path]:
    return write_events(tmp_path)


class Serial(Executor):
    """The least that an executor can be: the work is done when it is submitted."""

    def __init__(self) -> None:
        self.orders: list[object] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        self.orders.append(args)
        future: Future[Any] = Future()
        future.set_result(function(*args, **named))
        return future


class Turns(Executor):
    """Gives each task to the next of several executors; `blinded` says whose workers see no spool."""

    def __init__(self, *given: Executor, blinded: Sequence[Executor]) -> None:
        self._turns = cycle(given)
        self._blinded = blinded

    def submit(self, function: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        executor = next(self._turns)
        return (
            executor.submit(blind, function, *args) if executor in self._blinded else executor.submit(function, *args)
        )


def processes(workers: int) -> Executor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"))


@pytest.fixture(scope="module")
def executors() -> Iterator[dict[str, Executor]]:
    """Started once: processes take longer to start than a load takes."""
    with ThreadPoolExecutor(3) as threads, processes(2) as pool, processes(1) as far:
        yield {"serial": Serial(), "threads": threads, "processes": pool, "far": Turns(far, blinded=[far])} | {
            "mixed": Turns(far, pool, blinded=[far])
        }


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["serial", "threads", "processes", "far", "mixed"])
def test_any_executor_gives_the_same_table(
    store_url: str,
    headrace: Headrace,
    events: list[Path],
    executors: dict[str, Executor],
    kind: str,
    strategy: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = load(store_url, "s", events, mode="sequential")
    report = load(store_url, "p", events, mode="parallel", strategy=strategy, executor=executors[kind])
    check_same(headrace, report, expected)
    told = [record.levelname for record in caplog.records if UNSEEN in record.getMessage()]
    assert told == (["WARNING"] if kind in ("far", "mixed") else [])


def test_sources_and_rows_are_told_where_rows_travel_as_bytes(
    store_url: str, headrace: Headrace, events: list[Path], executors: dict[str, Executor]
) -> None:
    enriched: Any = {"enrich": "support.enrichments:refuse_sevens"}
    with pytest.raises(package.WorkerError, match=r"early\.csv, rows 0-29") as caught:
        load(store_url, "q", events, mode="parallel", executor=executors["far"], **enriched)
    assert "in refuse_sevens" in "\n".join(caught.value.__notes__)
    expected = load(store_url, "s", events, mode="sequential", on_error="reject", **enriched)
    report = load(store_url, "p", events, mode="parallel", executor=executors["far"], on_error="reject", **enriched)
    check_same(headrace, report, expected)
    late = [key for key in range(KEYS // 2, KEYS) if key % 10 == 7]
    refused = {(Path(source).name, row) for source, row, *_ in rejects(headrace, "p")}
    assert refused >= {("early.csv", row) for row in range(7, KEYS // 2, 10)}
    assert refused >= {("late.csv", key - KEYS // 3) for key in late}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_order_shows_a_secret(
    postgres_url: str, events: list[Path], strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HASH_KEY", HASH_KEY)
    executor = Serial()
    load(
        with_password(postgres_url), "t", events, mode="parallel", hash="blake2b", strategy=strategy, executor=executor
    )
    assert len(executor.orders) > 2
    for order in executor.orders:
        assert SECRET not in f"{order!r}{order}"
        assert HASH_KEY not in f"{order!r}{order}"


def connections(url: str) -> int:
    with psycopg.connect(url) as connection:
        asked = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'headrace' AND datname = current_database()"
        )
        ((found,),) = connection.execute(asked).fetchall()
        return int(found)


def test_connections_go_with_the_threads_that_opened_them(postgres_url: str, events: list[Path]) -> None:
    with ThreadPoolExecutor(3) as executor:
        for table in ("a", "b"):
            load(postgres_url, table, events, mode="parallel", strategy="upsert", executor=executor)
        assert 1 <= connections(postgres_url) <= 3  # one for each thread, however many loads
    wait_until(lambda: connections(postgres_url) == 0)


def test_sqlite_files_are_closed_with_the_threads_that_opened_them(
    sqlite_url: str, tmp_path: Path, events: list[Path]
) -> None:
    with ThreadPoolExecutor(3) as executor:
        load(sqlite_url, "a", events, mode="parallel", executor=executor)
        assert open_databases(tmp_path)
    wait_until(lambda: not open_databases(tmp_path))


def open_databases(folder: Path) -> list[Path]:
    files = (entry.resolve() for entry in Path("/proc/self/fd").iterdir())
    return [file for file in files if file.is_relative_to(folder.resolve()) and ".db" in file.name]


def test_workers_that_outlive_a_run_outlive_the_loss_of_their_connections(
    postgres_url: str, tmp_path: Path, events: list[Path]
) -> None:
    expected = load(postgres_url, "s", events, mode="sequential")
    with ThreadPoolExecutor(2) as executor:
        load(postgres_url, "a", events, mode="parallel", executor=executor)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headrace'"
            )
        report = load(postgres_url, "p", events, mode="parallel", executor=executor)
    check_same(Headrace(postgres_url, tmp_path), report, expected)


class Idle(Executor):
    """All its workers are gone: no task ever comes back."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        return Future()


@pytest.mark.timeout(120)
def test_an_executor_from_which_nothing_comes_back_is_told_of_and_given_up(
    headrace: Headrace, events: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "STANDSTILL", 0.5)
    report = load(headrace.url, "idle", events, mode="parallel", executor=Idle(), task_timeout=3)
    alone = load(headrace.url, "alone", events, mode="sequential")
    assert report.fell_back == "the executor has done nothing for 3 s"
    assert "has come back from the executor for" in caplog.text
    check_same(headrace, replace(report, fell_back=None), alone)
