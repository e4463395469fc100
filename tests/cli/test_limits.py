"""A value that a column somebody else made cannot hold is a reject with its place, as every other bad value is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.program import Headrace

COLUMNS = "event_id uuid PRIMARY KEY, k bigint, v {}, provider text, headrace_receipt bigint"
CASES = {  # the column's type, a value that fits, those that do not
    "numeric(12,3)": ("123456789.125", ["1234567890", "-1234567890.5", "1.2345"]),
    "numeric(3,3)": ("0.125", ["1", "0.1255"]),
    "numeric": ("12345678901234567890.5", ["0.12345678901"]),
    "smallint": ("-32768", ["32768", "-40000", "1.5"]),
    "integer": ("2147483647", ["2147483648", "-3000000000"]),
    "bigint": ("9223372036854775807", ["9223372036854775808"]),
    "real": ("0.5", ["1e39", "-1e300"]),
    "varchar(5)": ("grün!", ["grün!!", "a very long text"]),
    "char(3)": ("ab", ["abcd"]),
    "hue": ("red", ["blue", "Red"]),
}


@pytest.fixture
def headrace(postgres_url: str, tmp_path: Path) -> Headrace:
    """SQLite's columns hold whatever comes."""
    return Headrace(postgres_url, tmp_path)


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_what_a_column_cannot_hold_costs_its_row_alone(headrace: Headrace, mode: str) -> None:
    headrace.query("CREATE TYPE hue AS ENUM ('red', 'green')")
    for number, (kind, (fits, others)) in enumerate(CASES.items()):
        headrace.query(f"CREATE TABLE t{number} ({COLUMNS.format(kind)})")
        rows = [fits, *others, "", fits]
        (headrace.folder / f"t{number}.csv").write_text(
            "k,v\n" + "".join(f"{k},{value}\n" for k, value in enumerate(rows))
        )
        if mode == "parallel" and number > 2:
            continue
        words = ("--table", f"t{number}", "--id", "k", "--mode", mode)
        report = headrace.load(f"t{number}.csv", *words, expect=3)
        assert (report["inserted"], report["rejected"]) == (3, len(others)), kind
        found = [one["reject"] for one in headrace.json("rejects", "list", "--table", f"t{number}")["rejects"]]
        assert [(one["line"], one["column"], one["raw"]) for one in found] == [
            (k + 3, "v", f"{k + 1},{value}") for k, value in enumerate(others)
        ], kind
        assert all(one["reason"] for one in found)
        headrace.run("verify", f"t{number}.csv", "--table", f"t{number}", expect=0)


def test_a_reject_of_a_limit_is_mended_or_comes_in_when_the_column_is_wider(headrace: Headrace) -> None:
    headrace.query(f"CREATE TABLE t ({COLUMNS.format('varchar(3)')})")
    (headrace.folder / "in.csv").write_text("k,v\n1,toolong\n2,alsolong\n3,ok\n")
    headrace.load("in.csv", "--table", "t", "--id", "k", expect=3)
    first, _ = (one["reject_id"] for one in headrace.json("rejects", "list")["rejects"])
    assert "character varying(3)" in headrace.run("rejects", "replay", first, "--set", "v=still", expect=3).stdout
    headrace.query("ALTER TABLE t ALTER COLUMN v TYPE varchar(20)")
    headrace.run("rejects", "replay")
    assert headrace.query("SELECT k, v FROM t ORDER BY k") == [(1, "still"), (2, "alsolong"), (3, "ok")]


def test_behind_a_select_it_is_a_reject_too(headrace: Headrace) -> None:
    headrace.query(f"CREATE TABLE t ({COLUMNS.format('numeric(4,1)')})")
    (headrace.folder / "in.csv").write_text("k,v\n1,1\n2,1000\n3,3\n")
    select = "SELECT k, v * 1.5 AS v FROM source"
    report = headrace.load("in.csv", "--table", "t", "--id", "k", "--select", select, expect=3)
    assert (report["inserted"], report["rejected"]) == (2, 1)
    headrace.run("rejects", "replay", "--set", "v=999.5")
    assert headrace.query("SELECT count(*) FROM t") == [(3,)]
