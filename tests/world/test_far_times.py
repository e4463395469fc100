"""Times that databases hold and Python's calendar does not, and sessions with settings of their own: what is compared,
told and kept does not depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from support.program import Headrace

import headrace as package
from headrace.storage import open_store
from headrace.storage.moments import date_text, days_of, moment_text, moment_us

YEAR_14645, YEAR_10000, YEAR_9999 = 400_000_000_000_000_000, 253_402_300_800_000_000, 253_402_300_799_999_999
BC_250, BC_251 = -70_000_000_000_000_000, -70_010_000_000_000_000
TODAY = 1_700_000_000_000_000
UTC_US = pa.timestamp("us", tz="UTC")
OWN_TABLE = "CREATE TABLE t (event_id uuid PRIMARY KEY, k bigint, {}, provider text, headrace_receipt bigint)"


def moments(*us: int | None) -> pa.Array:
    return pa.array(us, UTC_US)


def batch(at: int | None, v: object, k: int = 1) -> pa.Table:
    return pa.table({"k": pa.array([k], pa.int64()), "at": moments(at), "v": pa.array([v])})


def load(url: str, rows: object, **named: Any) -> package.Report:
    return package.load(rows, to=url, table="t", **{"id": ["k"], **named})


def differing(headrace: Headrace) -> list[dict[str, list[str | None]]]:
    found = headrace.query("SELECT differs FROM headrace_rejects WHERE differs IS NOT NULL ORDER BY reject_id")
    return [json.loads(differs) for (differs,) in found]


@pytest.mark.parametrize("us", [YEAR_14645, YEAR_10000, YEAR_9999, BC_250, -62_167_219_200_000_000])
def test_a_revision_in_any_year_is_compared_kept_and_told_alike(headrace: Headrace, us: int) -> None:
    load(headrace.url, batch(us, 1), revisions="report")
    again = load(headrace.url, batch(us + 1_000_000, 2), revisions="report")
    assert (again.duplicate_in_store, again.revised) == (1, 1)
    assert differing(headrace) == [{"at": [moment_text(us), moment_text(us + 1_000_000)], "v": ["1", "2"]}]
    ((event,),) = headrace.query("SELECT CAST(event_id AS text) FROM t" if "post" in headrace.url else HEX)
    assert headrace.json("explain", event)["event"]["at"] == moment_text(us)
    assert moment_text(us) in headrace.run("explain", event).stdout


HEX = "SELECT lower(hex(event_id)) FROM t"


@pytest.mark.parametrize("us", [YEAR_14645, BC_250])
def test_a_tie_in_any_year_is_kept_and_a_newer_version_takes_the_row(headrace: Headrace, us: int) -> None:
    update = {"revisions": "update", "version_column": "v"}
    load(headrace.url, batch(us, 1), **update)
    load(headrace.url, batch(us + 1, 1), **update)
    assert differing(headrace) == [{"at": [moment_text(us), moment_text(us + 1)]}]
    load(headrace.url, batch(us + 2, 2), **update)
    assert headrace.query("SELECT v FROM t") == [(2,)]


@pytest.mark.parametrize(
    "ascending",
    [
        [BC_251, BC_250, 0, TODAY, YEAR_9999, YEAR_10000, YEAR_14645],
        [
            pa.array([day], pa.int32()).view(pa.date32())
            for day in (-1_000_000, -900_000, 0, 2_932_896, 2_932_897, 4_000_000)
        ],
        [Decimal(text) for text in ("-10.5", "-9.5", "-0.000000001", "0.000000001", "9", "10", "12345678901234567890")],
    ],
    ids=["times", "dates", "decimals"],
)
def test_the_newest_version_wins_whatever_its_text_looks_like(headrace: Headrace, ascending: list[Any]) -> None:
    def of(version: Any, v: int) -> pa.Table:
        if isinstance(version, Decimal):
            version = pa.array([version], pa.decimal128(38, 9))
        version = moments(version) if isinstance(version, int) else version
        return pa.table({"k": [1], "rev": version, "v": [v]})

    for order in (range(len(ascending)), reversed(range(len(ascending))), (3, 0, 5, 1, 4, 2)):
        chosen = list(order)
        for v in chosen:
            load(headrace.url, of(ascending[v], v), revisions="update", version_column="rev")
        assert headrace.query("SELECT v FROM t") == [(max(chosen),)]
        headrace.query("DELETE FROM t")
    # and in one chunk
    rows = pa.concat_tables([of(ascending[v], v) for v in (2, 4, 0, 3)])
    load(headrace.url, rows, revisions="update", version_column="rev")
    assert headrace.query("SELECT v FROM t") == [(4,)]


def test_one_value_written_in_two_ways_is_no_revision_in_sqlite(sqlite_url: str, tmp_path: Any) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    first = pa.table({"k": [1], "at": moments(TODAY), "d": pa.array([Decimal("1.50")], pa.decimal128(38, 9)), "v": [1]})
    load(sqlite_url, first)
    headrace.query("UPDATE t SET at = '2023-11-14T23:13:20+01:00', d = '1.5'")
    assert load(sqlite_url, first, revisions="report").revised == 0
    headrace.query("UPDATE t SET at = '2023-11-14T23:13:20Z', d = 'many'")
    assert load(sqlite_url, first, revisions="report").revised == 1
    assert differing(headrace) == [
        {"at": ["2023-11-14T23:13:20+00:00", "2023-11-14T22:13:20+00:00"], "d": ["many", "1.500000000"]}
    ]
    newer = first.set_column(1, "at", moments(TODAY + 1)).set_column(3, "v", pa.array([2]))
    load(sqlite_url, newer, revisions="update", version_column="at")
    assert headrace.query("SELECT v FROM t") == [(1,)]  # 23:13:20 in UTC is the newer one


def test_endless_times_in_the_table_are_told_and_never_older_than_a_time(postgres_url: str, tmp_path: Any) -> None:
    headrace = Headrace(postgres_url, tmp_path)
    load(postgres_url, batch(TODAY, 1))
    for held, wins in (("infinity", False), ("-infinity", True), ("200000-01-01 00:00:00+00", False)):
        headrace.query(f"UPDATE t SET at = '{held}'".replace(":", "\\:"))  # noqa: S608 - the test's own
        headrace.query("DELETE FROM headrace_rejects")
        load(postgres_url, batch(TODAY, 2), revisions="report")
        ((event,),) = headrace.query("SELECT CAST(event_id AS text) FROM t")
        shown = held.replace(" ", "T") + ":00" if held.startswith("2") else held
        assert differing(headrace)[0]["at"] == [shown, moment_text(TODAY)]
        assert headrace.json("explain", event)["event"]["at"] == shown
        load(postgres_url, batch(TODAY + 1, 3), revisions="update", version_column="at")
        assert headrace.query("SELECT v FROM t") == [(3 if wins else 1,)]
        headrace.query("UPDATE t SET v = 1")


SETTINGS = (
    "TimeZone = 'America/New_York'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = -10",
)


@pytest.fixture
def odd_session(postgres_url: str) -> str:
    """A database in which every session begins with settings that nobody expects."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        for setting in SETTINGS:
            connection.execute(f'ALTER DATABASE "{name}" SET {setting}')  # type: ignore[call-overload]
    return postgres_url


