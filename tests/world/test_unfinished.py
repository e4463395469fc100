"""What was killed is told as that, what is left unfinished is named, and what is refused leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.program import Headrace

from headrace import Engine, load
from headrace.errors import UsageError

ROWS = 200
KILLED = """
import os, signal, sys
from headrace.api import load_with
from headrace.options.load import options_of
from headrace.observability.stages import Silent

class Killer(Silent):
    left = 3
    def committed(self, piece, done):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

load_with(options_of(dict(to=sys.argv[1], table="t", id=["key"], chunk_rows=20)), [sys.argv[2]], listener=Killer())
"""


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text("key,value\n" + "".join(f"{key},v{key}\n" for key in range(ROWS)))
    return path


def killed(headrace: Headrace, events: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, headrace.url, str(events)], check=False)
    assert done.returncode == -9


def tables(url: str) -> list[str]:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
    return sorted(sa.inspect(engine).get_table_names())


def test_a_run_that_was_killed_shows_what_it_did_and_that_nobody_works_at_it(
    store_url: str, headrace: Headrace, events: Path
) -> None:
    killed(headrace, events)
    (run,) = headrace.json("runs", "list")["runs"]
    receipts = headrace.query("SELECT count(*), sum(inserted) FROM headrace_receipts")
    assert (run["chunks"], run["inserted"]) == tuple(map(int, receipts[0]))
    assert run["inserted"] >= 60
    assert run["alive"] is False
    text = headrace.run("runs", "list").stdout
    assert "its process is gone: the same command resumes it" in text
    headrace.query("UPDATE headrace_receipts SET committed_at = '2020-01-01 00:00:00'")
    assert headrace.json("runs", "show", run["run_id"])["status"] == "killed"
    assert " days ago" in headrace.run("runs", "list").stdout
    headrace.load(events, "--table", "t", "--id", "key", "--chunk-rows", 20)
    (run,) = headrace.json("runs", "list")["runs"]
    assert (run["status"], run["inserted"], "alive" in run) == ("done", ROWS, False)


@pytest.mark.parametrize(
    ("told", "difference"),
    [
        (["--chunk-rows", 50], "chunk_rows was 20, now 50"),
        (["--chunk-rows", 20, "--provider", "p"], 'provider was "default", now "p"'),
        (["--chunk-rows", 20, "--select", "SELECT * FROM source"], 'select was not said, now "SELECT * FROM source"'),
        (["--chunk-rows", 20, "--alert", "low=value = 'v1'"], "alerts was not said"),
    ],
)
def test_the_same_inputs_told_otherwise_name_the_run_that_is_left(
    store_url: str, headrace: Headrace, events: Path, told: list[Any], difference: str
) -> None:
    killed(headrace, events)
    done = headrace.run("load", events, "--table", "t", "--id", "key", *told)
    assert "of the same inputs is unfinished" in done.stderr
    assert difference in done.stdout
    again = headrace.run("load", events, "--table", "t", "--id", "key", "--chunk-rows", 20)
    assert "resumed" in again.stdout
    assert "unfinished" not in again.stdout
    other = headrace.folder / "other.csv"
    other.write_text("key,value\n1,v1\n")
    assert "unfinished" not in headrace.run("load", other, "--table", "t", "--id", "key").stdout


@pytest.mark.parametrize(
    "wrong",
    [
        ["--id", "nothing"],
        ["--time", "value"],
        ["--type", "nothing=integer"],
        ["--alert", "bad=nothing > 1"],
        ["--revisions", "update", "--version-column", "nothing", "--id", "key"],
    ],
)
def test_what_is_refused_has_made_no_table(store_url: str, headrace: Headrace, events: Path, wrong: list[str]) -> None:
    headrace.run("load", events, "--table", "t", *wrong, expect=2)
    if store_url.startswith("sqlite"):
        assert not list(Path(store_url.removeprefix("sqlite:///")).parent.glob("headrace.db*"))
    else:
        assert tables(store_url) == []
    assert headrace.load(events, "--table", "t", "--id", "key")["inserted"] == ROWS


def test_what_is_refused_in_a_database_of_others_leaves_it_as_it_was(store_url: str, headrace: Headrace) -> None:
    headrace.query("CREATE TABLE others (a INTEGER)")
    with pytest.raises(UsageError):
        load([{"key": 1}], to=store_url, table="t", id=["nothing"])
    with Engine(to=store_url, table="t", id=["nothing"]) as engine, pytest.raises(UsageError):
        engine.ingest([{"key": 1}])
    assert tables(store_url) == ["others"]
    with Engine(to=store_url, table="t", id=["key"]) as engine:
        assert engine.ingest([{"key": 1}]).inserted == 1
