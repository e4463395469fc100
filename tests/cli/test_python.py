"""`headrace.load` from Python: every kind of input, and how often the store is asked for existing IDs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from support.program import Headrace

import headrace
from headrace.loading.run import ingest
from headrace.options.load import LoadOptions
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.storage import open_store

ROWS: list[dict[str, Any]] = [{"n": n, "v": f"value {n}"} for n in range(1000)]


def generated() -> Iterator[dict[str, Any]]:
    yield from ROWS


@pytest.mark.parametrize(
    "make",
    [
        lambda: pa.Table.from_pylist(ROWS),
        lambda: pa.Table.from_pylist(ROWS).to_reader(max_chunksize=77),
        lambda: pd.DataFrame(ROWS),
        lambda: pl.DataFrame(ROWS),
        lambda: ROWS,
        generated,
    ],
    ids=["table", "reader", "pandas", "polars", "list", "generator"],
)
def test_frames_and_rows_give_the_same_events(headrace_url: str, make: Any) -> None:
    first = headrace.load(pa.Table.from_pylist(ROWS), to=headrace_url, table="t", id=["n"])
    assert (first.inserted, first.rejected) == (1000, 0)
    again = headrace.load(make(), to=headrace_url, table="t")
    assert (again.read, again.inserted, again.duplicate_in_store) == (1000, 0, 1000)


@pytest.fixture
def headrace_url(sqlite_url: str) -> str:
    return sqlite_url


def test_an_error_says_what_where_and_what_to_do(sqlite_url: str) -> None:
    with pytest.raises(headrace.ConfigurationError, match="table="):
        headrace.load(ROWS, to=sqlite_url)


class Asked:
    """Counts the statements that fetch existing IDs."""

    def __init__(self) -> None:
        self.snapshots = 0

    def __call__(self, statement: str) -> None:
        plain = " ".join(statement.replace('"', "").split())
        self.snapshots += (
            "event_id" in plain
            and "FROM t" in plain
            and plain.startswith(("SELECT", "WITH"))
            and "headrace_receipt" not in plain
        )


def load(url: str, folder: Path, days: range, **changes: Any) -> tuple[headrace.Report, int]:
    """Load 100 events on each of these days of 2020 in chunks of 200, and count the snapshot queries."""
    path = folder / f"{days.start}-{days.stop}.csv"
    rows = (
        f"{day * 100 + n},{pd.Timestamp('2020-01-01') + pd.Timedelta(days=day):%Y-%m-%d}T00:00:00Z"
        for day in days
        for n in range(100)
    )
    path.write_text("n,at\n" + "\n".join(rows) + "\n")
    options = LoadOptions(table="t", identity=("n", "at"), time="at", read=ReadOptions(chunk_rows=200))
    options = replace(options, **changes)
    asked = Asked()
    with open_store(url, on_statement=asked) as store:
        store.ledger.prepare()
        report = ingest(store, open_inputs([path], options.read, folder), "t", options)
    return report, asked.snapshots


def test_many_chunks_one_snapshot_query_and_one_for_each_late_segment(store_url: str, tmp_path: Path) -> None:
    fresh, asked = load(store_url, tmp_path, range(60))
    assert (fresh.inserted, fresh.chunks, asked) == (6000, 30, 0), "a table just made has nothing to ask for"
    again, asked = load(store_url, tmp_path, range(60))
    assert (again.duplicate_in_store, again.chunks) == (6000, 30)
    assert 2 <= asked <= 4, "the window, and the two or three 30-day segments that 60 days touch"
    every, asked = load(store_url, tmp_path, range(60), window=None)
    assert (every.duplicate_in_store, every.chunks, asked) == (6000, 30, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": ("n",), "time": "at"},
        {"identity": ("n",), "time": None},
        {"identity": ("n",), "time": None, "snapshot_budget": 10},
        {"identity": ("n", "at"), "time": "at", "hash": "blake2b"},
    ],
    ids=["layout hash, events older than the window", "no time", "over the budget", "blake2b"],
)
def test_exactly_once_whatever_the_snapshot_can_hold(
    store_url: str, tmp_path: Path, changes: dict[str, Any], headrace: Headrace
) -> None:
    assert load(store_url, tmp_path, range(10), **changes)[0].inserted == 1000
    overlap, _ = load(store_url, tmp_path, range(5, 15), **changes)
    assert (overlap.inserted, overlap.duplicate_in_store) == (500, 500)
    assert headrace.count("t") == 1500
