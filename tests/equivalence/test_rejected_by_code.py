"""Rows that make the user's code fail are kept aside, and no other row pays for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from tests_support import Headrace

import headrace as package
from headrace import AlertRule
from headrace.errors import WorkerError

pytestmark = pytest.mark.either_store


def with_number(events: pa.RecordBatch) -> pa.RecordBatch:
    return events.append_column("n", pa.array([int(text) for text in events["v"].to_pylist()], pa.int64()))


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
