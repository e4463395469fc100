"""Workers that are killed, stopped, starved or hang, and parents that are: never a hang, never a loss, nothing left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.enrichments import InTrouble
from support.program import Headrace, scaled

import headrace as package
from headrace.execution import crew

WITHIN = 60  # seconds; two are promised, and machines may be busy
KEYS = 300
ROWS = 400
OPTIONS: Any = {"table": "t", "id": ["key"], "types": {"key": "integer"}, "chunk_rows": 20}


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text("\n".join(["key,value", *(f"{n % KEYS},value {n}" for n in range(ROWS))]) + "\n")
    return path


def left_in(scratch: Path) -> list[str]:
    return sorted(path.name for path in scratch.glob("headrace-*"))


def workers_of(parent: int) -> set[int]:
    """All processes below `parent`, the fork server's children too."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if stat.rpartition(")")[2].split()[0] != "Z":
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    below = {parent}
    while more := {pid for pid, above in parents.items() if above in below} - below:
        below |= more
    return below - {parent}


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in state_of(pid)}


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def idle_or_locked(headrace: Headrace) -> int:
    if headrace.url.startswith("sqlite"):
        return 0
    deadline = time.monotonic() + WITHIN  # the server notices a client's death when it next speaks to it
    while True:
        (found,) = headrace.query(
            "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') + "
            "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%')"
        )
        if not found[0] or time.monotonic() > deadline:
            return int(found[0])
        time.sleep(0.1)


def check_whole(headrace: Headrace, report: package.Report) -> None:
    assert (report.read, report.inserted, report.duplicate_in_input) == (ROWS, KEYS, ROWS - KEYS)
    rows = headrace.query("SELECT key, value FROM t ORDER BY key")
    assert rows == [(key, f"value {key}") for key in range(KEYS)]


@pytest.mark.parametrize("strategy", ["partitioned", "upsert", "locked"])
def test_workers_in_trouble_lose_nothing_and_leave_nothing(
    store_url: str,
    headrace: Headrace,
    events: Path,
    scratch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: Any,
) -> None:
    monkeypatch.setattr(crew, "STALLED_AFTER", 3.0)
    monkeypatch.setattr("headrace.execution.pool.LOOK_EVERY", 0.2)
    trouble = tmp_path / "trouble"
    trouble.mkdir()
    seed = random.randrange(10**6)
    kinds = random.Random(seed)
    for round_ in range(scaled(20, least=2)):
        for number in range(kinds.randint(1, 3)):
            (trouble / f"{number}-{kinds.choice(['kill', 'stop', 'starve'])}").touch()
        report = package.load(
            events,
            to=store_url,
            mode="parallel",
            strategy=strategy,
            workers=2,
            partitions=4,
            enrich=InTrouble(trouble),
            **OPTIONS,
        )
        assert not list(trouble.iterdir()), f"seed {seed}, round {round_}: not every trouble was met"
        check_whole(headrace, report)
        assert headrace.query("SELECT count(*) FROM t WHERE double = 2 * key") == [(KEYS,)]
        assert left_in(scratch) == [], f"seed {seed}"
        assert idle_or_locked(headrace) == 0, f"seed {seed}"
        for table in ("t", "headrace_receipts", "headrace_runs", "headrace_contracts"):
            headrace.query(f"DROP TABLE {table}")


def command(headrace: Headrace, events: Path, *more: str) -> list[str]:
    options = ["--table", "t", "--id", "key", "--type", "key=integer", "--chunk-rows", "20", "--output", "json"]
    return headrace.command("load", events, *options, *more)


