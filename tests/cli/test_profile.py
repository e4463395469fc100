"""``headrace profile``: the real table stays as it was, what it measures is what happens, the criteria can fail."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from support.program import Headrace
from support.servers import postgres_with_statements

HOW = ("--table", "e", "--id", "n,at", "--time", "at", "--chunk-rows", "500")


@pytest.fixture
def events(tmp_path: Path) -> str:
    rows = [f"{n},2024-01-{1 + n // 150:02}T00:00:00Z,{n % 7}" for n in range(4_000)]
    (tmp_path / "e.csv").write_text("n,at,v\n" + "\n".join([*rows, *rows[::10]]) + "\n")
    return "e.csv"


def left_behind(headrace: Headrace) -> list[str]:
    """What a trial could leave: schemas, or files."""
    if headrace.url.startswith("sqlite"):
        return [path.name for path in headrace.folder.iterdir() if "headrace-profile" in path.name]
    return [str(name) for (name,) in headrace.query("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'headrace%'")]


def test_a_profile_measures_a_sample_and_leaves_nothing(headrace: Headrace, events: str) -> None:
    found = headrace.json("profile", events, *HOW, "--sample", "900", "--workers", "2", "--report", "page.html")
    assert found["sample"]["read"] == 1_000
    assert found["sample"]["mode"] == "sequential"
    assert found["sample_parallel"]["mode"] == "parallel"
    assert found["sample_parallel"]["workers"] == 2
    assert [one["holds"] for one in found["criteria"] if "CPU" not in one["name"]] == [True, True, True]
    assert {"read", "prepare", "COPY", "commit"} <= {one["name"] for one in found["stages"]}
    low, expected, high = found["verdict"]["sequential_seconds"]
    assert 0 < low <= expected <= high
    assert 3_900 < found["rows"] < 4_900
    assert found["verdict"]["advice"] in (headrace.folder / "page.html").read_text().replace("&#x27;", "'")
    assert left_behind(headrace) == []
    assert headrace.query_one_if_table("e", "SELECT 1") is None


def test_both_ways_load_the_same_sample_though_a_run_begins_with_a_small_chunk(headrace: Headrace) -> None:
    rows = "".join(f"{n}\n" for n in range(80_000))
    (headrace.folder / "many.csv").write_text("n\n" + rows)
    how = ("--table", "e", "--id", "n", "--chunk-rows", "35000", "--workers", "2")
    found = headrace.json("profile", "many.csv", *how, "--sample", "20000")
    assert found["sample"]["read"] == found["sample_parallel"]["read"] == 35_000
    assert [one["holds"] for one in found["criteria"] if "CPU" not in one["name"]] == [True, True, True]
    assert headrace.load("many.csv", *how[:6])["chunks"] == 3
    again = headrace.json("profile", "many.csv", *how, "--sample", "20000")
    assert again["sample"]["duplicate_in_store"] == 35_000


@pytest.mark.parametrize("strategy", ["partitioned", "upsert"])
def test_what_each_chunk_took_sums_up_to_what_the_runs_took(headrace: Headrace, events: str, strategy: str) -> None:
    found = headrace.json("profile", events, *HOW, "--sample", "0", "--workers", "2", "--strategy", strategy)
    for way, report in (("sequential", found["sample"]), ("parallel", found["sample_parallel"])):
        told = found["chunks"][way]
        chunks = told["chunks"]
        assert (told["total"], told["merged"], len(chunks)) == (report["chunks"], 1, 9)
        assert [(one["source"], one["first_row"], one["rows"]) for one in chunks] == [
            ("e.csv", row, min(500, 4_400 - row)) for row in range(0, 4_400, 500)
        ]
        assert all(one["bytes"] >= one["rows"] * 8 for one in chunks)
        each = [one["stages"] for one in chunks]
        for stage, seconds in report["stages"].items():
            sums = sum(one[stage]["seconds"] for one in [*each, told["besides"]] if stage in one)
            assert sums == pytest.approx(seconds, abs=0.001), stage
        assert told["besides"].keys() <= {"agree", "read", "snapshot", "wait.memory", "wait.chunk", "wait.commit"}
        assert all({"read", "spool", "prepare"} <= one.keys() for one in each)
        together = 2 if way == "parallel" and strategy == "partitioned" else 1  # chunks in a micro-batch
        for at, one in enumerate(each):
            assert ("decide" in one) == ("commit" in one) == (at % together == 0)
        assert sum(one["decide"]["rows"] for one in each if "decide" in one) == 4_400


def test_a_profile_knows_what_the_real_table_knows_and_only_reads_it(headrace: Headrace, events: str) -> None:
    headrace.load(events, *HOW)
    before = headrace.query("SELECT count(*), max(headrace_receipt) FROM e")
    runs = headrace.json("runs", "list")
    found = headrace.json("profile", events, *HOW, "--sample", "0", "--workers", "2", "--check")
    for name in ("sample", "sample_parallel"):
        assert (found[name]["read"], found[name]["duplicate_in_store"]) == (4_400, 4_000)
        assert found[name]["inserted"] == 0
    assert found["checked"]["equal"]
    seen = found["checked"]["sequential"] / found["checked"]["parallel"]
    # the advice is that of the seconds that were seen, whatever the model has expected
    assert found["verdict"]["parallel"] is (seen >= 1.1)
    assert f"{seen:.2f} times as fast, as measured" in found["verdict"]["advice"]
    assert headrace.query("SELECT count(*), max(headrace_receipt) FROM e") == before
    assert headrace.json("runs", "list") == runs
    assert left_behind(headrace) == []


def test_in_place_the_sample_is_really_loaded(headrace: Headrace, events: str) -> None:
    headrace.json("profile", events, *HOW, "--sample", "900", "--workers", "2", "--in-place")
    assert headrace.count("e") == 1_000
    assert headrace.load(events, *HOW)["duplicate_in_store"] == 1_000
    assert left_behind(headrace) == []


def test_ids_that_hang_on_the_chunks_are_found_out(headrace: Headrace, events: str) -> None:
    chunkwise = "SELECT *, row_number() OVER () AS place FROM source"
    found = headrace.json(
        *("profile", events, "--table", "e", "--id", "n,place", "--chunk-rows", "500", "--select", chunkwise),
        *("--sample", "1500", "--workers", "2"),
        expect=4,
    )
    (ids,) = (one for one in found["criteria"] if one["name"] == "IDs are deterministic")
    assert not ids["holds"]
    assert found["verdict"]["advice"].startswith("stay sequential, because this does not hold: IDs are deterministic")
    assert not found["verdict"]["parallel"]


def test_a_failure_leaves_nothing_either(headrace: Headrace, events: str) -> None:
    (headrace.folder / "broken.py").write_text("def broken(events):\n    raise RuntimeError('no')\n")
    headrace.run("profile", events, *HOW, "--enrich", "broken:broken", expect=1)
    assert left_behind(headrace) == []


def test_the_text_fits_a_screen(headrace: Headrace, events: str) -> None:
    text = headrace.run("profile", events, *HOW, "--workers", "2").stdout
    assert len(text.splitlines()) <= 40
    assert text.splitlines()[-1].strip().startswith(("stay sequential, because", "--mode parallel --strategy"))


def test_the_servers_statements_are_shown_where_it_keeps_them(tmp_path: Path, events: str) -> None:
    with postgres_with_statements() as server:
        headrace = Headrace(server.url, tmp_path)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("SELECT 'before the run'")  # not one of the run's
        found = headrace.json("profile", events, *HOW, "--sample", "900", "--workers", "2", "--report", "page.html")
        statements = found["server"]["statements"]
        assert all(one["calls"] > 0 and one["seconds"] >= 0 for one in statements), statements
        seconds = [one["seconds"] for one in statements]
        assert seconds == sorted(seconds, reverse=True)
        texts = [one["text"] for one in statements]
        (copied,) = [one for one in statements if one["text"].startswith("COPY")]
        assert (copied["calls"], copied["rows"]) == (found["sample"]["chunks"], found["sample"]["inserted"])
        assert any("headrace_receipts" in one for one in texts)
        assert not any("before the run" in one or "pg_stat_" in one for one in texts)
        assert "its statement COPY" in (tmp_path / "page.html").read_text()


def test_negative_control_a_server_without_the_extension_says_nothing_of_statements(
    headrace: Headrace, events: str
) -> None:
    found = headrace.json("profile", events, *HOW, "--sample", "900", "--workers", "2")
    assert found["server"]["statements"] is None
