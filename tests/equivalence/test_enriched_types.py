"""The columns that a function adds have one type, and their values are those it gave, whatever batch they came in."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.program import Headrace

import headrace as package
from headrace.errors import HeadraceError

ROWS = 40
# what each row gets, by its number; the first half comes first
VALUES: dict[str, Callable[[int], Any]] = {
    "integers, then floats": lambda k: k if k < ROWS // 2 else k / 2,
    "floats, then integers": lambda k: k / 2 if k < ROWS // 2 else k,
    "nulls, then integers": lambda k: None if k < ROWS // 2 else k,
    "nulls, then floats": lambda k: None if k < ROWS // 2 else k / 4,
    "texts, then integers": lambda k: f"n{k}" if k < ROWS // 2 else k,
    "integers, then texts": lambda k: k if k < ROWS // 2 else f"{k}" if k % 2 else f"n{k}",
    "integers, then greater floats": lambda k: k if k < ROWS // 2 else 2.0**60 + k,
    "floats, then great integers": lambda k: k / 2 if k < ROWS // 2 else 2**53 + 1,
    "booleans, then integers": lambda k: k % 2 == 0 if k < ROWS // 2 else k,
}


def giving(value: Callable[[int], Any]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A function that lets Arrow say what type each batch's values have; it fails where they are of two kinds."""

    def enrich(events: pa.RecordBatch) -> pa.RecordBatch:
        return events.append_column("given", pa.array([value(k) for k in events["k"].to_pylist()]))

    return enrich


def same(found: Any, given: Any) -> bool:
    if isinstance(found, str) and not isinstance(given, str):
        return found == str(given)
    if isinstance(given, str) and not isinstance(found, str):
        return str(found) == given
    return bool(found == given)


@pytest.mark.parametrize("on_error", ["fail", "reject"])
@pytest.mark.parametrize("chunk_rows", [1, 10, 1000])
@pytest.mark.parametrize("case", VALUES)
def test_no_value_is_rounded_and_no_row_is_lost(headrace: Headrace, case: str, chunk_rows: int, on_error: str) -> None:
    value = VALUES[case]
    named: dict[str, Any] = {"enrich": giving(value), "on_error": on_error, "chunk_rows": chunk_rows}
    rejected, error = 0, None
    try:
        rejected = package.load([{"k": k} for k in range(ROWS)], to=headrace.url, table="t", id=["k"], **named).rejected
    except HeadraceError as failure:
        error = failure
    assert error is None or on_error == "fail"
    found = (
        headrace.query("SELECT k, given FROM t ORDER BY k") if rejected < ROWS and "given" in columns(headrace) else []
    )
    wrong = [(k, had, value(k)) for k, had in found if not same(had, value(k))]
    assert wrong == []
    if error is None:
        kept = headrace.query("SELECT count(*) FROM headrace_rejects WHERE state = 'kept'")[0][0]
        assert (kept, headrace.count("t")) == (rejected, ROWS - rejected)
        assert len(found) == ROWS - rejected, "nothing was compared"
    else:
        assert "column given" in str(error) or "type" in str(error) or "raised" in str(error)


def columns(headrace: Headrace) -> list[str]:
    from headrace.storage import open_store  # noqa: PLC0415 - here alone

    with open_store(headrace.url) as store:
        schema = store.tables.schema("t")
    return [] if schema is None else schema.names


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_the_first_events_settle_the_type_in_either_mode(headrace: Headrace, mode: str) -> None:
    named: dict[str, Any] = {"enrich": giving(VALUES["floats, then integers"]), "chunk_rows": 10, "mode": mode}
    with ThreadPoolExecutor(3) as executor:
        if mode == "parallel":
            named |= {"executor": executor, "workers": 3, "partitions": 3}
        report = package.load([{"k": k} for k in range(ROWS)], to=headrace.url, table="t", id=["k"], **named)
    assert report.inserted == ROWS
    value = VALUES["floats, then integers"]
    assert headrace.query("SELECT k, given FROM t ORDER BY k") == [(k, float(value(k))) for k in range(ROWS)]


def test_parts_of_a_slice_that_was_halved_have_one_type(headrace: Headrace) -> None:
    def value(k: int) -> Any:
        if k in (3, 17):
            raise ValueError("not this one")
        return k if k < ROWS // 2 else k / 2

    report = package.load(
        [{"k": k} for k in range(ROWS)], to=headrace.url, table="t", id=["k"], enrich=giving(value), on_error="reject"
    )
    assert (report.inserted, report.rejected) == (ROWS - 2, 2)
    assert all(had == value(k) for k, had in headrace.query("SELECT k, given FROM t"))


def test_a_value_that_postgresqls_column_cannot_hold_is_a_reject(postgres_url: str, tmp_path: Path) -> None:
    headrace = Headrace(postgres_url, tmp_path)  # SQLite's columns hold whatever comes
    headrace.query(
        "CREATE TABLE t (event_id uuid PRIMARY KEY, k bigint, given smallint, provider text, headrace_receipt bigint)"
    )
    named: dict[str, Any] = {"to": headrace.url, "table": "t", "id": ["k"], "enrich": giving(lambda k: k * 1000)}
    with pytest.raises(HeadraceError, match="smallint"):
        package.load([{"k": k} for k in range(ROWS)], **named)
    report = package.load([{"k": k} for k in range(ROWS)], on_error="reject", **named)
    assert (report.inserted, report.rejected) == (33, 7)
