"""The benchmark's pure parts: inputs that are the same everywhere, medians, verdicts, tables, resumption."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench.measure import check, events, harness
from bench.measure.check import Facts
from bench.measure.datasets import DATASETS, Situation, write_input
from bench.peers import registry
from bench.write import load_tables, pictures, render, tables, targets
from bench.write.profile_tables import PROFILE_TABLES, predictions

BENCH = harness.TOP / "bench"
KEY = [*events.IDENTITY]


def made(rows: int, **how: float) -> pa.Table:
    return pa.concat_tables(events.event_blocks(rows, **how))


def keys(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in KEY), strict=True))


def test_the_same_events_for_a_seed_and_others_for_another() -> None:
    assert made(1_000).equals(made(1_000))
    assert not made(1_000).equals(made(1_000, seed=2))


def test_any_part_can_be_made_without_the_rest() -> None:
    rows = events.BLOCK + 500
    whole = made(rows)
    assert made(1_000, first=events.BLOCK - 500).equals(whole.slice(events.BLOCK - 500, 1_000))
    assert made(300).equals(whole.slice(0, 300))


def test_events_are_distinct_and_in_event_time_order() -> None:
    table = made(5_000)
    assert len(set(keys(table))) == 5_000
    times = table.column("acq_time").to_numpy()
    assert (np.diff(times) > np.timedelta64(0)).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_a_share_of_the_input_is_in_the_store(share: float) -> None:
    store, rows = set(keys(made(20_000))), keys(made(10_000, first=10_000, known=share))
    known = sum(row in store for row in rows)
    assert known == pytest.approx(share * 10_000, abs=0 if share in {0.0, 1.0} else 200)
    assert len(set(rows)) == 10_000


def test_repeats_are_copies_of_rows_before_them() -> None:
    rows = keys(made(events.BLOCK + 10_000, repeated=0.1))
    twice = len(rows) - len(set(rows))
    assert twice == pytest.approx(0.1 * len(rows), rel=0.5)
    assert len(rows) == events.BLOCK + 10_000
    fresh = set(keys(made(events.BLOCK + 10_000)))
    assert set(rows) <= fresh


@pytest.mark.parametrize("kind", events.FORMATS)
def test_each_format_holds_the_same_events(tmp_path: Path, kind: str) -> None:
    path = write_input(tmp_path, "fires", kind, 500, 0, Situation("twice", repeated=0.2))
    other = write_input(tmp_path, "fires", "parquet", 500, 0, Situation("twice", repeated=0.2))
    found = check.expected(DATASETS["fires"], [path], tmp_path)
    assert found == check.expected(DATASETS["fires"], [other], tmp_path)
    assert 300 < found.distinct < 500


def test_an_input_wants_a_store_that_holds_its_known_events(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        write_input(tmp_path, "fires", "csv", 500, 400, Situation("all there", known=1.0))


def test_the_median_is_taken_for_each_cell_over_the_runs_that_have_the_figure() -> None:
    runs = [{"peer": "a", "seconds": value} for value in (3.0, 1.0, 9.0)]
    runs += [{"peer": "b", "seconds": value} for value in (2.0, 4.0)] + [{"peer": "c"}]
    assert harness.medians(runs, ("peer",), "seconds") == {("a",): 3.0, ("b",): 3.0}


def test_rounds_take_turns_backwards_and_forwards_and_leave_out_what_is_there() -> None:
    there = {("a", 1)}
    turns = list(harness.paired(2, ["a", "b"], lambda name, number: (name, number) not in there))
    assert turns == [(1, "b"), (2, "b"), (2, "a")]


@pytest.mark.parametrize(
    ("have", "word"),
    [
        (Facts(10, 10, (7,)), "right"),
        (Facts(12, 10, (9,)), "2 duplicates"),
        (Facts(8, 8, (5,)), "2 events lost"),
        (Facts(10, 9, (7,)), "1 duplicates and 1 events lost"),
        (Facts(11, 11, (8,)), "1 events that are not in the input"),
        (Facts(10, 10, (8,)), "other values than the input's"),
        (Facts(0, 0, ()), "10 events lost"),
    ],
)
def test_a_wrong_result_is_never_called_right(have: Facts, word: str) -> None:
    assert check.verdict(Facts(10, 10, (7,)), have) == word


FACTS = {"date": "d", "machine": {"cpu": "x", "cores": 2, "memory_gib": 1, "system": "s", "python": "3"}}
FACTS |= {"packages": {"headrace": "0"}, "server": {"server_version": "18"}}


def run_of(peer: str, seconds: float, verdict: str = "right", situation: str = "fresh", code: int = 0) -> harness.Run:
    cell = {"dataset": "fires", "rows": 100, "existing": 0, "situation": situation, "format": "csv"}
    return {"peer": peer, **cell, "round": 1, "seconds": seconds, "exit_code": code, "verdict": verdict, "taken": "t c"}


def test_a_wrong_or_failed_peer_is_never_the_fastest_and_is_listed() -> None:
    runs = [run_of("headrace", 2.0), run_of("hasty", 1.0, "3 duplicates"), run_of("sound", 5.0)]
    runs += [run_of("broken", 0.1, "failed: no", code=1), run_of("raw COPY", 1.0) | {"format": "parquet"}]
    (row,) = load_tables.summary_rows(runs)
    assert (row["best"], row["times best"], row["share of bound"]) == ("sound", 2.5, 0.5)
    text = load_tables.loads({"runs": runs, "peers": {}})
    assert "| hasty | 1.00 ✗ | 1 | t c |" in text
    assert "| broken | failed | 1 | t c |" in text
    assert "- hasty, fresh, csv: 3 duplicates" in text
    drawn = pictures.pictures({"loads": {"runs": runs}})["loads-fresh.svg"]
    assert drawn.count('class="wrong"') == 1
    assert drawn.count('class="ours"') == 1


def test_the_overview_has_each_contender_once_and_marks_the_wrong() -> None:
    runs = [run_of("headrace", 2.0), run_of("sound", 5.0), run_of("hasty", 1.0, "3 duplicates")]
    runs += [run_of("raw COPY", 0.5) | {"format": "parquet"}, run_of("sound", 1.0) | {"format": "parquet"}]
    runs += [run_of("headrace", 1.0, situation="all there") | {"existing": existing} for existing in (100, 1000)]
    assert load_tables.overview({"runs": runs}).splitlines()[2:] == [
        "| raw COPY | parquet | 200 |  | 1 | t c |",
        "| hasty | csv | 100 ✗ |  | 1 | t c |",
        "| headrace | csv | 50 | 100 | 1 | t c |",
        "| sound | csv | 20 |  | 1 | t c |",
    ]


def test_one_wrong_round_makes_a_cell_wrong() -> None:
    runs = [run_of("headrace", 2.0), run_of("a", 1.0), run_of("a", 1.0, "1 events lost")]
    assert load_tables.summary_rows(runs)[0]["best"] is None


def test_every_peer_can_be_started_and_what_it_needs_is_installed_with_it() -> None:
    text = (BENCH / "peers" / "requirements.txt").read_text()
    assert len({peer.name for peer in registry.PEERS}) == len(registry.PEERS)
    for peer in registry.PEERS:
        assert (BENCH / "peers" / peer.script).is_file(), peer.name
        assert set(peer.formats) <= set(events.FORMATS)
        lines = [line for line in text.splitlines() if all(re.search(rf"\b{name}\b", line) for name in peer.packages)]
        assert lines, peer.name


def test_a_peer_whose_environment_is_not_there_is_listed_with_what_it_lacks() -> None:
    lacking = registry.missing_peers("/nowhere/bin/python")
    assert lacking["ADBC"] == "not installed: adbc-driver-postgresql, pyarrow"
    assert set(lacking) >= {peer.name for peer in registry.PEERS if peer.packages}


def test_the_figures_say_how_quiet_the_machine_was() -> None:
    runs = [{"busy": value} for value in (0.2, 0.4, 3.0)]
    assert "median 0.4, highest 3.0" in tables.facts_line({"facts": FACTS, "runs": runs})
    assert "Load average" not in tables.facts_line({"facts": FACTS, "runs": [{}]})


def test_a_broken_off_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "loads.json"
    results = harness.Results(path, FACTS)
    results.note("peers", {})
    results.add({"peer": "a", "round": 1, "exit_code": 1}, peer="a", round=1)
    results.add({"peer": "a", "round": 1, "exit_code": 0, "name": "é"}, peer="a", round=1)
    again = harness.Results(path, FACTS)
    (kept,) = again.runs
    assert {name: kept[name] for name in ("peer", "round", "exit_code", "name")} == {
        "peer": "a",
        "round": 1,
        "exit_code": 0,
        "name": "é",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S.*", kept["taken"])
    assert again.has(peer="a", round=1, exit_code=0)
    assert not again.has(peer="a", round=2)
    assert json.loads(path.read_text())["facts"] == FACTS


def test_figures_of_two_machines_do_not_meet(tmp_path: Path) -> None:
    harness.Results(tmp_path / "a.json", FACTS).save()
    with pytest.raises(SystemExit, match="measured with other machine"):
        harness.Results(tmp_path / "a.json", FACTS | {"machine": {"cpu": "y"}})


def test_only_what_is_between_the_markers_is_written() -> None:
    text = "before\n<!-- figures: a -->\nold\n<!-- end -->\nbetween\n<!-- figures: b -->\n<!-- end -->\nafter"
    once = render.filled(text, {"a": "new"})
    assert once == (
        "before\n<!-- figures: a -->\nnew\n<!-- end -->\nbetween\n"
        "<!-- figures: b -->\nNot measured yet.\n<!-- end -->\nafter"
    )
    assert render.filled(once, {"a": "new"}) == once


def test_every_generated_place_of_every_page_says_what_the_results_say() -> None:
    pages = render.pages()
    marked = {path for path in _pages() if "<!-- figures:" in path.read_text()}
    assert marked == set(pages)
    for page, sections in pages.items():
        text = page.read_text()
        assert set(re.findall(r"<!-- figures: ([\w-]+) -->", text)) <= set(sections), page
        assert render.filled(text, sections) == text, f"{page}: run `python -m bench.run render`"
    for name, picture in pictures.pictures(render.read_all()).items():
        assert (BENCH / "pictures" / name).read_text() == picture, name


def _pages() -> list[Path]:
    return [BENCH.parent / "README.md", *(BENCH.parent / "docs").rglob("*.md"), *BENCH.glob("*.md")]


def test_the_bench_page_has_a_place_for_every_question() -> None:
    text = (BENCH / "README.md").read_text()
    for name in [*tables.TABLES, "loads", "targets", *PROFILE_TABLES.keys() - {"tried"}]:
        assert text.count(f"<!-- figures: {name} -->") == 1, name


def test_every_run_says_when_and_of_which_commit_it_is() -> None:
    for content in render.read_all().values():
        assert all(run.get("taken") for run in content["runs"]), content["question"]


def rounds_of(peer: str, *seconds: float, inner: float = 0.5) -> list[harness.Run]:
    return [
        run_of(peer, took) | {"round": number, "report_seconds": took * inner, "rows": targets.SIZE}
        for number, took in enumerate(seconds, 1)
    ]


def test_contenders_are_compared_over_the_rounds_that_both_have() -> None:
    runs = [*rounds_of("headrace", 4.0, 2.0, 2.0), *rounds_of("cold", 8.0)]
    (row,) = load_tables.summary_rows(runs)
    assert (row["best"], row["times best"]) == ("cold", 2.0)  # their one round beside our same one, not our median


def test_whole_processes_are_never_compared_with_inner_time() -> None:
    ours, peer = rounds_of("headrace", 2.0, 2.0, 2.0), rounds_of("peer", 4.0, 4.0, 4.0, inner=0.25)
    told, met = targets.beside(peer, ours, 2.0)
    assert told == "2.00 (1 M rows, whole processes, 3 rounds); 1.00 (1 M rows, the load alone, 3 rounds)"
    assert met == "**no**"


def test_a_target_is_met_at_its_size_over_enough_rounds_or_not_at_all() -> None:
    ours, peer = rounds_of("headrace", 2.0, 2.0, 2.0), rounds_of("peer", 2.0, 2.0, 2.0)
    large = [run | {"rows": 5 * targets.SIZE, "report_seconds": run["report_seconds"] * 9} for run in peer]
    assert (
        targets.beside([*peer, *large], [*ours, *(run | {"rows": 5 * targets.SIZE} for run in ours)], 3.0)[1]
        == "**no**"
    )
    assert targets.beside(peer[:2], ours, 0.5)[1] == "too few rounds"
    assert targets.beside(peer, ours, 0.5)[1] == "yes"


def test_advice_that_could_not_be_wrong_is_not_counted_as_right() -> None:
    def runs(case: str, sequential: float, parallel: float, *, advised: bool) -> list[harness.Run]:
        told = {"sequential_seconds": [1, 2, 3], "parallel_seconds": [1, 2, 3], "speedup": [0.9, 1.0, 1.1]}
        ways = [("profile", told | {"parallel": advised}), ("sequential", {"report_seconds": sequential})]
        ways.append(("parallel", {"report_seconds": parallel, "workers": 2}))
        return [{"case": case, "way": way, "round": 1, "taken": "t c"} | found for way, found in ways]

    every = [*runs("close", 2.0, 2.1, advised=True), *runs("good", 4.0, 2.0, advised=True)]
    text = predictions({"runs": [*every, *runs("bad", 2.0, 4.0, advised=True)]})
    assert "Of 3 situations 2 are decidable" in text
    assert "was right in 1. The range of the speed-up held in 1 of 3." in text


def test_a_process_is_measured_by_itself_and_given_up_in_time(tmp_path: Path) -> None:
    held = np.ones(40 << 20, dtype=np.uint8)  # this process is large; the child is not
    small = harness.run_process([sys.executable, "-I", "-S", "-c", "print('said')"], scratch=tmp_path)
    assert (small.exit_code, small.said) == (0, "said\n")
    assert 0 < small.peak_bytes < held.nbytes
    large = harness.run_process([sys.executable, "-c", "held = b'1' * (90 << 20)"], scratch=tmp_path)
    assert large.peak_bytes > 90 << 20
    late = harness.run_process([sys.executable, "-c", "import time; time.sleep(60)"], scratch=tmp_path, timeout=0.5)
    assert late.exit_code is None
    failed = harness.run_process([sys.executable, "-c", "raise SystemExit(7)"], scratch=tmp_path)
    assert failed.exit_code == 7


def test_a_question_runs_its_own_module_wherever_the_process_stands(tmp_path: Path) -> None:
    path = write_input(tmp_path, "fires", "parquet", 1_000, 0, Situation("fresh"))
    done = harness.run_module("bench.questions.sqlite", "keyed", str(path), str(tmp_path / "x.db"), scratch=tmp_path)
    assert done.exit_code == 0, done.complaint
    assert json.loads(done.said)["seconds"] > 0