def start(headrace: Headrace, events: Path, *more: str) -> subprocess.Popen[str]:
    """A load in parallel whose workers stay at it until it is struck, also where the test is kept waiting."""
    slow = ["--mode", "parallel", "--workers", "2", "--enrich", "workers_slow:take_your_time", *more]
    (headrace.folder / "workers_slow.py").write_text(
        "import os, time\n\n"
        "def take_your_time(events):\n    time.sleep(float(os.environ['SECONDS']))\n    return events\n"
    )
    return subprocess.Popen(
        command(headrace, events, *slow),
        env={**headrace.environment(), "SECONDS": "1"},
        cwd=headrace.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_receipts(headrace: Headrace, receipts: int) -> None:
    deadline = time.monotonic() + 120
    while (headrace.query_one_if_table("headrace_receipts", "SELECT count(*) FROM headrace_receipts") or 0) < receipts:
        assert time.monotonic() < deadline, "no slice was committed within two minutes"
        time.sleep(0.02)


def wait_for_end(pids: set[int]) -> set[int]:
    """Those that are still alive after a while."""
    deadline = time.monotonic() + WITHIN
    while (left := alive(pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.mark.parametrize("stopped", [False, True])
def test_workers_go_when_their_parent_is_killed(
    store_url: str, headrace: Headrace, events: Path, scratch: Path, stopped: bool
) -> None:
    process = start(headrace, events)
    wait_for_receipts(headrace, 2)
    workers = workers_of(process.pid)
    assert len(workers) >= 3  # two workers, and the fork server
    if stopped:
        # the youngest is a worker
        os.kill(max(workers), signal.SIGSTOP)
    process.kill()
    process.communicate()
    assert wait_for_end(workers) == set()
    assert left_in(scratch) == []
    assert idle_or_locked(headrace) == 0
    enrich = "support.enrichments:add_pid"  # another function is another job: what is in is found in the store
    again = package.load(events, to=store_url, mode="sequential", enrich=enrich, **OPTIONS)
    assert again.inserted + again.duplicate_in_store == KEYS == headrace.count("t")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_parallel_load_so_that_it_can_be_resumed(
    headrace: Headrace, events: Path, scratch: Path, number: signal.Signals, code: int
) -> None:
    process = start(headrace, events, "--strategy", "upsert")
    wait_for_receipts(headrace, 2)
    workers = workers_of(process.pid)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "run the same command again to resume" in stderr
    assert wait_for_end(workers) == set()
    assert left_in(scratch) == []
    done = subprocess.run(
        command(headrace, events, "--mode", "sequential", "--enrich", "workers_slow:take_your_time"),
        env={**headrace.environment(), "SECONDS": "0"},
        cwd=headrace.folder,
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert b'"resumed": true' in done.stdout
    assert headrace.count("t") == KEYS
    assert len(headrace.query("SELECT run_id FROM headrace_runs")) == 1


@pytest.mark.parametrize(("first", "second"), [("parallel", "sequential"), ("sequential", "parallel")])
def test_a_run_is_resumed_in_the_other_mode(
    store_url: str, headrace: Headrace, events: Path, monkeypatch: pytest.MonkeyPatch, first: Any, second: Any
) -> None:
    with pytest.raises(package.WorkerError):
        package.load(events, to=store_url, mode=first, workers=1, enrich="support.enrichments:refuse_sevens", **OPTIONS)
    monkeypatch.setattr("support.enrichments.refuse_sevens", lambda batch: batch)
    before = headrace.query("SELECT run_id FROM headrace_runs")
    report = package.load(
        events,
        to=store_url,
        mode=second,
        workers=1,
        enrich="support.enrichments:refuse_sevens",
        on_error="reject",
        **OPTIONS,
    )
    assert headrace.query("SELECT run_id FROM headrace_runs") == before
    assert report.read == ROWS
    assert report.strategy == ("sequential" if first == "sequential" else "partitioned")
    refused = {row % KEYS for (row,) in headrace.query("SELECT row_number FROM headrace_rejects")}
    assert report.inserted + len(refused) == KEYS


def test_a_task_that_hangs_twice_fails_the_run_resumably(
    store_url: str, headrace: Headrace, events: Path, scratch: Path
) -> None:
    with pytest.raises(package.WorkerError, match="exceeded the time limit twice") as caught:
        package.load(
            events,
            to=store_url,
            mode="parallel",
            workers=2,
            task_timeout=1.5,
            enrich="support.enrichments:sleep_on_sevens",
            **OPTIONS,
        )
    assert "commit partition" in str(caught.value)
    assert headrace.query("SELECT status FROM headrace_runs") == [("failed",)]
    assert left_in(scratch) == []
    assert idle_or_locked(headrace) == 0
    # in this process the function does not hang: the same job goes on where it stopped
    enrich = "support.enrichments:sleep_on_sevens"
    check_whole(headrace, package.load(events, to=store_url, mode="sequential", enrich=enrich, **OPTIONS))


def test_workers_that_always_die_fail_a_run_with_user_code(store_url: str, headrace: Headrace, events: Path) -> None:
    with pytest.raises(package.WorkerError, match="workers failed 5 times in a row") as caught:
        package.load(
            events, to=store_url, mode="parallel", workers=2, enrich="support.enrichments:always_die", **OPTIONS
        )
    assert "always_die may be what ends them" in str(caught.value)
    # inline it does no harm, and the run goes on where it stopped
    report = package.load(events, to=store_url, mode="sequential", enrich="support.enrichments:always_die", **OPTIONS)
    check_whole(headrace, report)


def test_workers_that_always_die_leave_the_rest_to_the_coordinator(
    store_url: str, headrace: Headrace, events: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the user's kills these workers: a hunter does, as fast as they come."""
    started = crew.ProcessCrew.start
    over = threading.Event()

    def hunted(self: crew.ProcessCrew) -> Any:
        pool = started(self)

        def hunt() -> None:
            while not over.is_set():
                for pulse in self._terms.folder.glob("pulse-*"):
                    try:
                        os.kill(int(pulse.name.removeprefix("pulse-")), signal.SIGKILL)
                    except ProcessLookupError:
                        return
                time.sleep(0.001)

        threading.Thread(target=hunt, daemon=True).start()
        return pool

    monkeypatch.setattr(crew.ProcessCrew, "start", hunted)
    try:
        report = package.load(events, to=store_url, mode="parallel", workers=2, **OPTIONS)
    finally:
        over.set()
    check_whole(headrace, report)
    assert report.fell_back is not None
    assert "5 times in a row" in report.fell_back
    assert "does the rest sequentially" in caplog.text


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_the_users_exception_comes_back_with_its_traceback_and_addresses(
    sqlite_url: str, events: Path, mode: Any
) -> None:
    with pytest.raises(package.WorkerError) as caught:
        package.load(events, to=sqlite_url, mode=mode, workers=2, enrich="support.enrichments:refuse_sevens", **OPTIONS)
    assert "support.enrichments:refuse_sevens raised ValueError: seven is not to my taste" in str(caught.value)
    # ranges of a text are cut by the mean length of a row, chunks of a whole file by the rows
    assert f"events.csv, rows 0-{19 if mode == 'sequential' else 9}" in str(caught.value)
    notes = "\n".join(caught.value.__notes__)
    assert "in refuse_sevens" in notes
    assert 'raise ValueError(f"seven is not to my taste: {key}")' in notes


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_exactly_the_rows_that_fail_are_kept_as_rejects(
    store_url: str, headrace: Headrace, events: Path, mode: Any
) -> None:
    report = package.load(
        events,
        to=store_url,
        mode=mode,
        workers=2,
        enrich="support.enrichments:refuse_sevens",
        on_error="reject",
        **OPTIONS,
    )
    # each row of a refused event was tried, and is kept
    sevens = [row for row in range(ROWS) if row % KEYS % 10 == 7]
    assert (report.inserted, report.rejected) == (KEYS - KEYS // 10, len(sevens))
    kept = headrace.query("SELECT source, row_number, reason FROM headrace_rejects ORDER BY row_number")
    assert [row for _, row, _ in kept] == sevens
    assert {Path(source).name for source, _, _ in kept} == {"events.csv"}
    assert all("seven is not to my taste" in reason for _, _, reason in kept)
    keys = [key for (key,) in headrace.query("SELECT key FROM t ORDER BY key")]
    assert keys == [key for key in range(KEYS) if key % 10 != 7]


def test_a_function_that_cannot_be_sent_is_refused_before_anything_is_changed(sqlite_url: str, events: Path) -> None:
    with pytest.raises(package.ConfigurationError, match="cannot be sent to the workers"):
        package.load(events, to=sqlite_url, mode="parallel", enrich=lambda batch: batch, **OPTIONS)
    assert Headrace(sqlite_url, events.parent).query_one_if_table("t", "SELECT count(*) FROM t") is None
