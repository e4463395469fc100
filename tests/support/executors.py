"""What the suites about executors share: events, a load of them, and the sequential one to compare it with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import headrace as package
from support.program import Headrace

__all__ = [
    "BOOKS",
    "HASH_KEY",
    "KEYS",
    "OPTIONS",
    "SECRET",
    "STRATEGIES",
    "UNSEEN",
    "check_same",
    "contents",
    "csv",
    "load",
    "rejects",
    "wait_until",
    "with_password",
    "write_events",
]

WITHIN = 120  # seconds that anything may take to come about
STRATEGIES = ["partitioned", "upsert", "locked"]
KEYS = 300
OPTIONS: Any = {"id": ["key"], "types": {"key": "integer"}, "chunk_rows": 30, "workers": 2}
BOOKS = ("read", "inserted", "duplicate_in_input", "duplicate_in_store", "rejected")
UNSEEN = "rows are sent as bytes"
SECRET, HASH_KEY = "open-sesame-4711", "a-key-nobody-shall-see"


def write_events(folder: Path) -> list[Path]:
    """Two files with duplicates in each and across them, and rows that cannot be loaded."""
    early, late = folder / "early.csv", folder / "late.csv"
    early.write_text(csv(range(KEYS // 2)) + "oops,not a number\n")
    late.write_text(csv([*range(KEYS // 3, KEYS), *range(0, KEYS, 3)], again=" again") + "1.5,nor is this\n")
    return [early, late]


def csv(keys: Sequence[int], again: str = "") -> str:
    rows = (f"{key},{key / 8},2024-05-01T00:{key % 60:02}:00.000{key:03}Z,välue {key}{again}" for key in keys)
    return "\n".join(["key,amount,at,value", *rows]) + "\n"


def load(url: str, table: str, events: Sequence[Path], **named: Any) -> package.Report:
    return package.load(*events, to=url, table=table, **{**OPTIONS, **named})


def contents(headrace: Headrace, table: str) -> list[tuple[Any, ...]]:
    return headrace.query(f"SELECT event_id, key, amount, at, value, provider FROM {table} ORDER BY event_id")  # noqa: S608


def rejects(headrace: Headrace, table: str) -> list[tuple[Any, ...]]:
    columns = "source, row_number, line_number, column_name, reason, raw, record"
    return headrace.query(f"SELECT {columns} FROM headrace_rejects WHERE table_name = '{table}' ORDER BY 1, 2, 3, 4")  # noqa: S608


def check_same(headrace: Headrace, report: package.Report, expected: package.Report) -> None:
    """The run, which loaded into its own table, against the sequential one."""
    assert report.fell_back is None
    assert report.mode == "parallel"
    assert {name: getattr(report, name) for name in BOOKS} == {name: getattr(expected, name) for name in BOOKS}
    assert contents(headrace, report.table) == contents(headrace, expected.table)
    assert rejects(headrace, report.table) == rejects(headrace, expected.table)


def with_password(url: str) -> str:
    """The server trusts local users, whatever password they give."""
    return sa.make_url(url).set(password=SECRET).render_as_string(hide_password=False)


def wait_until(come: Callable[[], object], about: Callable[[], object] = lambda: "it has not come about") -> None:
    deadline = time.monotonic() + WITHIN
    while not come():
        if time.monotonic() > deadline:
            pytest.fail(str(about()))
        time.sleep(0.02)
