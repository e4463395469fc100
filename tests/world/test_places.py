"""SQLite files and in-memory databases where the process moves, and where files, links and folders do."""

from __future__ import annotations

import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.polling import rounds

import headrace as library
from headrace.errors import ConfigurationError
from headrace.options.load import LoadOptions, database_url
from headrace.storage.sqlite.file_place import absolute, file_of, in_memory


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process stands in ``here``; what is returned is another folder, with a database under the same name."""
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "there":
            library.load([{"k": -1}], to="sqlite:///x.db", table="ev", id=["k"])
    return tmp_path / "there"


def keys(file: Path) -> list[int]:
    with closing(sqlite3.connect(file)) as connection, connection:
        found = [k for (k,) in connection.execute("SELECT k FROM ev ORDER BY k")]
    connection.close()
    return found


def rows(first: int, count: int) -> list[dict[str, int]]:
    return [{"k": k} for k in range(first, first + count)]


@pytest.mark.parametrize("to", ["sqlite:///x.db", "sqlite:///./x.db", "sqlite:///file:x.db?uri=true", None])
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_a_warm_engine_stays_with_its_file_wherever_the_process_goes(
    elsewhere: Path, to: str | None, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path.cwd()
    if to is None:
        monkeypatch.setenv("HEADRACE_DATABASE_URL", "sqlite:///x.db")
    how = {"mode": mode, "workers": 2}
    with library.Engine(to=to, table="ev", id=["k"], **how) as engine:  # type: ignore[arg-type]
        engine.ingest(rows(0, 5))
        os.chdir(elsewhere)
        assert engine.ingest(rows(0, 10)).inserted == 5
        os.chdir(here)
        assert engine.ingest(rows(5, 10)).inserted == 5
    assert keys(here / "x.db") == list(range(15))
    assert keys(elsewhere / "x.db") == [-1]


def test_an_engine_that_is_opened_later_loads_into_the_file_that_was_named(elsewhere: Path) -> None:
    here, engine = Path.cwd(), library.Engine(to="sqlite:///x.db", table="ev", id=["k"])
    os.chdir(elsewhere)
    with engine:
        engine.ingest(rows(0, 3))
    assert (keys(here / "x.db"), keys(elsewhere / "x.db")) == ([0, 1, 2], [-1])


def test_the_polls_of_a_file_named_from_here_stay_here(elsewhere: Path) -> None:
    """A function of the user's goes elsewhere in the middle of a service."""
    here = Path.cwd()
    (here / "feed.csv").write_text("k\n1\n")
    (elsewhere / "feed.csv").write_text("k\n666\n")
    text = 'database = "sqlite:///x.db"\n[providers.p]\npath = "feed.csv"\nid = ["k"]\ntable = "ev"\ninterval = "1s"\n'
    with rounds(Path(), text) as go:
        os.chdir(elsewhere)
        assert go.one().outcome == "loaded"
        (here / "feed.csv").write_text("k\n1\n2\n")
        assert go.one(60).outcome == "loaded"
    assert (keys(here / "x.db"), keys(elsewhere / "x.db")) == ([1, 2], [-1])


@pytest.mark.parametrize(
    ("url", "memory"),
    [
        ("sqlite://", True),
        ("sqlite:///:memory:", True),
        ("sqlite:///file::memory:?uri=true", True),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", True),
        ("sqlite:///x.db", False),
        ("sqlite:////tmp/x.db", False),
        ("postgresql://memory/:memory:", False),
        ("no url at all", False),
    ],
)
def test_what_lies_in_memory_is_told_from_what_lies_on_a_disk(url: str, memory: bool) -> None:
    assert in_memory(url) is memory
    assert (absolute(url) == url) is (url != "sqlite:///x.db")


