"""The page of what was tried is made of all that keeps records, and of nothing that is meant to fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import evidence

TESTS = Path(__file__).resolve().parents[2]
KEEPS = re.compile(r"^from support.evidence import .*\bkeep", re.MULTILINE)


def test_every_suite_that_keeps_records_is_run_by_make_reliability() -> None:
    listed = re.search(r"^EVIDENCE := ((?:.*\\\n)*.*)", (TESTS.parent / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    places = [TESTS.parent / place for place in listed[1].replace("\\", "").split()]
    keeping = [path for path in TESTS.rglob("test_*.py") if KEEPS.search(path.read_text())]
    assert keeping
    assert [path for path in keeping if not any(path.is_relative_to(place) for place in places)] == []
    assert [place for place in places if not any(path.is_relative_to(place) for path in keeping)] == []


def test_pairs_that_are_judged_wrong_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    evidence.keep_pairs("x", "y", ["a", "a", "b", None, None], ["1", "2", "1", None, "3"])
    found = capsys.readouterr().out
    # three pairs, one of them of one meaning and two IDs, one the other way round; an ID where none should be
    assert '"tries": 5, "lost": 1, "duplicated": 1, "unexpected": 1,' in found


def test_a_run_that_is_to_fail_keeps_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_EVIDENCE", "/nowhere/evidence")
    assert "HEADRACE_EVIDENCE" not in evidence.unkept()


def test_the_page_is_summed_as_its_lines_say_faults_apart_from_comparisons_of_ids() -> None:
    text = (TESTS.parent / "docs" / "reliability.md").read_text()
    block = text[text.index(evidence.BEGIN) + len(evidence.BEGIN) : text.index(evidence.END)]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.strip().splitlines()[2:]]
    lines, sums = [row for row in rows if not row[0].startswith("**")], rows[-2:]
    assert all(row[-1] for row in lines), "a line without a date and a commit"
    records = [
        evidence.Record(row[0], row[1], row[2], *(int(cell.replace(",", "")) for cell in row[4:8]), seed=0, rows=0)
        for row in lines
    ]
    told = [line.split("|")[5:9] for line in evidence.table(records).splitlines()[-2:]]
    assert [[cell.strip() for cell in row] for row in told] == [row[4:8] for row in sums]
    assert [row[0] for row in sums] == ["**all faults**", "**all comparisons of IDs**"]


def test_a_comparison_of_ids_is_never_counted_as_a_fault() -> None:
    compared = evidence.Record("canonical forms: date", "in the input", "CSV", 900, 0, 0, 0, 0, 7)
    killed = evidence.Record("SIGKILL", "at random", "sqlite", 3, 0, 0, 0, 0, 7)
    faults, comparisons = evidence.table([compared, killed]).splitlines()[-2:]
    assert "| **3** |" in faults
    assert "| **900** |" in comparisons


def test_a_record_says_when_and_of_which_commit_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    evidence.keep(evidence.Record("SIGKILL", "at random", "sqlite", 3, 0, 0, 0, 0, 7))
    assert re.search(r'"taken": "\d{4}-\d\d-\d\d \w', capsys.readouterr().out)
