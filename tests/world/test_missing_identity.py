"""A row whose identity columns are all empty is no event among others: it is rejected, or told by its whole row."""

from __future__ import annotations

import csv
import io
import json
import random
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from support.polling import rounds
from support.program import Headrace

import headrace as library

SEED = 20261130
QUAKES, BLANK = 3_809, 227  # a tenth of the 38,094 earthquakes of which 2,272 had no EventID
COLUMNS = ("EventID", "time", "mag", "place")


def quakes() -> list[tuple[str, str, str, str]]:
    draw = random.Random(SEED)
    without = set(draw.sample(range(QUAKES), BLANK))
    return [
        (
            "" if number in without else f"ev{number}",
            f"2024-01-{number % 28 + 1:02}T{number % 24:02}:{number % 60:02}:{number // 60 % 60:02}Z",
            f"{draw.uniform(0, 8):.2f}",
            f"place {number}",
        )
        for number in range(QUAKES)
    ]


def as_csv(rows: list[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    return text.getvalue()


@pytest.mark.parametrize("mode", [[], ["--mode", "parallel", "--workers", "2"]], ids=["sequential", "parallel"])
def test_of_a_catalogue_with_blank_ids_each_row_is_in_the_table_or_a_reject(
    headrace: Headrace, mode: list[str]
) -> None:
    print("seed", SEED)
    rows = quakes()
    (headrace.folder / "quakes.csv").write_text(as_csv(rows))
    words = ["quakes.csv", "--id", "EventID", "--chunk-rows", "700", *mode]
    report = headrace.load(*words, expect=3)
    assert (report["inserted"], report["rejected"]) == (QUAKES - BLANK, BLANK)
    assert report["duplicate_in_input"] == 0
    kept = headrace.json("rejects", "list", "--limit", str(QUAKES))["rejects"]
    assert {one["reject"]["reason"] for one in kept} == {"no identity: EventID is empty"}
    assert {one["reject"]["column"] for one in kept} == {"EventID"}
    lines = {number + 2 for number, row in enumerate(rows) if not row[0]}
    assert {one["reject"]["line"] for one in kept} == lines
    # asked to, the same rows go in once: by a replay and by a load, whichever comes first
    told = headrace.run("rejects", "replay", "--missing-id", "keep-whole-row").stdout
    assert f"{BLANK} inserted" in told
    again = headrace.load(*words, "--missing-id", "keep-whole-row")
    assert (again["inserted"], again["duplicate_in_store"]) == (0, QUAKES)
    assert headrace.count("quakes") == QUAKES
    assert "VERIFIED" in headrace.run("verify", "quakes.csv").stdout


@pytest.mark.parametrize(
    ("name", "text", "identity"),
    [
        ("null.jsonl", '{"id": null, "v": 1}\n{"id": null, "v": 2}\n{"id": "a", "v": 3}\n', "id"),
        ("absent.jsonl", '{"v": 1}\n{"v": 2}\n{"id": "a", "v": 3}\n', "id"),
        ("empty.jsonl", '{"id": "", "v": 1}\n{"id": "", "v": 2}\n{"id": "a", "v": 3}\n', "id"),
        ("white.jsonl", '{"id": "  ", "v": 1}\n{"id": "\\t\\n", "v": 2}\n{"id": "a", "v": 3}\n', "id"),
        ("blank.csv", "id,v\n,1\n,2\na,3\n", "id"),
        ("quoted.csv", 'id,v\n"",1\n" ",2\na,3\n', "id"),
        ("number.csv", "id,v\n,1\n ,2\n7,3\n", "id"),
        ("several.csv", "id,sat,v\n,,1\n, ,2\n,N20,3\n", "id,sat"),
        ("row.csv", 'a,b\n,\n""," "\nx,\n', ""),
    ],
)
def test_every_way_to_leave_an_identity_empty_is_a_reject(
    headrace: Headrace, name: str, text: str, identity: str
) -> None:
    (headrace.folder / name).write_text(text)
    report = headrace.load(name, "--table", "t", *(["--id", identity] if identity else []), expect=3)
    assert (report["inserted"], report["rejected"], report["duplicate_in_input"]) == (1, 2, 0)
    kept = headrace.json("rejects", "list")["rejects"]
    assert all(one["reject"]["reason"].startswith("no identity: ") for one in kept)


def test_a_part_of_an_identity_is_an_identity_and_empty_is_not_null_in_it(headrace: Headrace) -> None:
    rows = [
        {"a": "", "b": "x"},
        {"a": None, "b": "x"},
        {"a": "", "b": None},
        {"a": "x", "b": ""},
        {"a": "x", "b": None},
    ]
    report = library.load(rows, to=headrace.url, table="t", id=["a", "b"])
    assert (report.inserted, report.rejected) == (4, 1)


def test_a_whole_row_keeps_its_id_whatever_columns_and_order_come_later(headrace: Headrace) -> None:
    (headrace.folder / "1.csv").write_text("id,v,w\n,1,x\n,2,\n7,3,\n")
    (headrace.folder / "2.csv").write_text("w,more,v,id\nx,,1,\n,,2,\n,new,2,\n")
    assert headrace.load("1.csv", "--table", "t", "--id", "id", "--missing-id", "keep-whole-row")["inserted"] == 3
    # what was asked for is stored with the table, as an identity is
    report = headrace.load("2.csv", "--table", "t")
    assert (report["inserted"], report["duplicate_in_store"]) == (1, 2)
    assert headrace.load("1.csv", "--table", "t")["duplicate_in_store"] == 3
    assert headrace.load("1.csv", "--table", "t", "--missing-id", "reject", expect=3)["rejected"] == 2
    assert headrace.load("2.csv", "--table", "t")["duplicate_in_store"] == 3


def test_a_whole_row_that_says_nothing_is_a_reject(headrace: Headrace) -> None:
    rows: list[dict[str, Any]] = [{"id": None, "v": None}, {"id": None, "v": float("nan")}, {"id": None, "v": 1.5}]
    report = library.load(rows, to=headrace.url, table="t", id=["id"], missing_id="keep-whole-row")
    assert (report.inserted, report.rejected) == (1, 2)
    reasons = [one["reject"]["reason"] for one in headrace.json("rejects", "list")["rejects"]]
    assert "and so is the rest of the row" in reasons[0]
    assert "NaN" in reasons[1]


def test_a_column_that_tells_whole_rows_apart_keeps_its_type(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text("id,v\n,1\n,2\n")
    headrace.load("in.csv", "--table", "t", "--id", "id", "--missing-id", "keep-whole-row")
    if headrace.url.startswith("postgresql"):
        headrace.query("ALTER TABLE t ALTER COLUMN v TYPE text")
    else:
        with closing(sqlite3.connect(headrace.url.removeprefix("sqlite:///"))) as file, file:
            file.execute("PRAGMA writable_schema = 1")
            file.execute("UPDATE sqlite_master SET sql = replace(sql, 'v BIGINT', 'v TEXT') WHERE name = 't'")
    assert "t, column v" in headrace.run("load", "in.csv", "--table", "t", expect=2).stderr
    assert headrace.count("t") == 2


def test_columns_that_come_with_the_ninth_file_tell_whole_rows_apart(headrace: Headrace) -> None:
    for number in range(9):
        (headrace.folder / f"n{number}.csv").write_text(f"id,v\nk{number},1\n,{number}\n")
    (headrace.folder / "n9.csv").write_text("id,v,w\n,1,a\n,1,b\n")
    words = ["n*.csv", "--table", "t", "--id", "id", "--missing-id", "keep-whole-row"]
    assert headrace.load(*words)["inserted"] == 20
    assert headrace.load(*words)["inserted"] == 0
    assert "VERIFIED" in headrace.run("verify", "n*.csv", "--table", "t").stdout


def test_a_provider_s_entry_says_what_becomes_of_rows_without_identity(headrace: Headrace) -> None:
    provider = '[providers.p]\npath = "feed.csv"\ninterval = "1s"\ntable = "t"\nid = ["id"]\n'
    (headrace.folder / "feed.csv").write_text("id,v\n,1\n,2\nx,3\n")
    with rounds(headrace.folder, f'database = "{headrace.url}"\n{provider}') as go:
        told = go(60)
        assert (told.counts.inserted, told.counts.rejected, told.exit_code) == (1, 2, 3)
    with rounds(headrace.folder, f'database = "{headrace.url}"\n{provider}missing_id = "keep-whole-row"\n') as go:
        assert go(600).counts.inserted == 2  # the same delivery, treated otherwise, is not "unchanged"
        (headrace.folder / "feed.csv").write_text("id,v\n,2\n,3\nx,3\n")
        assert go(60).counts.inserted == 1


def test_engines_of_another_mind_do_not_share_what_they_make_of_a_row(headrace: Headrace) -> None:
    rows = [{"id": None, "v": 1}, {"id": "", "v": 1}, {"id": "a", "v": 1}]
    with library.Engine(to=headrace.url, table="t", id=["id"]) as engine:
        assert engine.ingest(rows).rejected == 2
    with library.Engine(to=headrace.url, table="t", id=["id"], missing_id="keep-whole-row") as engine:
        # empty and null say the same of an identity that is not there
        assert (engine.ingest(rows).inserted, engine.ingest(rows).inserted) == (1, 0)


def test_providers_keep_their_rows_apart_and_a_key_is_no_identity(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text("id,v\n,1\n")
    words = ["in.csv", "--table", "t", "--id", "id", "--missing-id", "keep-whole-row"]
    assert [headrace.load(*words, "--provider", name)["inserted"] for name in ("a", "b", "a")] == [1, 1, 0]


def test_what_the_option_cannot_be_is_said(headrace: Headrace) -> None:
    with pytest.raises(library.HeadraceError, match="keep-whole-row"):
        library.load([{"a": 1}], to=headrace.url, table="t", missing_id="whole")  # type: ignore[arg-type]


def test_an_event_that_an_older_release_stored_without_identity_is_told_by_verify(headrace: Headrace) -> None:
    """It stays as it is. Its rows are rejects now, and `verify` says that nothing in the input is this event."""
    (headrace.folder / "in.csv").write_text("id,v\nx,1\n,2\n")
    headrace.load("in.csv", "--table", "t", "--id", "id", expect=3)
    receipt = headrace.query("SELECT headrace_receipt FROM t")[0][0]
    event = "X'00000000000080008000000000000000'"
    if headrace.url.startswith("postgresql"):
        event = "'00000000-0000-8000-8000-000000000000'"
    headrace.query(f"INSERT INTO t (event_id, v, provider, headrace_receipt) VALUES ({event}, 2, 'default', {receipt})")  # noqa: S608 - made here
    assert headrace.load("in.csv", "--table", "t", expect=3)["rejected"] == 1
    found = json.loads(headrace.run("verify", "in.csv", "--table", "t", "--output", "json", expect=4).stdout)
    assert (found["unexpected"], found["missing"]) == (1, 0)