@pytest.mark.parametrize("folder", ["a b%41#", "wh\u00e4t? yes=1&b", "a:b@c"])
def test_a_path_is_made_absolute_and_nothing_else_of_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    odd = tmp_path / folder
    odd.mkdir()
    monkeypatch.chdir(odd)
    for url in ("sqlite:///x.db", "sqlite+pysqlite:///x.db?timeout=3", "sqlite:///file:x.db?uri=true&mode=rwc"):
        parsed = sa.make_url(database_url(url))
        assert file_of(parsed) == odd / "x.db"
        assert {**parsed.query, "uri": ""} == {**sa.make_url(url).query, "uri": ""}
        with sa.create_engine(parsed).connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
        monkeypatch.chdir(tmp_path)
        assert absolute(database_url(str(parsed))) == database_url(str(parsed))
        monkeypatch.chdir(odd)
    assert [one.name for one in odd.iterdir()] == ["x.db"]
    assert database_url("postgresql://u:p%40w@h/x.db") == "postgresql://u:p%40w@h/x.db"


@pytest.mark.parametrize("to", ["sqlite://", "sqlite:///file::memory:?uri=true"])
def test_a_database_in_memory_is_refused_to_workers_and_loaded_without(
    to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(2) as threads:
        for executor in (None, threads):
            with pytest.raises(ConfigurationError, match="this process's memory"):
                library.load(rows(0, 3), to=to, table="ev", id=["k"], mode="parallel", workers=2, executor=executor)
    monkeypatch.setenv("ENABLE_PARALLEL_CHUNK_PROCESSING", "true")
    report = library.load(rows(0, 3), to=to, table="ev", id=["k"])
    assert (report.mode, report.inserted) == ("sequential", 3)
    with library.Engine(to=to, table="ev", id=["k"]) as engine:
        engine.ingest(rows(0, 3))
        assert engine.ingest(rows(0, 5)).inserted == 2


def removed(file: Path) -> None:
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()


def copied(file: Path, to: Path) -> None:
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(to)) as copy, copy:
        source.backup(copy)
    copy.close()
    source.close()


def replaced(file: Path) -> None:
    """By a backup of it, as a restore does it."""
    copied(file, file.with_name("copy.db"))
    file.with_name("copy.db").rename(file)


def moved(file: Path) -> None:
    for one in file.parent.glob(f"{file.name}*"):
        one.rename(one.with_name(one.name.replace("x.db", "old.db")))


def folder_swapped(file: Path) -> None:
    file.parent.rename(file.parent.with_name("aside"))
    shutil.copytree(file.parent.with_name("aside"), file.parent)


def link_swapped(file: Path) -> None:
    other = file.with_name("other.db")
    copied(file, other)
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize("swap", [removed, replaced, moved, folder_swapped, link_swapped])
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_events_go_into_the_file_that_lies_there_now(tmp_path: Path, swap: object, mode: str) -> None:
    (tmp_path / "db").mkdir()
    file = tmp_path / "db" / "x.db"
    if swap is link_swapped:
        file.symlink_to(tmp_path / "db" / "real.db")
    assert callable(swap)
    how = {"to": f"sqlite:///{file}", "table": "ev", "id": ["k"], "mode": mode, "workers": 2}
    with library.Engine(**how) as engine:  # type: ignore[arg-type]
        engine.ingest(rows(0, 3))
        swap(file)
        assert engine.ingest(rows(3, 3)).inserted == 3
        assert set(keys(file)) >= {3, 4, 5}, "it lies where the path leads to"
    library.load(rows(0, 6), **how)  # type: ignore[arg-type]
    assert keys(file) == list(range(6))


def test_workers_that_outlive_a_file_open_the_one_that_lies_there_now(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with ThreadPoolExecutor(2) as threads:
        for first in (0, 3):
            report = library.load(
                rows(first, 3), to=f"sqlite:///{file}", table="ev", id=["k"], mode="parallel", executor=threads
            )
            assert report.inserted == 3
            if not first:
                removed(file)
    assert keys(file) == [3, 4, 5]


def test_options_keep_what_they_were_given() -> None:
    assert LoadOptions(to="sqlite:///x.db").to == "sqlite:///x.db", "the command line and Python make it absolute"
