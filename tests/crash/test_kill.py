"""SIGKILL, SIGINT and SIGTERM at random moments of a real load: run again, done."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.program import Headrace, scaled

ROWS = 60_000
DISTINCT = 50_000
OPTIONS = ("--table", "t", "--id", "key,at", "--time", "at", "--chunk-rows", "2000")
HELD = ("--enrich", "support.user_functions:wait_at_ten_thousand")


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    # 50,000 is no multiple of 24, so the hour must follow the key for the repeats to be the same events
    lines = (f"{k},2020-01-01T{k % 24:02}:00:00Z,value {n}" for n in range(ROWS) for k in [n % DISTINCT])
    path.write_text("key,at,value\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A load with HELD waits within its chunk of key 10,000 until this file exists: no signal comes too late."""
    path = tmp_path / "go"
    monkeypatch.setenv("HEADRACE_TEST_GO", str(path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    return path


def start(headrace: Headrace, events: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        headrace.command("load", events, *OPTIONS, *options, "--output", "json"),
        env=headrace.environment(),
        cwd=headrace.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_whole(headrace: Headrace, events: Path, report: dict[str, int]) -> None:
    outcome = {name: report[name] for name in ("read", "inserted", "duplicate_in_input", "duplicate_in_store")}
    assert outcome == {"read": ROWS, "inserted": DISTINCT, "duplicate_in_input": 10_000, "duplicate_in_store": 0}
    assert headrace.count("t") == DISTINCT
    headrace.run("verify", events, "--table", "t")


def test_killed_anywhere_run_again_done(headrace: Headrace, events: Path) -> None:
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    for attempt in range(scaled(20)):
        process = start(headrace, events)
        # the later attempts die later: early ones in start-up, late ones among the commits
        time.sleep(moments.uniform(0.3, 2.0 + attempt))
        process.kill()
        process.communicate()
    finished = headrace.query_one_if_table("headrace_runs", "SELECT count(*) FROM headrace_runs WHERE status = 'done'")
    report = headrace.load(events, *OPTIONS)
    if finished:  # an attempt was quick enough to finish: this load was a second one
        assert report["inserted"] == 0
    else:
        check_whole(headrace, events, report)
    assert headrace.count("t") == DISTINCT, f"seed {seed}"
    headrace.run("verify", events, "--table", "t")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_chunk_in_hand_and_can_be_resumed(
    headrace: Headrace, events: Path, go: Path, number: signal.Signals, code: int
) -> None:
    process = start(headrace, events, *HELD)
    wait_for_receipts(headrace, 3)
    process.send_signal(number)
    assert "stopping after the current chunk" in said(process)
    assert process.poll() is None
    go.touch()
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "resume" in stderr
    assert not stdout
    assert headrace.query("SELECT status FROM headrace_runs") == [("interrupted",)]
    report = headrace.load(events, *OPTIONS, *HELD)
    assert report["resumed"]
    assert report["chunks_skipped"] >= 3
    check_whole(headrace, events, report)


def test_a_second_signal_stops_at_once(headrace: Headrace, events: Path, go: Path) -> None:
    process = start(headrace, events, *HELD)
    wait_for_receipts(headrace, 1)
    process.send_signal(signal.SIGINT)
    said(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert headrace.query("SELECT count(*) FROM t WHERE key = 10000") == [(0,)], "the chunk in hand was not finished"
    go.touch()
    headrace.load(events, *OPTIONS, *HELD)
    assert headrace.count("t") == DISTINCT
    headrace.run("verify", events, "--table", "t")


def test_a_resumed_run_is_the_same_run(headrace: Headrace, events: Path, go: Path) -> None:
    process = start(headrace, events, *HELD)
    wait_for_receipts(headrace, 2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    go.touch()
    report = headrace.load(events, *OPTIONS, *HELD)
    runs = json.loads(headrace.run("runs", "list", "--output", "json").stdout)["runs"]
    assert [run["run_id"] for run in runs] == [report["run_id"]]
    assert headrace.query("SELECT sum(inserted) FROM headrace_receipts")[0][0] == DISTINCT


def said(process: subprocess.Popen[str]) -> str:
    """The next line of standard error."""
    assert process.stderr is not None
    return process.stderr.readline()


def wait_for_receipts(headrace: Headrace, receipts: int) -> None:
    deadline = time.monotonic() + 120
    while (headrace.query_one_if_table("headrace_receipts", "SELECT count(*) FROM headrace_receipts") or 0) < receipts:
        assert time.monotonic() < deadline, "no chunk was committed within two minutes"
        time.sleep(0.01)
