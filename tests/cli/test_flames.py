"""``--flamegraph``: a picture by whichever sampler is installed; without one, nothing runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
from support.program import Headrace

PY_SPY = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
ROWS = 60_000  # enough for some samples
HOW = ("--table", "e", "--id", "n", "--chunk-rows", "20000")


@pytest.fixture
def events(tmp_path: Path) -> str:
    (tmp_path / "e.csv").write_text("n,v\n" + "".join(f"{n},{n % 7}\n" for n in range(ROWS)))
    return "e.csv"


@pytest.mark.skipif(PY_SPY is None, reason="py-spy is not installed (pip install py-spy)")
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_py_spy_draws_all_threads_and_the_workers(sqlite_url: str, tmp_path: Path, events: str, mode: str) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    report = headrace.load(events, *HOW, "--mode", mode, "--workers", "2", "--flamegraph", "flames.svg")
    assert report["inserted"] == ROWS
    drawn = (tmp_path / "flames.svg").read_text()
    assert drawn.startswith("<?xml")
    # the commit is a thread's or a worker's, the chunks are read in another: what one thread's view would lack
    assert "ingest.py" in drawn
    assert "sqlite.py" in drawn
    if mode == "parallel":
        assert "multiprocessing" in drawn


@pytest.mark.skipif(PY_SPY is None, reason="py-spy is not installed (pip install py-spy)")
def test_a_profile_draws_a_run_of_its_own_and_a_trace(sqlite_url: str, tmp_path: Path, events: str) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    headrace.json("profile", events, *HOW, "--workers", "2", "--flamegraph", "flames.svg", "--trace", "trace.json")
    assert "ingest.py" in (tmp_path / "flames.svg").read_text()
    assert '"commit"' in (tmp_path / "trace.json").read_text()


@pytest.mark.skipif(PY_SPY is None, reason="py-spy is not installed (pip install py-spy)")
def test_the_picture_is_there_after_a_failure_too(sqlite_url: str, tmp_path: Path, events: str) -> None:
    (tmp_path / "broken.py").write_text(
        "import time\ndef broken(events):\n    time.sleep(0.5)\n    raise RuntimeError('no')\n"
    )
    headrace = Headrace(sqlite_url, tmp_path)
    headrace.run("load", events, *HOW, "--enrich", "broken:broken", "--flamegraph", "flames.svg", expect=1)
    assert (tmp_path / "flames.svg").read_text().startswith("<?xml")


@pytest.fixture
def without_py_spy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No py-spy on the path; beside this Python there may be one still."""
    if Path(sys.executable).with_name("py-spy").exists():
        pytest.skip("py-spy is installed beside this Python")
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("pyinstrument") is None, reason="pyinstrument is not installed")
def test_pyinstrument_takes_its_place(sqlite_url: str, tmp_path: Path, events: str, without_py_spy: None) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    assert headrace.load(events, *HOW, "--flamegraph", "flames.html")["inserted"] == ROWS
    drawn = (tmp_path / "flames.html").read_text()
    assert "<html" in drawn
    assert "ingest" in drawn


@pytest.mark.skipif(importlib.util.find_spec("pyinstrument") is not None, reason="pyinstrument is installed")
@pytest.mark.parametrize("command", ["load", "profile"])
def test_without_a_sampler_nothing_runs(
    sqlite_url: str, tmp_path: Path, events: str, without_py_spy: None, command: str
) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    refused = headrace.run(command, events, *HOW, "--flamegraph", "flames.svg", expect=2)
    assert "pip install py-spy" in refused.stderr
    assert not (tmp_path / "db").exists()
    assert headrace.query_one_if_table("e", "SELECT 1") is None
