"""The page of what was tried is made of all that keeps records, and of nothing that is meant to fail."""

from __future__ import annotations

import re
from pathlib import Path

import evidence
import pytest

TESTS = Path(__file__).resolve().parents[1]
KEEPS = re.compile(r"^from evidence import .*\bkeep", re.MULTILINE)


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
