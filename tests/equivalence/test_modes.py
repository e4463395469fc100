"""Sequential and parallel give the same table: promise 4, for every strategy, over generated and over real input.

`partitioned` is compared in every column but provenance, `upsert` and `locked` in their IDs; books and rejects always.
A plain dict says what the first occurrence of each event was. The seeds that hypothesis prints reproduce a failure.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from support.needs import real_data
from support.program import Headrace

import headrace as package
from headrace.events.alert_rule import AlertRule
from headrace.loading.run import ingest
from headrace.options.choices import StrategyName
from headrace.options.load import LoadOptions, ParallelOptions
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.report import Report
from headrace.storage import open_store

EXAMPLES = 500 if os.environ.get("HEADRACE_TEST_SCALE") == "full" else 6
KEYS = st.integers(0, 60).map(str) | st.sampled_from(["oops", "", "1.5", "7.0"])
MOMENTS = st.sampled_from(["2024-05-01T00:00:00Z", "2024-05-01T00:00:00.0005Z", "1969-12-31T23:59:59Z", "soon", ""])
ROWS = st.lists(st.tuples(KEYS, MOMENTS, st.text('ab\u00e9,"\n', max_size=3)), min_size=1, max_size=80)
TYPES = {"key": "integer", "at": "timestamp", "value": "string"}
RULES = (
    AlertRule("odd", where="key % 2 = 1"),
    AlertRule("a value", where="value LIKE 'a%'"),
    AlertRule("long", function="support.alert_rules:is_long"),
)
BOOKS = ("read", "inserted", "duplicate_in_input", "duplicate_in_store", "rejected")


@dataclass(frozen=True)
class Way:
    """One way of carrying a load out."""

    strategy: StrategyName
    workers: int
    partitions: int
    chunk_rows: int
    memory: int = 512 << 20


WAYS = st.builds(
    Way,
    strategy=st.sampled_from(["partitioned", "partitioned", "upsert", "locked"]),
    workers=st.sampled_from([1, 2, 4, 7]),
    partitions=st.sampled_from([1, 2, 16, 64]),
    chunk_rows=st.sampled_from([1, 3, 7, 1000]),
    memory=st.sampled_from([16 << 20, 512 << 20]),
)


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    """Two real worker processes for all examples: starting them takes longer than a load."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
        yield pool


tables = count()


def load(url: str, table: str, files: Sequence[Path], way: Way | None, executor: Executor) -> Report:
    options = LoadOptions(
        to=url,
        table=table,
        identity=("key", "at"),
        time="at",
        mode="sequential" if way is None else "parallel",
        alerts=RULES,
        read=ReadOptions(types=TYPES, chunk_rows=5 if way is None else way.chunk_rows),  # type: ignore[arg-type]
    )
    if way is not None:
        how = ParallelOptions(way.strategy, way.workers, way.partitions, way.memory, executor=executor)
        options = replace(options, parallel=how)
    with open_store(url) as store:
        store.ledger.prepare()
        return ingest(store, open_inputs([str(file) for file in files], options.read, None), table, options)


def write(folder: Path, name: str, rows: Sequence[tuple[str, ...]]) -> Path:
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerows([("key", "at", "value"), *rows])
    return path


def kept(headrace: Headrace, table: str) -> list[tuple[Any, ...]]:
    columns = "source, row_number, line_number, column_name, reason, raw, record"
    return headrace.query(f"SELECT {columns} FROM headrace_rejects WHERE table_name = '{table}' ORDER BY 1, 2, 3, 4")  # noqa: S608


def events(
    headrace: Headrace, table: str, columns: str = "event_id, key, at, value, provider"
) -> list[tuple[Any, ...]]:
    return headrace.query(f"SELECT {columns} FROM {table} ORDER BY event_id")  # noqa: S608 - our own table


def take_alerts(headrace: Headrace) -> list[tuple[Any, ...]]:
    """What is in the outbox, which is emptied: the same events raise the same alerts in the next table."""
    found = headrace.query("SELECT alert_key, event_id, rule, provider, payload, state FROM headrace_alerts ORDER BY 1")
    headrace.query("DELETE FROM headrace_alerts")
    return found


def expected_alerts(rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, int, str]]:
    """What the rules must have raised, told without Headrace."""
    raised = []
    for (key, at), value in first_occurrences(rows).items():
        rules = {"odd": key % 2 == 1, "a value": value.startswith("a"), "long": len(value) > 2}
        raised += [(rule, key, at) for rule, holds in rules.items() if holds]
    return sorted(raised)


def told(alerts: Sequence[tuple[Any, ...]]) -> list[tuple[str, int, str]]:
    """Alerts as rule, key and time of their events, but for events with a null key, which the oracle leaves out."""
    events = [(rule, json.loads(payload)) for _, _, rule, _, payload, _ in alerts]
    return sorted((rule, one["key"], moment(one["at"])) for rule, one in events if "key" in one and "at" in one)


def moment(text: str) -> str:
    """A time as the input writes it."""
    return text.replace("000Z", "Z").replace("00.000500Z", "00.0005Z").replace(".000Z", "Z")


def books(report: Report) -> dict[str, int]:
    return {name: getattr(report, name) for name in BOOKS}


