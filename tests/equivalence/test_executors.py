"""Any `concurrent.futures.Executor` does the work: threads, processes, and a Dask cluster that shares no folder."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests_support import Headrace
from workers_facts import blind

import headrace as package

KEYS = 300
ROWS = 400
OPTIONS: Any = {"id": ["key"], "types": {"key": "integer"}, "chunk_rows": 30}


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text("\n".join(["key,value", *(f"{n % KEYS},value {n}" for n in range(ROWS)), "oops,bad"]) + "\n")
    return path


class Serial(Executor):
    """The least that an executor can be: the work is done when it is submitted."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **named))
        return future


def processes() -> Executor:
    return ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"))


def rows(headrace: Headrace, table: str) -> list[tuple[Any, ...]]:
    return headrace.query(f"SELECT event_id, key, value, provider FROM {table} ORDER BY event_id")  # noqa: S608


def check_equal(headrace: Headrace, report: package.Report, table: str) -> None:
    assert (report.read, report.inserted, report.rejected) == (ROWS + 1, KEYS, 1)
    assert report.fell_back is None
    assert rows(headrace, table) == rows(headrace, "s")


@pytest.mark.parametrize("strategy", ["partitioned", "upsert", "locked"])
@pytest.mark.parametrize("make", [Serial, lambda: ThreadPoolExecutor(3), processes], ids=["serial", "threads", "pool"])
def test_any_executor_gives_the_same_table(
    store_url: str, headrace: Headrace, events: Path, make: Callable[[], Executor], strategy: Any
) -> None:
    package.load(events, to=store_url, table="s", mode="sequential", **OPTIONS)
    with make() as executor:
        report = package.load(
            events, to=store_url, table="p", mode="parallel", strategy=strategy, executor=executor, **OPTIONS
        )
        check_equal(headrace, report, "p")


class Far(Executor):
    """Processes that do not see the coordinator's spool."""

    def __init__(self) -> None:
        self._pool = processes()

    def submit(self, function: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        return self._pool.submit(blind, function, *args)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def test_rows_travel_as_bytes_where_the_spool_is_not_seen(
    store_url: str, headrace: Headrace, events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package.load(events, to=store_url, table="s", mode="sequential", **OPTIONS)
    with Far() as executor:
        report = package.load(events, to=store_url, table="p", mode="parallel", executor=executor, **OPTIONS)
        check_equal(headrace, report, "p")
        with pytest.raises(package.WorkerError, match="rows 0-29") as caught:
            package.load(
                events,
                to=store_url,
                table="q",
                mode="parallel",
                executor=executor,
                enrich="workers_facts:refuse_sevens",
                **OPTIONS,
            )
        assert "in refuse_sevens" in "\n".join(caught.value.__notes__)
        kept = package.load(
            events,
            to=store_url,
            table="r",
            mode="parallel",
            executor=executor,
            enrich="workers_facts:refuse_sevens",
            on_error="reject",
            **OPTIONS,
        )
    assert kept.rejected == 1 + KEYS // 10
    rejects = headrace.query("SELECT row_number FROM headrace_rejects WHERE table_name = 'r' ORDER BY 1")
    assert [row for (row,) in rejects] == [*range(7, KEYS, 10), ROWS]
    warnings = [record for record in caplog.records if "rows travel as bytes" in record.getMessage()]
    assert len(warnings) == 3  # one for each run


# A Dask cluster --------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def dask(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + words[0], *words[1:], "--no-dashboard", "--host", "127.0.0.1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], pattern: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(pattern, line):
            return
    pytest.fail(f"dask ended before it said {pattern!r}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A scheduler and two worker processes, as on two machines."""
    port = free_port()
    scheduler = dask("dask_scheduler", "--port", str(port))
    workers: list[subprocess.Popen[str]] = []
    try:
        wait_for_line(scheduler, "Scheduler at")
        for number in range(2):
            folder = tmp_path / f"worker{number}"
            where = [f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
            workers.append(dask("dask_worker", *where))
        for worker in workers:
            wait_for_line(worker, "Registered to")
        yield f"dask://127.0.0.1:{port}", workers
    finally:
        for process in [*workers, scheduler]:
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


# distributed's own, about its event loop and sockets at shutdown
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dask_cluster_gives_the_same_table_also_when_a_worker_is_killed(
    postgres_url: str, tmp_path: Path, events: Path, cluster: tuple[str, list[subprocess.Popen[str]]]
) -> None:
    address, workers = cluster
    headrace = Headrace(postgres_url, tmp_path)
    package.load(events, to=postgres_url, table="s", mode="sequential", **OPTIONS)
    report = package.load(events, to=postgres_url, table="p", mode="parallel", executor=address, **OPTIONS)
    check_equal(headrace, report, "p")
    load = subprocess.Popen(
        headrace.command(
            *("load", events, "--table", "k", "--id", "key", "--type", "key=integer", "--chunk-rows", "30"),
            *("--mode", "parallel", "--executor", address, "--strategy", "upsert", "--enrich", "workers_facts:add_pid"),
        ),
        env={**headrace.environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not headrace.query_one_if_table("k", "SELECT count(*) FROM k") and time.monotonic() < deadline:
        time.sleep(0.01)
    workers[0].send_signal(signal.SIGKILL)
    _, stderr = load.communicate(timeout=120)
    assert load.returncode == 3, stderr
    assert rows(headrace, "k") == rows(headrace, "s")


def test_a_scheduler_that_is_not_there_is_an_error_that_says_so(sqlite_url: str, events: Path) -> None:
    headrace = Headrace(sqlite_url, events.parent)
    address = f"dask://127.0.0.1:{free_port()}"
    done = headrace.run("load", events, "--mode", "parallel", "--executor", address, expect=2)
    assert "no Dask scheduler answers" in done.stderr
    assert headrace.query_one_if_table("events", "SELECT count(*) FROM events") is None


def test_an_executor_that_does_not_exist_is_an_error(sqlite_url: str, events: Path) -> None:
    headrace = Headrace(sqlite_url, events.parent)
    done = headrace.run("load", events, "--mode", "parallel", "--executor", "ray://somewhere", expect=2)
    assert "names no executor" in done.stderr


def test_the_extra_is_named_where_it_is_missing(
    sqlite_url: str, events: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(package.ConfigurationError, match="pip install 'headrace\\[dask\\]'"):
        package.load(events, to=sqlite_url, mode="parallel", executor="dask://127.0.0.1:8786", **OPTIONS)
