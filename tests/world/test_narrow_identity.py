"""An identity that is too narrow shows itself: of the duplicates, some are compared with the row that they repeat."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.polling import rounds
from support.program import Headrace

import headrace as library
from headrace.observability import prometheus
from headrace.observability.observers import observing

# a station's name makes no observation
STATIONS, READINGS = 50, 3_000
NARROW = [{"station": number % STATIONS, "v": number, "unit": "°C"} for number in range(READINGS)]
WORDS = "is --id too narrow, or does the feed revise its events (--revisions)?"


def test_duplicates_in_the_input_that_carry_other_values_are_told(headrace: Headrace) -> None:
    lines = "".join(f"{row['station']},{row['v']},{row['unit']}\n" for row in NARROW)
    (headrace.folder / "in.csv").write_text("station,v,unit\n" + lines)
    told = headrace.run("load", "in.csv", "--table", "t", "--id", "station").stdout
    assert f"of 1,000 duplicates compared, 1,000 have other values in v: {WORDS}" in told
    report = headrace.load("in.csv", "--table", "u", "--id", "station")
    assert (report["duplicates_compared"], report["duplicates_differing"]) == (1_000, 1_000)
    assert report["differing_columns"] == {"v": 1_000}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"mode": "parallel", "workers": 2},
        {"mode": "parallel", "workers": 2, "strategy": "upsert"},
        {"mode": "parallel", "workers": 2, "strategy": "locked"},
    ],
    ids=["sequential", "partitioned", "upsert", "locked"],
)
def test_a_later_load_is_compared_with_what_the_table_holds(headrace: Headrace, how: dict[str, Any]) -> None:
    first, second = NARROW[:STATIONS], NARROW[STATIONS : 2 * STATIONS]
    library.load(first, to=headrace.url, table="t", id=["station"])
    again = library.load(first, to=headrace.url, table="t", **how)
    assert (again.duplicates_compared, again.duplicates_differing) == (STATIONS, 0)
    assert WORDS not in again.to_text()
    other = library.load(second, to=headrace.url, table="t", **how)
    assert (other.duplicates_compared, other.duplicates_differing) == (STATIONS, STATIONS)
    assert f"of {STATIONS} duplicates compared, {STATIONS} have other values in v" in other.to_text()


def test_values_are_compared_and_not_how_they_are_written(headrace: Headrace) -> None:
    (headrace.folder / "1.csv").write_text(
        "id,at,mag,note\n1,2024-01-01T00:00:00Z,4.50,\n2,2024-01-01T01:00:00Z,1e1,x\n"
    )
    (headrace.folder / "2.csv").write_text(
        "id,at,mag,note\n1,2024-01-01 01:00:00+01:00,4.5,\n2,2024-01-01T01:00:00.000Z,10,x\n"
    )
    words = ["--table", "t", "--id", "id", "--timezone", "UTC"]
    headrace.load("1.csv", *words)
    for files in (["2.csv"], ["1.csv", "2.csv"]):
        report = headrace.load(*files, *words)
        assert report["duplicates_compared"] > 0
        assert report["duplicates_differing"] == 0


def test_nulls_and_what_is_no_number_equal_themselves_and_nothing_else(headrace: Headrace) -> None:
    nan = math.nan
    rows = [{"id": 1, "x": nan}, {"id": 1, "x": nan}, {"id": 2, "x": None}, {"id": 2, "x": None}]
    same = library.load(rows, to=headrace.url, table="t", id=["id"])
    assert (same.duplicates_compared, same.duplicates_differing) == (2, 0)
    rows = [{"id": 3, "x": nan}, {"id": 3, "x": 1.0}, {"id": 4, "x": 0.0}, {"id": 4, "x": None}, {"id": 4, "x": -0.0}]
    assert library.load(rows, to=headrace.url, table="u", id=["id"]).duplicates_differing == 2


def test_columns_that_the_input_does_not_have_are_not_compared(headrace: Headrace) -> None:
    library.load([{"id": 1, "a": 1, "b": 2}], to=headrace.url, table="t", id=["id"])
    report = library.load([{"id": 1, "a": 1}], to=headrace.url, table="t")
    assert (report.duplicates_compared, report.duplicates_differing) == (1, 0)


def test_nothing_is_counted_twice_where_revisions_are_looked_at(headrace: Headrace) -> None:
    report = library.load(NARROW, to=headrace.url, table="t", id=["station"], revisions="report")
    assert (report.revised, report.duplicates_compared) == (READINGS - STATIONS, 0)
    whole = library.load([*NARROW, *NARROW], to=headrace.url, table="u")
    assert (whole.duplicate_in_input, whole.duplicates_compared) == (READINGS, 0)


def test_an_engine_tells_of_its_second_batch(headrace: Headrace) -> None:
    with library.Engine(to=headrace.url, table="t", id=["station"]) as engine:
        assert engine.ingest(NARROW[:STATIONS]).duplicates_compared == 0
        assert engine.ingest(NARROW[STATIONS : 2 * STATIONS]).duplicates_differing == STATIONS


def test_a_poll_says_it_logs_it_and_counts_it(headrace: Headrace, caplog: pytest.LogCaptureFixture) -> None:
    entry = '[providers.p]\npath = "p.csv"\ninterval = "1s"\ntable = "t"\nid = ["station"]\n'
    registry = CollectorRegistry()

    def poll(first: int) -> Any:
        lines = "".join(f"{row['station']},{row['v']}\n" for row in NARROW[first : first + STATIONS])
        (headrace.folder / "p.csv").write_text("station,v\n" + lines)
        return go(60)

    database = f'database = "{headrace.url}"\n'
    with (
        observing(prometheus.observer(registry)),
        caplog.at_level(logging.WARNING, "headrace.run"),
        rounds(headrace.folder, database + entry) as go,
    ):
        assert "have other values" not in poll(0).to_text()
        told = poll(STATIONS)
    assert f"{STATIONS} of {STATIONS} duplicates compared have other values" in told.to_text()
    (provider,) = json.loads(told.to_json())["providers"]
    assert (provider["duplicates_compared"], provider["duplicates_differing"]) == (STATIONS, STATIONS)
    assert WORDS in caplog.text
    feed = {"provider": "p", "table": "t"}
    for name in ("compared", "differing"):
        assert registry.get_sample_value(f"headrace_duplicates_{name}_total", feed) == STATIONS
