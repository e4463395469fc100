"""A neighbour alters the type of an identity column: no event goes in a second time, whoever loads next."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pyarrow as pa
import pytest
from support.polling import rounds
from support.program import Headrace

import headrace as library
from headrace.errors import HeadraceError, SchemaError
from headrace.events.prepare import prepare
from headrace.partitioning.contract import Contract
from headrace.reading.chunk import Chunk
from headrace.storage.records import Address

FIVE = "k,v\n" + "".join(f"{number},x{number}\n" for number in range(1, 6))
DAYS = "k,v\n" + "".join(f"2024-01-0{number},x{number}\n" for number in range(1, 6))
# in PostgreSQL, in SQLite (as declared)
TEXT, DECIMAL, FLOAT, TIME, INTEGER = (
    ("text", "TEXT"),
    ("numeric(38,0)", "DECIMAL_TEXT(0)"),
    ("double precision", "DOUBLE"),
    ("timestamptz", "TIMESTAMP"),
    ("bigint", "BIGINT"),
)


def alter(database: Headrace, column: str, to: tuple[str, str], *, was: str, table: str = "ev") -> None:
    """What a neighbour does; SQLite has no such statement, but a table made anew has another declaration."""
    if database.url.startswith("postgresql"):
        using = f"{column}::text::{to[0]}"
        database.query(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {to[0]} USING {using}")
        return
    with closing(sqlite3.connect(database.url.removeprefix("sqlite:///"))) as file, file:
        file.execute("PRAGMA writable_schema = 1")
        file.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?",
            (f"{column} {was}", f"{column} {to[1]}", table),
        )
        (version,) = file.execute("PRAGMA schema_version").fetchone()
        file.execute(f"PRAGMA schema_version = {version + 1}")  # open connections look again
    value = {TEXT: "CAST({} AS TEXT)", DECIMAL: "CAST({} AS TEXT)", TIME: "{} || ' 00:00:00.000000'"}.get(to, "{}")
    database.query(f"UPDATE {table} SET {column} = {value.format(column)}")  # noqa: S608 - names of this file's own


@pytest.mark.parametrize(
    ("rows", "to", "was"),
    [(FIVE, TEXT, "BIGINT"), (FIVE, DECIMAL, "BIGINT"), (FIVE, FLOAT, "BIGINT"), (DAYS, TIME, "DATE")],
    ids=["integer-text", "integer-decimal", "integer-float", "date-timestamp"],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "whole-row"])
def test_no_event_goes_in_twice_under_another_type_of_an_identity_column(
    headrace: Headrace, rows: str, to: tuple[str, str], was: str, named: bool
) -> None:
    (headrace.folder / "in.csv").write_text(rows)
    headrace.load("in.csv", "--table", "ev", *(["--id", "k"] if named else []))
    alter(headrace, "k", to, was=was)
    refused = headrace.run("load", "in.csv", "--table", "ev", expect=2)
    assert "ev, column k" in refused.stderr
    assert "type back" in refused.stderr
    assert headrace.count("ev") == 5
    # what only looks goes by the contract, and the check-up says what is wrong
    assert "VERIFIED" in headrace.run("verify", "in.csv", "--table", "ev").stdout
    doctor = headrace.run("doctor", expect=1)
    assert "the contract, which defines the event IDs, has it as" in doctor.stdout


def test_what_comes_after_the_type_is_given_back_is_as_before(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text(FIVE)
    headrace.load("in.csv", "--table", "ev", "--id", "k")
    alter(headrace, "k", TEXT, was="BIGINT")
    headrace.run("load", "in.csv", "--table", "ev", expect=2)
    alter(headrace, "k", INTEGER, was="TEXT")
    (headrace.folder / "in.csv").write_text(FIVE + "6,x6\n")
    report = headrace.load("in.csv", "--table", "ev")
    assert (report["inserted"], report["duplicate_in_store"]) == (1, 5)


def test_an_identity_column_that_was_dropped_comes_back_as_the_contract_has_it(headrace: Headrace) -> None:
    """Codes that look like numbers in the file at hand are texts by contract, and stay it."""
    (headrace.folder / "first.csv").write_text("k,v\nA1,x\n7,y\n")
    (headrace.folder / "second.csv").write_text("k,v\n7,y\n8,z\n")
    headrace.load("first.csv", "--table", "ev", "--id", "k")
    headrace.query("ALTER TABLE ev DROP COLUMN k")
    report = headrace.load("second.csv", "--table", "ev")
    assert (report["inserted"], report["duplicate_in_store"]) == (1, 1)


def test_a_time_column_that_says_no_time_any_more_is_refused(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text("k,at\n1,2024-01-01T00:00:00Z\n")
    headrace.load("in.csv", "--table", "ev", "--id", "k", "--time", "at")
    alter(headrace, "at", TEXT, was="TIMESTAMP")
    assert "time column at" in headrace.run("load", "in.csv", "--table", "ev", expect=2).stderr
    assert headrace.count("ev") == 1
    assert "time column at" in headrace.run("doctor", expect=1).stdout
    assert "VERIFIED" in headrace.run("verify", "in.csv", "--table", "ev", "--ids-only").stdout


def test_a_poll_without_an_id_in_its_entry_is_refused_and_the_check_up_says_why(headrace: Headrace) -> None:
    provider = '[providers.p]\npath = "feed.csv"\ninterval = "1s"\ntable = "ev"\n'
    (headrace.folder / "feed.csv").write_text("k,v\n1,a\n2,b\n")
    with rounds(headrace.folder, f'database = "{headrace.url}"\n{provider}') as go:
        assert go(60).counts.inserted == 2
        alter(headrace, "k", TEXT, was="BIGINT")
        (headrace.folder / "feed.csv").write_text("k,v\n1,a\n2,b\n3,c\n")
        (poll,) = go(60).polls
    assert (poll.outcome, poll.exit_code) == ("failed", 2)
    assert "column k" in (poll.error or "")
    assert headrace.count("ev") == 2
    doctor = headrace.run("doctor", "--config", "headrace.toml", expect=1)
    assert "FAILED   provider p" in doctor.stdout


def test_a_warm_engine_a_replay_and_revisions_are_refused_alike(headrace: Headrace) -> None:
    with library.Engine(to=headrace.url, table="ev", id=["k"]) as engine:
        engine.ingest([{"k": 1, "v": "a"}])
        alter(headrace, "k", TEXT, was="BIGINT")
        with pytest.raises(SchemaError, match="contract"):
            engine.ingest([{"k": 1, "v": "a"}])
    (headrace.folder / "in.csv").write_text("k,v\n1,b\n")
    headrace.run("load", "in.csv", "--table", "ev", "--revisions", "report", expect=2)
    assert headrace.count("ev") == 1


def test_a_reject_that_is_replayed_under_another_type_stays_kept(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text("k,v\n1,1\n2,2\n")
    headrace.load("in.csv", "--table", "ev", "--id", "k")
    (headrace.folder / "in.csv").write_text("k,v\n3,much\n")
    headrace.load("in.csv", "--table", "ev", expect=3)
    alter(headrace, "k", TEXT, was="BIGINT")
    headrace.run("rejects", "replay", "--set", "v=3", expect=2)
    assert (headrace.count("ev"), len(headrace.json("rejects", "list")["rejects"])) == (2, 1)


def test_a_story_is_told_by_the_contract_s_types(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text(FIVE)
    headrace.load("in.csv", "--table", "ev", "--id", "k")
    alter(headrace, "k", TEXT, was="BIGINT")
    found = headrace.query("SELECT event_id FROM ev WHERE v = 'x3'")[0][0]
    event = found.hex() if isinstance(found, bytes) else str(found)
    assert "in.csv, row 2, line 4" in headrace.run("explain", event, "--table", "ev", "--in", "in.csv").stdout


def test_rows_of_another_type_than_the_contract_s_are_never_encoded() -> None:
    contract = Contract((("k", "integer"),))
    batch = pa.RecordBatch.from_pydict({"k": ["1"]})
    with pytest.raises(HeadraceError, match="contract has it as integer"):
        prepare(Chunk(Address("in.csv", 0, 1), batch, None, []), contract, "p")
