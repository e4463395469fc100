"""Which cases of a test run in ``make test`` is told by where the test stands, not by what it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
MODULE = """
import pytest

@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request):
    return request.param

@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2), (3, 3)])
def test_{first}(store_url, n, m): ...

@pytest.mark.slow
def test_{second}(store_url): ...

def test_both(store_url): ...

@pytest.mark.parametrize("n", [1, 2, 3])
def test_last(store_url, n): ...
"""


def collected(
    folder: Path, *words: str, first: str = "a", second: str = "b", scale: str = "", room: str = "faults"
) -> list[str]:
    """The tests that pytest would run, sorted, without the function's name."""
    inside = folder / room
    inside.mkdir(parents=True)
    (inside / "test_it.py").write_text(MODULE.format(first=first, second=second))
    command = [sys.executable, "-m", "pytest", "-p", "support.chosen_tests", "-c", os.devnull, "--collect-only", "-q"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "HEADRACE_TEST_SCALE": scale,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command += ["-p", "no:cacheprovider", "--rootdir", str(folder), "-W", "ignore", *(words or ("test_it.py",))]
    done = subprocess.run(command, cwd=inside, env=environment, capture_output=True, text=True, check=True)
    return sorted(line.partition("[")[2].rstrip("]") for line in done.stdout.splitlines() if "::" in line)


CHOSEN = sorted(["sqlite-1-1", "sqlite", "postgresql-2"])


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_new_name_changes_nothing(tmp_path: Path, names: tuple[str, str]) -> None:
    assert collected(tmp_path, first=names[0], second=names[1]) == CHOSEN


def test_cases_that_are_left_out_are_counted(tmp_path: Path) -> None:
    assert collected(tmp_path, "test_it.py", "-k", "postgresql") == ["postgresql-2"]


def test_who_names_a_test_gets_it_and_in_full_all_run(tmp_path: Path) -> None:
    assert collected(tmp_path, "test_it.py::test_b") == ["postgresql", "sqlite"]
    assert len(collected(tmp_path, scale="full", room="races")) == 16
    assert len(collected(tmp_path / "x", scale="cases")) == 16


def test_some_folders_run_every_case(tmp_path: Path) -> None:
    assert len(collected(tmp_path, room="unit")) == 14
