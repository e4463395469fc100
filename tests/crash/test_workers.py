"""Workers struck at random from outside, stopped at the wrong moment, or all at once: what others cannot see coming.

`test_worker_failure.py` has the troubles that a task brings upon its own worker; here nobody cooperates. Every test has
its own folder for temporary files and its own name for semaphores, and looks at what is left of them.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import multiprocessing.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workers_support
from tests_support import Headrace, scaled
from workers_support import (
    HangOnce,
    Hunter,
    everything_below,
    fork_server_of,
    left_behind,
    load_and_tell,
    name_semaphores,
    wait_for_end,
    workers_below,
)

import headrace as package
from headrace import crew

KEYS = 300
ROWS = 400
OPTIONS: Any = {"table": "t", "id": ["key"], "types": {"key": "integer"}, "chunk_rows": 20}
# a chunk whose outcome is larger than a pipe: who is killed while sending it leaves half of it there
LARGE: Any = {**OPTIONS, "chunk_rows": 12_000}


def write(path: Path, rows: int, keys: int) -> Path:
    path.write_text("\n".join(["key,value", *(f"{n % keys},value {n}" for n in range(rows))]) + "\n")
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return write(tmp_path / "events.csv", ROWS, KEYS)


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own for temporary files."""
    multiprocessing.util.get_temp_dir()  # the fork server outlives the test, and so must its socket
    with tempfile.TemporaryDirectory(prefix="hr") as folder:  # short: it holds sockets
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        monkeypatch.undo()