def test_no_setting_of_a_session_shows_in_what_is_told(
    odd_session: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("PGTZ", "Australia/Eucla")
    headrace = Headrace(odd_session, tmp_path)
    headrace.query(OWN_TABLE.format("naive timestamp, at timestamptz, day date, x double precision, r real, b bytea"))
    (tmp_path / "a.csv").write_text(
        "k,naive,at,day,x,r\n1,2024-01-01T12:00:00Z,2024-01-01T12:00:00Z,2024-02-01,0.3,0.1\n"
    )
    # a process of its own: who changes TZ must not change it for other tests
    headrace.load("a.csv", "--table", "t", "--id", "k", "--type", "naive=timestamp")
    assert headrace.json("verify", "a.csv", "--table", "t")["values"]["agreed"] == 1
    (tmp_path / "b.csv").write_text(
        "k,naive,at,day,x,r\n1,2024-01-01T13:00:00Z,2024-01-01T13:00:00Z,2024-02-03,0.30000000000000004,0.2\n"
    )
    headrace.load("b.csv", "--table", "t", "--revisions", "report")
    assert differing(headrace) == [
        {
            "naive": ["2024-01-01T12:00:00+00:00", "2024-01-01T13:00:00+00:00"],
            "at": ["2024-01-01T12:00:00+00:00", "2024-01-01T13:00:00+00:00"],
            "day": ["2024-02-01", "2024-02-03"],
            "x": ["0.3", "0.30000000000000004"],
            "r": [str(float.fromhex("0x1.99999a0000000p-4")), str(float.fromhex("0x1.99999a0000000p-3"))],
        }
    ]
    ((event,),) = headrace.query("SELECT CAST(event_id AS text) FROM t")
    told = headrace.json("explain", event)["event"]
    assert told["naive"] == told["at"] == "2024-01-01T12:00:00+00:00"
    assert told["day"] == "2024-02-01"
    assert (told["x"], told["r"]) == (0.3, 0.1)


def test_floats_that_differ_in_their_last_bit_differ(headrace: Headrace) -> None:
    load(headrace.url, pa.table({"k": [1], "x": [0.3]}), revisions="report")
    load(headrace.url, pa.table({"k": [1], "x": [0.1 + 0.2]}), revisions="report")
    assert differing(headrace) == [{"x": ["0.3", "0.30000000000000004"]}]


def _none_of(chosen: int) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    def fail(events: pa.RecordBatch) -> pa.RecordBatch:
        if chosen in events.column("k").to_pylist():
            raise ValueError("not this one")
        return events

    return fail


def test_rows_of_far_years_are_rejected_replayed_and_alerted_like_any(headrace: Headrace) -> None:
    rows = pa.table(
        {
            "k": [1, 2, 3],
            "at": moments(YEAR_14645, BC_250, 0),
            "day": pa.array([4_000_000, -1_000_000, 0], pa.int32()).view(pa.date32()),
        }
    )
    rule = package.AlertRule("all", where="true")
    done = load(headrace.url, rows, time="at", enrich=_none_of(2), on_error="reject", alerts=[rule])
    assert (done.inserted, done.rejected, done.alerts) == (2, 1, 2)
    assert (done.newest_event, done.to_dict()["newest_event"]) == (None, moment_text(YEAR_14645))
    headrace.run("rejects", "replay")
    with open_store(headrace.url) as store:
        schema = store.tables.schema("t")
        assert schema is not None
        (held,) = list(store.events.rows("t", schema))
    order = held.columns["k"].values.to_pylist()
    assert [held.columns["at"].values[order.index(k)].value for k in (1, 2, 3)] == [YEAR_14645, BC_250, 0]
    assert [held.columns["day"].values[order.index(k)].value for k in (1, 2, 3)] == [4_000_000, -1_000_000, 0]


def test_times_and_dates_become_text_and_numbers_again() -> None:
    for us in (
        0,
        -1,
        TODAY,
        YEAR_9999,
        YEAR_10000,
        YEAR_14645,
        BC_250,
        -210_000_000_000_000_000,
        971_890_963_199_999_999,
    ):
        assert moment_us(moment_text(us)) == us
        assert moment_us(moment_text(us).replace("T", " ")) == us
        assert days_of(date_text(us // 86_400_000_000)) == us // 86_400_000_000
    for moment in (datetime(1, 1, 1, tzinfo=UTC), datetime(2024, 2, 29, 23, 59, 59, 7, tzinfo=UTC)):
        assert moment_text(moment_us(moment.isoformat()) or 0) == moment.isoformat()
    assert moment_us("0250-10-15 19:33:20 BC") == BC_250
    assert moment_us("1850-01-01 00:00:00-04:56:02") == moment_us("1850-01-01 04:56:02Z")
    for nonsense in ("", "soon", "2024-13-01", "2023-02-29", "2024-01-01 25", "12:00", "infinity BC"):
        assert moment_us(nonsense) is None
