"""Rows that make the user's code fail are kept aside, and no other row pays for them."""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pyarrow as pa
import pytest
from support.program import Headrace

import headrace as package
from headrace import AlertRule
from headrace.api import load_with
from headrace.errors import Interrupted, WorkerError
from headrace.observability.stages import Silent
from headrace.options.load import options_of


def with_number(events: pa.RecordBatch) -> pa.RecordBatch:
    return events.append_column("m", pa.array([int(text) for text in events["v"].to_pylist()], pa.int64()))


def above_five(events: pa.RecordBatch) -> list[bool]:
    return [int(text) > 5 for text in events["v"].to_pylist()]


CODE: dict[str, dict[str, Any]] = {
    "a function that enriches": {"enrich": with_number},
    "a function that alerts": {"alerts": [AlertRule("a", function=above_five)]},
    "an SQL rule": {"alerts": [AlertRule("a", "CAST(v AS INTEGER) = 7")]},
    "an SQL rule that fails at random": {"alerts": [AlertRule("a", "CAST(v AS INTEGER) = 7 AND random() < 2")]},
}


def rows_of(bad: Callable[[int], bool], count: int) -> list[dict[str, object]]:
    return [{"k": number, "v": "bad" if bad(number) else str(number)} for number in range(count)]


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("bad", ["every fourth", "a block", "all but one"])
def test_every_good_row_gets_in_however_many_are_bad(headrace: Headrace, code: str, bad: str) -> None:
    count = 400 if "random" in code else 8_000
    is_bad = {
        "every fourth": lambda number: number % 4 == 0,
        "a block": lambda number: count // 4 <= number < count // 2,
        "all but one": lambda number: number != count // 3,
    }[bad]
    report = package.load(rows_of(is_bad, count), to=headrace.url, table="t", id=["k"], on_error="reject", **CODE[code])
    good = [number for number in range(count) if not is_bad(number)]
    assert [k for (k,) in headrace.query("SELECT k FROM t ORDER BY k")] == good
    assert (report.inserted, report.rejected) == (len(good), count - len(good))
    assert headrace.query("SELECT count(*) FROM headrace_rejects WHERE raw NOT LIKE '%bad%'") == [(0,)]


def test_a_row_that_fails_only_beside_others_is_no_reject(headrace: Headrace) -> None:
    def alone(events: pa.RecordBatch) -> pa.RecordBatch:
        if events.num_rows > 1:
            raise ValueError("one at a time")
        return events.append_column("n", pa.array([1], pa.int64()))

    report = package.load(
        rows_of(lambda _: False, 37), to=headrace.url, table="t", id=["k"], enrich=alone, on_error="reject"
    )
    assert (report.inserted, report.rejected) == (37, 0)


def leaves(events: pa.RecordBatch) -> pa.RecordBatch:
    if "bad" in events["v"].to_pylist():
        sys.exit(0)
    return events


def test_a_function_that_leaves_does_not_end_the_load_as_if_it_were_done(headrace: Headrace) -> None:
    rows = rows_of(lambda number: number == 3, 10)
    with pytest.raises(WorkerError, match="SystemExit"):
        package.load(rows, to=headrace.url, table="t", id=["k"], enrich=leaves)
    report = package.load(rows, to=headrace.url, table="t", id=["k"], enrich=leaves, on_error="reject")
    assert (report.inserted, report.rejected) == (9, 1)


def interrupted(_: pa.RecordBatch) -> pa.RecordBatch:
    raise KeyboardInterrupt


def test_an_interrupt_in_a_function_is_no_reject(headrace: Headrace) -> None:
    rows = rows_of(lambda _: False, 10)
    with pytest.raises(KeyboardInterrupt):
        package.load(rows, to=headrace.url, table="t", id=["k"], enrich=interrupted, on_error="reject")
    assert headrace.query("SELECT count(*) FROM headrace_rejects") == [(0,)]


# The next row of an event whose first one fails -----------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "sequential": {"mode": "sequential"},
    "partitioned": {"mode": "parallel", "strategy": "partitioned", "partitions": 3},
    "upsert": {"mode": "parallel", "strategy": "upsert"},
    "locked": {"mode": "parallel", "strategy": "locked", "partitions": 2},
}
REVISIONS: dict[str, dict[str, Any]] = {"ignore": {}, "report": {"revisions": "report"}}