@pytest.fixture
def prefix() -> Iterator[str]:
    """What the names of this test's semaphores begin with."""
    before = multiprocessing.current_process()._config["semprefix"]  # type: ignore[attr-defined]
    name = f"hr{os.getpid()}x{random.randrange(10**6)}"
    name_semaphores(name)
    yield name
    name_semaphores(before.lstrip("/"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are stopped are noticed sooner than is right for a busy machine."""
    monkeypatch.setattr(crew, "STALLED_AFTER", 2.5)
    monkeypatch.setattr(crew, "STARTS_WITHIN", 6.0)
    monkeypatch.setattr(crew, "PULSE", 0.25)
    monkeypatch.setattr(crew, "PATIENCE", 2.0)
    monkeypatch.setattr("headrace.pool.LOOK_EVERY", 0.25)


def check_whole(headrace: Headrace, rows: int = ROWS, keys: int = KEYS) -> None:
    """The table against a dict; and what its one run has counted, told by the ledger."""
    oracle: dict[int, str] = {}
    for number in range(rows):
        oracle.setdefault(number % keys, f"value {number}")
    assert dict(headrace.query("SELECT key, value FROM t")) == oracle
    assert headrace.count("t") == keys
    counted = headrace.query('SELECT sum("read"), sum(inserted), sum(duplicate_in_input) FROM headrace_receipts')
    assert [tuple(map(int, row)) for row in counted] == [(rows, keys, rows - keys)]


def forget(headrace: Headrace) -> None:
    for table in ("t", "headrace_receipts", "headrace_runs", "headrace_contracts"):
        headrace.query(f"DROP TABLE IF EXISTS {table}")


# At random ------------------------------------------------------------------------------------------------------


@pytest.mark.either_store
@pytest.mark.parametrize("strategy", ["partitioned", "upsert", "locked"])
def test_workers_struck_at_random_lose_nothing_and_leave_nothing(
    store_url: str, headrace: Headrace, tmp_path: Path, scratch: Path, prefix: str, impatient: None, strategy: Any
) -> None:
    rows, keys = 100_000, 80_000
    events = write(tmp_path / "large.csv", rows, keys)
    options = {**LARGE, "to": store_url, "mode": "parallel", "strategy": strategy, "workers": 2, "partitions": 2}
    for round_ in range(max(1, scaled(102) // 6)):
        seed = random.randrange(10**6)
        hunter = Hunter(seed, scratch)
        with hunter.about():
            load_at_last(events, hunter, **options)
        about = f"round {round_}, seed {seed}: {hunter.did}"
        print(about)
        check_whole(headrace, rows, keys)
        assert wait_for_end(workers_below(os.getpid())) == set(), about
        assert left_behind(headrace, scratch, prefix) == {}, about
        forget(headrace)


def load_at_last(events: Path, hunter: Hunter, **options: Any) -> None:
    """Starved, libraries and databases have words of their own for it: the run fails, and is resumed."""
    for _ in range(5):
        before = len(hunter.did)
        try:
            package.load(events, **options)
        except package.HeadraceError as error:
            assert hunter.did[before:], f"it failed unprovoked: {error}"  # noqa: PT017 - any error, or none
            print(f"after {hunter.did}: {error}")
        else:
            return
    pytest.fail("a run fails once for each strike at the most")


def test_parents_killed_at_random_take_everything_along(
    postgres_url: str, tmp_path: Path, events: Path, scratch: Path, prefix: str
) -> None:
    headrace = Headrace(postgres_url, tmp_path)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for _ in range(scaled(20)):
        process = start(headrace, events, "--mode", "parallel", prefix=prefix)
        time.sleep(moments.uniform(0.5, 3))
        below = everything_below(process.pid)
        process.kill()
        process.communicate()
        assert wait_for_end(below) == set()
    finish(headrace, events, "--mode", "parallel")
    check_whole(headrace)
    # one that was killed before it had workers leaves its folder to the next
    assert left_behind(headrace, scratch, prefix) == {}


# At the wrong moment ------------------------------------------------------------------------------------------------


def start(
    headrace: Headrace, events: Path, *words: str, enrich: str = "take_time", prefix: str = "", seconds: float = 0.3
) -> subprocess.Popen[str]:
    """A load that takes `seconds` for each slice, in a process group of its own."""
    options = f"--table t --id key --type key=integer --chunk-rows 20 --workers 2 --enrich workers_support:{enrich}"
    command = headrace.command("load", events, *options.split(), "--output", "json", *words)
    if prefix:
        command = [sys.executable, workers_support.__file__, *command[3:]]
    environment = {"SEMAPHORES": prefix, "SECONDS": str(seconds), "PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.Popen(
        command,
        env={**headrace.environment(), **environment},
        cwd=headrace.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(headrace: Headrace, events: Path, *words: str) -> dict[str, Any]:
    """The same load once more, to its end."""
    process = start(headrace, events, *words, seconds=0)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    report: dict[str, Any] = json.loads(stdout)
    assert (report["read"], report["inserted"], report["duplicate_in_input"]) == (ROWS, KEYS, ROWS - KEYS)
    return report


def wait_for_receipts(headrace: Headrace, receipts: int) -> None:
    deadline = time.monotonic() + 120
    while (headrace.query_one_if_table("headrace_receipts", "SELECT count(*) FROM headrace_receipts") or 0) < receipts:
        assert time.monotonic() < deadline, "no slice was committed within two minutes"
        time.sleep(0.02)


def test_workers_that_are_all_stopped_go_with_their_parent(
    sqlite_url: str, tmp_path: Path, events: Path, scratch: Path, prefix: str
) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    process = start(headrace, events, "--mode", "parallel", prefix=prefix)
    wait_for_receipts(headrace, 2)
    below = everything_below(process.pid)
    stopped = workers_below(process.pid)
    assert len(stopped) == 2
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.communicate()
    assert wait_for_end(below) == set()
    assert left_behind(headrace, scratch, prefix) == {}
    finish(headrace, events, "--mode", "parallel")
    check_whole(headrace)


def test_a_worker_that_is_stopped_when_all_is_done_holds_up_nobody(
    postgres_url: str, tmp_path: Path, events: Path, scratch: Path, prefix: str, impatient: None
) -> None:
    headrace = Headrace(postgres_url, tmp_path)
    with package.Engine(to=postgres_url, mode="parallel", workers=2, **OPTIONS) as engine:
        engine.ingest(events)
        for pid in workers_below(os.getpid()):
            os.kill(pid, signal.SIGSTOP)
    check_whole(headrace)
    assert wait_for_end(workers_below(os.getpid())) == set()
    assert left_behind(headrace, scratch, prefix) == {}


@pytest.mark.parametrize("how_many", [1, 2])
def test_workers_that_are_stopped_before_they_show_any_life_hold_up_nobody(
    sqlite_url: str,
    tmp_path: Path,
    events: Path,
    scratch: Path,
    prefix: str,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    how_many: int,
) -> None:
    monkeypatch.setattr(crew, "STARTS_WITHIN", 2.5)
    headrace = Headrace(sqlite_url, tmp_path)

    def stop_the_first() -> None:
        while len(workers := workers_below(os.getpid())) < how_many:
            time.sleep(0.001)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)

    thread = threading.Thread(target=stop_the_first)
    thread.start()
    package.load(events, to=sqlite_url, mode="parallel", workers=2, **OPTIONS)
    thread.join()
    check_whole(headrace)
    assert wait_for_end(workers_below(os.getpid())) == set()
    assert left_behind(headrace, scratch, prefix) == {}


def test_workers_that_die_or_stop_between_two_batches_are_replaced(
    postgres_url: str, tmp_path: Path, scratch: Path, prefix: str, impatient: None
) -> None:
    headrace = Headrace(postgres_url, tmp_path)
    options = {**OPTIONS, "window": None}
    with package.Engine(to=postgres_url, mode="parallel", workers=2, **options) as engine:
        for number, strike in enumerate([signal.SIGKILL, signal.SIGSTOP, None]):
            rows = [{"key": key, "value": f"value {key}"} for key in range(100 * number, 100 * number + 200)]
            report = engine.ingest(rows)
            assert (report.read, report.inserted, report.fell_back) == (200, 100 if number else 200, None)
            for pid in workers_below(os.getpid()):
                if strike is not None:
                    os.kill(pid, strike)
    assert dict(headrace.query("SELECT key, value FROM t")) == {key: f"value {key}" for key in range(400)}
    assert left_behind(headrace, scratch, prefix) == {}


def test_the_fork_servers_end_is_a_failure_like_another(
    sqlite_url: str, tmp_path: Path, events: Path, scratch: Path, prefix: str, impatient: None
) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    with package.Engine(to=sqlite_url, mode="parallel", workers=2, **OPTIONS) as engine:
        engine.ingest([{"key": 0, "value": "value 0"}])
        workers = workers_below(os.getpid())
        os.kill(fork_server_of(os.getpid()), signal.SIGKILL)
        assert wait_for_end(workers) == set()
        report = engine.ingest(events)
    assert (report.read, report.inserted, report.fell_back) == (ROWS, KEYS - 1, None)
    assert headrace.count("t") == KEYS
    assert wait_for_end(workers_below(os.getpid())) == set()
    assert left_behind(headrace, scratch, prefix) == {}


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
    ("enrich", "said"),
    [("hang", "longer than a task may, twice"), ("end_the_process", "end_the_process may be what ends them")],
)
def test_a_task_that_always_hangs_or_kills_fails_the_run_and_not_the_coordinator(
    sqlite_url: str, tmp_path: Path, events: Path, scratch: Path, enrich: str, said: str
) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    process = start(headrace, events, "--mode", "parallel", "--task-timeout", "1s", enrich=enrich)
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
    assert report["chunks_skipped"] >= 1
    assert report["strategy"] == ("sequential" if first == "sequential" else "partitioned")
    assert headrace.query("SELECT run_id FROM headrace_runs") == before == [(report["run_id"],)]
    check_whole(headrace)
