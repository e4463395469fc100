"""Signals at random moments: SIGKILL, SIGINT, SIGTERM, two in a row. Run again, and the table is what it must be."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.evidence import Record, keep
from support.nursery import Ended, Nursery
from support.oracle import OPTIONS, WAYS, Oracle, first_wins, forget
from support.processes import left_behind
from support.program import Headrace, scaled

WHOLE = scaled(10) == 10
# of a hundred tries: a load in parallel mode costs several times one in sequential mode
SHARES = {"sequential": 70, "partitioned": 30, "locked": 30}
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass
class Loads:
    """Loads of one input into one database, in one way."""

    nursery: Nursery
    headrace: Headrace
    oracle: Oracle
    way: str
    scratch: Path
    seed: int

    def load(self, signals: Sequence[tuple[float, int]] = ()) -> Ended:
        words = ["load", str(self.oracle.path), *OPTIONS, "--chunk-rows", str(self.oracle.rows // 10), *WAYS[self.way]]
        environment = {"HEADRACE_DATABASE_URL": self.headrace.url, "TMPDIR": str(self.scratch)}
        ended = self.nursery.run(words, environment, self.headrace.folder, signals)
        assert not ended.orphans, ended
        return ended

    def seconds(self) -> float:
        """How long one takes undisturbed."""
        began = time.monotonic()
        ended = self.load()
        assert ended.code == 3, ended.stderr
        return time.monotonic() - began

    def judge(self, fault: str, tries: int, longest: float | None) -> None:
        """Keep what `tries` faults have left of the load that went through after them, and be content with nothing."""
        found = self.oracle.look(self.headrace, first_wins=first_wins(self.way))
        where = f"{self.headrace.url.partition(':')[0]}, {self.way}"
        keep(Record(fault, "at random", where, tries, *found, self.seed, self.oracle.rows, longest))
        assert not any(found)
        self.oracle.check_ledger(self.headrace)
        assert left_behind(self.headrace, self.scratch, "none") == {}


@pytest.fixture
def loads(nursery: Nursery, headrace: Headrace, tmp_path: Path, scratch: Path, seed: int, way: str, rows: int) -> Loads:
    return Loads(nursery, headrace, Oracle(tmp_path / "events.csv", rows, seed), way, scratch, seed)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("rows", [1_000_000 if WHOLE else 10_000])
@pytest.mark.parametrize(
    ("store_url", "way"),
    [("sqlite", "sequential"), ("sqlite", "partitioned"), ("postgresql", "sequential"), ("postgresql", "partitioned")],
    indirect=["store_url"],
)
def test_parents_killed_at_random_moments(loads: Loads, seed: int, way: str) -> None:
    chance = random.Random(seed)
    whole = loads.seconds()
    left = scaled(SHARES[way])
    while left:
        forget(loads.headrace)
        kills, lingered = 0, 0.0
        ended = loads.load([(chance.uniform(0.02, whole), signal.SIGKILL)])
        while ended.code == -signal.SIGKILL:
            kills, lingered = kills + 1, max(lingered, ended.lingered)
            more = kills < left
            ended = loads.load([(chance.uniform(0.02, whole), signal.SIGKILL)] if more else [])
        assert ended.code == 3, ended.stderr
        if kills:
            # in sequential mode there is nobody who could outlive his parent
            loads.judge("SIGKILL", kills, None if way == "sequential" else lingered)
        left -= kills


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("rows", [100_000 if WHOLE else 10_000])
@pytest.mark.parametrize(
    ("store_url", "way"), [("sqlite", "sequential"), ("postgresql", "locked")], indirect=["store_url"]
)
def test_stopped_at_random_moments(loads: Loads, seed: int, way: str) -> None:
    chance = random.Random(seed)
    whole = loads.seconds()
    kinds: list[list[signal.Signals]] = [[one] for one in STOPPED] + [[one, two] for one in STOPPED for two in STOPPED]
    for attempt in range(scaled(SHARES[way])):
        forget(loads.headrace)
        signals = kinds[attempt % len(kinds)]
        pauses = [chance.uniform(0.02, whole), *(chance.uniform(0, 0.2) for _ in signals[1:])]
        ended = loads.load(list(zip(pauses, signals, strict=True)))
        # before and after the handlers are in place a signal ends the process as it ends any other
        codes = {code for number in signals for code in (STOPPED[number], -number)}
        assert ended.code in codes | {3}, ended
        assert ended.took < 60, "this is a hang"  # five seconds are promised, and machines may be busy
        took = ended.took
        if ended.code != 3:
            ended = loads.load()
            assert ended.code == 3, ended.stderr
        loads.judge(" then ".join(number.name for number in signals), 1, took)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_an_sqlite_file_that_grows_from_kill_to_kill_stays_whole(
    nursery: Nursery, sqlite_url: str, tmp_path: Path, scratch: Path, seed: int
) -> None:
    """Each cycle loads a new part into the same file and is killed at random; then the file is checked."""
    chance = random.Random(seed)
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    expected: dict[int, str] = {}
    environment = {"HEADRACE_DATABASE_URL": sqlite_url, "TMPDIR": str(scratch)}
    options = ["--table", "t", "--id", "key", "--type", "key=integer", "--chunk-rows", "200", "--output", "json"]
    killed, whole, cycles = 0, 0.5, scaled(500)
    for cycle in range(cycles):
        part = {key: f"value {key} of cycle {cycle}" for key in range(cycle * 2000, cycle * 2000 + 2000)}
        events = tmp_path / "events.csv"
        events.write_text("\n".join(["key,value", *(f"{key},{value}" for key, value in part.items())]) + "\n")
        words = ["load", str(events), *options]
        ended = nursery.run(words, environment, tmp_path, [(chance.uniform(0.02, whole), signal.SIGKILL)])
        killed += ended.code == -signal.SIGKILL
        if path.exists():
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        began = time.monotonic()
        ended = nursery.run(words, environment, tmp_path)
        whole = time.monotonic() - began
        assert ended.code == 0, ended.stderr
        expected |= part
        if killed == 50 or cycle == cycles - 1:
            judge_growing(path, expected, killed, seed)
            killed = 0


def judge_growing(path: Path, expected: dict[int, str], killed: int, seed: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT key, value FROM t").fetchall()
    lost = len(expected.items() - set(rows))
    unexpected = len(set(rows) - expected.items())
    duplicated = len(rows) - len({key for key, _ in rows})
    where = "sqlite, sequential"
    keep(Record("SIGKILL, one growing file", "at random", where, killed, lost, duplicated, unexpected, seed, 2000))
    assert (lost, duplicated, unexpected) == (0, 0, 0)
