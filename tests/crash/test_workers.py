"""Workers struck at random from outside, stopped at the wrong moment, or all at once: what others cannot see coming.

`test_worker_failure.py` has the troubles that a task brings upon its own worker; here nobody cooperates. Every test has
its own folder for temporary files and its own name for semaphores, and looks at what is left of them.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from crash.loads import KEYS, LARGE, OPTIONS, ROWS, check_whole, finish, forget, start, wait_for_receipts, write
from support.processes import (
    Hunter,
    everything_below,
    fork_server_of,
    left_behind,
    wait_for_end,
    workers_below,
)
from support.program import Headrace, scaled

import headrace as package
from headrace.execution import crew


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return write(tmp_path / "events.csv", ROWS, KEYS)


# At random ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
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
