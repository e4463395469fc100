"""The window's edge: whatever the event's age and the client's clock, each event is in the table once."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.evidence import Record, keep
from support.oracle import WAYS
from support.program import Headrace, scaled

import headrace as package
from headrace.loading.known_ids import KnownIds
from headrace.partitioning.contract import Contract
from headrace.partitioning.dedup import SortedIds
from headrace.partitioning.identity import event_ids
from headrace.storage import open_store

TESTS = Path(__file__).resolve().parents[1]
DAY = timedelta(days=1)
MICRO = timedelta(microseconds=1)
WINDOW = 30 * DAY
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
IDENTITY = {"time": ["n", "at"], "hash": ["n"]}


def ages() -> list[timedelta]:
    """How long before now: around the edge by microseconds and milliseconds, far behind it, and in the future."""
    near = [step * unit for unit in (MICRO, 1000 * MICRO) for step in (-2, -1, 0, 1, 2)]
    # base is 456 µs into its millisecond: an event 456 µs further back stands exactly where the window is rounded to
    edges = [WINDOW + step for step in [*near, 456 * MICRO]] + [2 * WINDOW + step for step in near]
    return [*edges, 400 * DAY, 70 * DAY, 69 * DAY, 10 * DAY, DAY, timedelta(), -DAY, -40 * DAY]


def events(now: datetime) -> list[dict[str, object]]:
    return [{"n": n, "at": (now - age).isoformat()} for n, age in enumerate(ages())]


# by default the layout that cannot fetch late events, in one way; all in the whole suite
@pytest.mark.slow
@pytest.mark.parametrize("way", list(WAYS)[: scaled(4)])
@pytest.mark.parametrize("layout", ["hash", "time"][: scaled(2)])
def test_no_clock_of_the_client_makes_a_duplicate(store_url: str, headrace: Headrace, layout: str, way: str) -> None:
    now = datetime.now(UTC)
    rows = events(now)
    (headrace.folder / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1::2]))
    (headrace.folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--table", "t", "--id", ",".join(IDENTITY[layout]), "--time", "at", "--chunk-rows", "5"]
    words += ["--type", "at=timestamp"]
    words += WAYS[way]
    assert headrace.load("odd.jsonl", *words)["inserted"] == len(rows) // 2
    inserted = []
    for days in (-40, 40):
        done = subprocess.run(
            [
                sys.executable,
                str(TESTS / "support" / "shifted_cli.py"),
                str(days),
                "load",
                "all.jsonl",
                *words,
                "--output",
                "json",
            ],
            env=headrace.environment(),
            cwd=headrace.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        inserted.append(json.loads(done.stdout)["inserted"])
    there = [n for (n,) in headrace.query("SELECT n FROM t ORDER BY n")]
    wanted = set(range(len(rows)))
    found = (len(wanted - set(there)), len(there) - len(set(there)), len(set(there) - wanted))
    where = f"{store_url.partition(':')[0]}, {way}, layout {layout}"
    keep(Record("client's clock 40 days off", "at the window's edge", where, 2 * len(rows), *found, 0, len(rows)))
    assert inserted == [len(rows) - len(rows) // 2, 0]
    assert there == sorted(wanted)
    if store_url.startswith("postgresql"):  # a window counted by the client's clock would be 40 days off
        wrong = "SELECT count(*) FROM headrace_runs WHERE abs(extract(epoch FROM now() - started_at)) > 86400"
        assert headrace.query(wrong) == [(0,)]


@pytest.mark.parametrize("layout", ["time", "hash"])
def test_a_snapshot_that_vouches_for_an_event_is_right(store_url: str, tmp_path: Path, layout: str) -> None:
    """The fast path is taken on the snapshot's word: that must hold at each edge, for every clock, without the key."""
    base = datetime(2024, 2, 29, 12, 0, 0, 123_456, tzinfo=UTC)
    rows = [{"n": n, "at": base - age} for n, age in enumerate(ages())]
    package.load(rows[::2], to=store_url, table="t", id=IDENTITY[layout], time="at")
    contract = Contract(
        tuple((name, "integer" if name == "n" else "timestamp") for name in IDENTITY[layout]), time="at"
    )
    columns = {"n": pa.array([row["n"] for row in rows]), "at": pa.array([row["at"] for row in rows])}
    times = np.array([(base - age - EPOCH) // MICRO for age in ages()], np.int64)
    ids = event_ids(contract, [columns[name] for name in IDENTITY[layout]], columns["at"], "default", None)
    present = np.arange(len(rows)) % 2 == 0
    late_known, tried = [], np.zeros(4, int)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sampled_from([-40, -1, 0, 1, 40]), st.integers(-2000, 2000), st.lists(st.integers(0, len(rows) - 1)))
    def vouches(days: int, micros: int, chosen: list[int]) -> None:
        rows_of_chunk = np.array(sorted(set(chosen)), np.int64)
        known = KnownIds(store, "t", contract, folder=tmp_path, window=WINDOW, budget=10**6, empty=False)
        try:
            part, part_times = ids[rows_of_chunk], times[rows_of_chunk]
            ordered = SortedIds.of(part)
            first = known.meet(ordered)
            assert first.all()
            known.fetch(part_times, base + days * DAY + micros * MICRO)
            verdict = known.judge(ordered, part_times, first)
        finally:
            known.close()
        new, there = verdict.new, present[rows_of_chunk]
        vouched_for = int((new & there).sum()) if verdict.certain else 0
        tried[:] += [len(new), int((~new & ~there).sum()), vouched_for, int(layout == "time" and not verdict.certain)]
        assert not (~new & ~there).any(), "an event that is not in the store was called a duplicate"
        if verdict.certain:
            assert (new == ~there).all(), "the snapshot vouched for an event that exists"
        if layout == "time":  # late events are a range of the primary key: the snapshot grows by it
            assert verdict.certain
        late_known.append(verdict.certain)

    try:
        with open_store(store_url) as store:
            vouches()
    finally:
        where = f"{store_url.partition(':')[0]}, snapshot, layout {layout}"
        tries, *found = map(int, tried)
        keep(Record("clock 40 days off, to the µs", "at the window's edge", where, tries, *found, 0, len(rows)))
    assert any(late_known)