def first_occurrences(rows: Sequence[tuple[str, str, str]]) -> dict[tuple[int, str], str]:
    """What the table must hold, told without Headrace: the first row of each event."""
    found: dict[tuple[int, str], str] = {}
    for key, at, value in rows:
        if key in ("oops", "1.5", "") or at in ("soon", ""):
            continue
        found.setdefault((int(float(key)), at), value)
    return found


def test_sequential_and_parallel_give_the_same_table(
    store_url: str, tmp_path: Path, headrace: Headrace, executor: Executor
) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(first=ROWS, second=ROWS, ways=st.lists(WAYS, min_size=1, max_size=3))
    def check(first: list[tuple[str, str, str]], second: list[tuple[str, str, str]], ways: list[Way]) -> None:
        number = next(tables)
        early = write(tmp_path, f"early{number}", first)
        both = [write(tmp_path, f"a{number}", second), early]
        sequential = f"s{number}"
        load(store_url, sequential, [early], None, executor)
        expected = load(store_url, sequential, both, None, executor)
        # a null key is an event too; the oracle leaves it out
        alerts = take_alerts(headrace)
        assert told(alerts) == expected_alerts([*first, *second])
        plain = [row for row in events(headrace, sequential) if row[1] is not None]
        assert sorted(row[3] or "" for row in plain) == sorted(first_occurrences([*first, *second]).values())
        for which, way in enumerate(ways):
            note(f"{way}")
            table = f"p{number}_{which}"
            load(store_url, table, [early], way, executor)
            report = load(store_url, table, both, way, executor)
            assert books(report) == books(expected)
            # alone on the table, `upsert` and `locked` too write the first occurrence: the coordinator drops the rest
            assert events(headrace, table) == events(headrace, sequential)
            assert kept(headrace, table) == kept(headrace, sequential)
            assert take_alerts(headrace) == alerts

    check()


@pytest.mark.parametrize("strategy", ["partitioned", "upsert", "locked"])
def test_each_strategy_loads_each_event_once(
    store_url: str, tmp_path: Path, headrace: Headrace, executor: Executor, strategy: StrategyName
) -> None:
    rows = [(str(number % 70), "2024-05-01T00:00:00Z", f"value {number}") for number in range(200)]
    report = load(store_url, "t", [write(tmp_path, "events", rows)], Way(strategy, 2, 4, chunk_rows=30), executor)
    assert (report.inserted, report.duplicate_in_input) == (70, 130)
    held = {key: value for key, value in events(headrace, "t", "key, value")}  # noqa: C416 - rows are not pairs
    assert held == {number: f"value {number}" for number in range(70)}
    assert headrace.count("t") == 70


# the small ones are among the examples above; each costs the start of a pool for each file
SHAPES = [(1, 1), (2, 2), (4, 16), (7, 64)] if EXAMPLES > 20 else [(7, 64)]


@pytest.fixture
def data() -> Path:
    return real_data()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["partitioned", "upsert", "locked"])
def test_real_events_give_the_same_table_in_every_shape(
    store_url: str, data: Path, headrace: Headrace, strategy: StrategyName
) -> None:
    shapes = SHAPES if strategy == "partitioned" else [(2, 8)]
    fires = ["latitude", "longitude", "acq_date", "acq_time", "satellite"]
    cases: list[tuple[str, list[Path], dict[str, Any]]] = [
        ("firms", sorted((data / "firms").glob("modis_global_24h_*.geojson")), {"id": fires}),
        ("archive", [data / "firms" / "fire_archive_M6_96619.csv"], {"id": fires, "time": "acq_date"}),
        ("usgs", [data / "usgs" / "all_week.csv", data / "usgs" / "all_month.csv"], {"id": ["id"], "time": "time"}),
        ("strikes", [data / "birdstrikes" / "birdstrikes.csv"], {}),
    ]
    for name, files, options in cases:
        package.load(*files, to=store_url, table=f"{name}_s", mode="sequential", **options)
    for workers, partitions in shapes:
        for name, files, options in cases:
            table = f"{name}_{workers}_{partitions}"
            report = package.load(
                *files,
                to=store_url,
                table=table,
                mode="parallel",
                strategy=strategy,
                workers=workers,
                partitions=partitions,
                chunk_rows=1500,
                **options,
            )
            assert report.fell_back is None
            assert same_but_for_provenance(headrace, f"{name}_s", table)
            assert report.read == report.inserted + report.duplicate_in_input


def same_but_for_provenance(headrace: Headrace, one: str, other: str) -> bool:
    """Whether two tables hold the same rows in every column but ``headrace_receipt``."""

    def rows(table: str) -> list[tuple[Any, ...]]:
        names = [name for name in columns_of(headrace, table) if name != "headrace_receipt"]
        listed = ", ".join(f'"{name}"' for name in names)
        return headrace.query(f'SELECT {listed} FROM "{table}" ORDER BY event_id')  # noqa: S608 - our own table

    return rows(one) == rows(other)


def columns_of(headrace: Headrace, table: str) -> list[str]:
    if headrace.url.startswith("sqlite"):
        return [row[1] for row in headrace.query(f"PRAGMA table_info('{table}')")]
    ordered = "SELECT column_name FROM information_schema.columns WHERE table_name = '{}' ORDER BY ordinal_position"
    return [row[0] for row in headrace.query(ordered.format(table))]
