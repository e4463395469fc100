"""Tasks that hang or kill their workers, programs that call Headrace from odd places, and signals."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from crash.loads import KEYS, OPTIONS, ROWS, check_whole, finish, start, wait_for_receipts, write
from support.processes import (
    HangOnce,
    everything_below,
    left_behind,
    load_and_tell,
    wait_for_end,
    workers_below,
)
from support.program import Headrace, scaled

import headrace as package


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return write(tmp_path / "events.csv", ROWS, KEYS)


# Tasks that hang or kill --------------------------------------------------------------------------------------------


def test_a_task_that_hangs_once_is_done_the_second_time(
    postgres_url: str, tmp_path: Path, events: Path, scratch: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    headrace = Headrace(postgres_url, tmp_path)
    token = scratch / "token"
    token.touch()
    enrich = HangOnce(token)
    options = {**OPTIONS, "to": postgres_url, "mode": "parallel", "workers": 2, "task_timeout": 1.5}
    report = package.load(events, enrich=enrich, **options)
    assert not token.exists()
    assert "took longer than 1.5 s" in caplog.text
    assert report.fell_back is None
    check_whole(headrace)
    assert left_behind(headrace, scratch, prefix) == {}


@pytest.mark.parametrize(
    ("enrich", "patience", "said"),
    [
        ("hang", "2s", "exceeded the time limit twice"),
        ("end_the_process", "60s", "end_the_process may be what ends them"),
    ],
)
def test_a_task_that_always_hangs_or_kills_fails_the_run_and_not_the_coordinator(
    sqlite_url: str, tmp_path: Path, events: Path, scratch: Path, enrich: str, patience: str, said: str
) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    process = start(headrace, events, "--mode", "parallel", "--task-timeout", patience, enrich=enrich)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (1, ""), stderr
    assert said in stderr
    assert "commit partition" in stderr
    assert "events.csv, rows 0-" in stderr
    assert "again to resume" in stderr
    assert headrace.query("SELECT status FROM headrace_runs") == [("failed",)]
    assert left_behind(headrace, scratch, "none") == {}


def test_a_function_that_workers_cannot_find_is_an_error_and_no_dead_worker(
    sqlite_url: str, tmp_path: Path, events: Path, scratch: Path
) -> None:
    script = (
        "import headrace\ndef mine(batch): return batch\n"
        f"headrace.load({str(events)!r}, to={sqlite_url!r}, table='t', id=['key'], mode='parallel', enrich=mine)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "Can't get attribute 'mine'" in done.stderr
    assert "a worker failed" not in done.stderr
    assert list(scratch.glob("headrace-*")) == []


def test_a_script_without_a_guard_loads_nothing_and_ends(
    sqlite_url: str, tmp_path: Path, events: Path, scratch: Path
) -> None:
    script = tmp_path / "script.py"
    load = f"headrace.load({str(events)!r}, to={sqlite_url!r}, table='t', id=['key'], types={{'key': 'integer'}})"
    script.write_text(f"import headrace\n{load}\n")
    done = run_script(script)
    assert done.returncode != 0
    assert "no worker could be started" in done.stderr
    assert "if __name__ == '__main__'" in done.stderr
    headrace = Headrace(sqlite_url, tmp_path)
    assert headrace.query_one_if_table("t", "SELECT count(*) FROM t") in (None, 0)
    assert headrace.query("SELECT status FROM headrace_runs") == [("failed",)]
    script.write_text(f"import headrace\nif __name__ == '__main__':\n    {load}\n")
    assert run_script(script).returncode == 0
    check_whole(headrace)
    # the workers that loaded, or tried to, and were killed left theirs to the next run
    assert list(scratch.glob("headrace-*")) == []


def run_script(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script],
        env={**os.environ, "ENABLE_PARALLEL_CHUNK_PROCESSING": "on"},
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_daemon_cannot_have_workers_and_says_so(sqlite_url: str, tmp_path: Path, events: Path, scratch: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1) as pool:  # its processes are daemons
        said = pool.apply(load_and_tell, (str(events),), {"to": sqlite_url, "workers": 2, **OPTIONS})
    assert "a worker cannot start workers" in said
    assert Headrace(sqlite_url, tmp_path).query_one_if_table("t", "SELECT count(*) FROM t") is None


# Programs with threads, and signals -----------------------------------------------------------------------------------


def test_a_program_with_busy_threads_does_not_hang(sqlite_url: str, tmp_path: Path, scratch: Path, prefix: str) -> None:
    events = write(tmp_path / "few.csv", 60, 50)
    over = threading.Event()
    lock = threading.Lock()
    log = logging.getLogger("busy")

    def work() -> None:
        while not over.is_set():
            with lock:
                log.info("the %d numbers are %s", 100, sorted(range(100), key=lambda number: -number))
                time.sleep(0.002)
            logging.getLogger(f"busy.{random.randrange(50)}").debug("a new logger takes logging's own lock")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(scaled(100, default=4)):
            with lock:  # as one who calls from inside its own critical section
                report = package.load(
                    events, to=sqlite_url, mode="parallel", workers=2, **{**OPTIONS, "table": f"t{number}"}
                )
            assert (report.read, report.inserted, report.fell_back) == (60, 50, None)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert wait_for_end(workers_below(os.getpid())) == set()
    assert left_behind(Headrace(sqlite_url, tmp_path), scratch, prefix) == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_ends_a_load_so_that_it_can_be_resumed(
    postgres_url: str, tmp_path: Path, events: Path, scratch: Path, prefix: str, number: signal.Signals, code: int
) -> None:
    """Ctrl-C in a terminal and a service manager's stop reach the workers and the fork server too."""
    headrace = Headrace(postgres_url, tmp_path)
    process = start(headrace, events, "--mode", "parallel", "--strategy", "upsert", prefix=prefix)
    wait_for_receipts(headrace, 2)
    below = everything_below(process.pid)
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "run the same command again to resume" in stderr
    assert wait_for_end(below) == set()
    assert left_behind(headrace, scratch, prefix) == {}
    assert finish(headrace, events)["resumed"]
    check_whole(headrace)


def test_a_second_signal_stops_a_parallel_load_at_once(
    postgres_url: str, tmp_path: Path, events: Path, scratch: Path, prefix: str
) -> None:
    headrace = Headrace(postgres_url, tmp_path)
    process = start(headrace, events, "--mode", "parallel", "--strategy", "upsert", prefix=prefix)
    wait_for_receipts(headrace, 2)
    below = everything_below(process.pid)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert wait_for_end(below) == set()
    assert left_behind(headrace, scratch, prefix) == {}
    finish(headrace, events)
    check_whole(headrace)


@pytest.mark.parametrize(
    ("first", "second", "store_url"),
    [("parallel", "sequential", "postgresql"), ("sequential", "parallel", "sqlite")],
    indirect=["store_url"],
)
def test_a_run_killed_in_one_mode_is_resumed_in_the_other(
    headrace: Headrace, events: Path, scratch: Path, first: str, second: str
) -> None:
    process = start(headrace, events, "--mode", first)
    wait_for_receipts(headrace, 2)
    process.kill()
    process.communicate()
    before = headrace.query("SELECT run_id FROM headrace_runs")
    report = finish(headrace, events, "--mode", second)
    assert report["resumed"]
    assert report["slices_skipped"] >= 1
    assert report["strategy"] == ("sequential" if first == "sequential" else "partitioned")
    assert headrace.query("SELECT run_id FROM headrace_runs") == before == [(report["run_id"],)]
    check_whole(headrace)