def with_repeats(seed: int, count: int) -> list[dict[str, object]]:
    """Rows of few events; `v` is no number in many, `n` tells them apart."""
    chosen = random.Random(seed)
    return [
        {"k": chosen.randrange(count // 4), "v": chosen.choice(["bad", "bad", "8"]), "n": number}
        for number in range(count)
    ]


def expected(rows: list[dict[str, object]]) -> tuple[list[tuple[object, object]], list[object]]:
    """What the table holds, as (event, row), and the rows that are kept aside: told row by row."""
    table: dict[object, object] = {}
    kept = []
    for row in rows:
        if row["k"] in table:
            continue
        if row["v"] == "bad":
            kept.append(row["n"])
        else:
            table[row["k"]] = row["n"]
    return sorted(table.items()), kept  # type: ignore[type-var]


def loaded(headrace: Headrace, rows: object, **named: Any) -> package.Report:
    with ThreadPoolExecutor(2) as executor:
        if named.get("mode") == "parallel":
            named = {"executor": executor, "workers": 2, **named}
        return package.load(rows, to=headrace.url, table="t", id=["k"], on_error="reject", **named)


def assert_as_expected(headrace: Headrace, rows: list[dict[str, object]], report: package.Report) -> None:
    table, kept = expected(rows)
    assert headrace.query("SELECT k, n FROM t ORDER BY k") == table
    found = headrace.query("SELECT record FROM headrace_rejects WHERE stage <> 'revision'")
    assert sorted(int(json.loads(record)["n"]) for (record,) in found) == kept
    duplicates = len(rows) - len(table) - len(kept)
    assert report.counts == replace(
        report.counts, read=len(rows), inserted=len(table), duplicate_in_input=duplicates, rejected=len(kept)
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("code", "revisions"),
    [
        ("a function that enriches", "ignore"),
        ("a function that enriches", "report"),
        ("a function that alerts", "report"),
        ("an SQL rule", "ignore"),
    ],
)
def test_the_first_row_of_an_event_that_does_not_fail_is_the_event(
    headrace: Headrace, code: str, way: str, revisions: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # a failure shows it
    rows = with_repeats(seed, 120)
    for chunk_rows in (random.Random(seed).choice([3, 7, 25]), 1_000):
        headrace.query("DROP TABLE IF EXISTS t")
        if chunk_rows == 1_000:
            headrace.query("DELETE FROM headrace_rejects")
        report = loaded(headrace, rows, chunk_rows=chunk_rows, **CODE[code], **WAYS[way], **REVISIONS[revisions])
        assert_as_expected(headrace, rows, report)


@pytest.mark.parametrize("way", ["sequential", "partitioned"])
def test_the_next_row_may_stand_in_another_file_and_the_load_may_have_been_stopped(
    headrace: Headrace, way: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rows = with_repeats(seed, 300)
    for number in range(6):
        text = "".join(f"{row['k']},{row['v']},{row['n']}\n" for row in rows[number * 50 : number * 50 + 50])
        (headrace.folder / f"{number}.csv").write_text("k,v,n\n" + text)
    named = {"types": {"v": "string"}, "chunk_rows": 10, **CODE["an SQL rule"], **WAYS[way]}
    named |= {"on_error": "reject", "to": headrace.url, "table": "t", "id": ["k"]}
    with ThreadPoolExecutor(2) as executor:
        if way != "sequential":
            named |= {"executor": executor, "workers": 2, "memory": 16 << 20}
        options = options_of(named)
        for after in (3, 9, 11):
            stop = Event()
            with contextlib.suppress(Interrupted):
                load_with(options, [headrace.folder], stop=stop, listener=StopAfter(stop, after))
        report = load_with(options, [headrace.folder])
    assert_as_expected(headrace, rows, report)


class StopAfter(Silent):
    """Asks for a stop after so many slices."""

    def __init__(self, stop: Event, slices: int) -> None:
        self.stop, self.left = stop, slices

    def committed(self, *_: Any) -> None:
        self.left -= 1
        if self.left <= 0:
            self.stop.set()


def test_a_thousand_bad_rows_of_one_event_cost_few_rounds(headrace: Headrace) -> None:
    calls = 0

    def counted(events: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal calls
        calls += 1
        return with_number(events)

    rows = [{"k": 1, "v": "bad", "n": number} for number in range(1_000)] + [{"k": 1, "v": "8", "n": 1_000}]
    report = loaded(headrace, rows, enrich=counted)
    assert_as_expected(headrace, rows, report)
    assert calls < 3_000


def test_an_event_in_the_store_already_is_a_duplicate_whatever_its_rows_do(headrace: Headrace) -> None:
    loaded(headrace, [{"k": 1, "v": "8", "n": 0}], **CODE["a function that enriches"])
    rows = [{"k": 1, "v": "bad", "n": 1}, {"k": 2, "v": "bad", "n": 2}, {"k": 1, "v": "9", "n": 3}]
    report = loaded(headrace, rows, **CODE["a function that enriches"])
    assert (report.duplicate_in_store, report.duplicate_in_input, report.rejected) == (1, 1, 1)
    assert headrace.query("SELECT k, n FROM t") == [(1, 0)]


def test_the_newest_row_that_does_not_fail_has_the_table(headrace: Headrace) -> None:
    """Under update: the first good row is the event, later versions are compared with it."""
    rows = [{"k": 1, "v": "bad", "n": 0}, {"k": 1, "v": "6", "n": 1}, {"k": 1, "v": "7", "n": 3}]
    rows += [{"k": 1, "v": "bad", "n": 4}, {"k": 1, "v": "9", "n": 2}]
    for chunk_rows in (1, 2, 100):
        headrace.query("DROP TABLE IF EXISTS t")
        report = loaded(
            headrace, rows, enrich=with_number, chunk_rows=chunk_rows, revisions="update", version_column="n"
        )
        assert headrace.query("SELECT k, v, n, m FROM t") == [(1, "7", 3, 7)]
        assert (report.inserted, report.rejected, report.duplicate_in_input) == (1, 1, 3)
