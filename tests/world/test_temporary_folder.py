"""A cleaner of the temporary folder takes what an engine or a load keeps there: it is made again, nothing is lost."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.feeds import Answer, feeds_server
from support.program import Headrace

import headrace as hr
from headrace.api import load_with
from headrace.errors import HeadraceError
from headrace.observability.stages import Silent
from headrace.options.load import options_of
from headrace.runtime.scratch import scratch_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A temporary folder of its own, here and in the workers; the database server's is another."""
    if "store_url" in request.fixturenames:
        request.getfixturevalue("store_url")
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def whole(folder: Path) -> None:
    for one in folder.glob("headrace-*"):
        shutil.rmtree(one, ignore_errors=True)


def files(folder: Path) -> None:
    """By age, file by file: folders that are not empty stay."""
    for one in folder.glob("headrace-*/**/*"):
        if one.is_file():
            one.unlink(missing_ok=True)


def locks(folder: Path) -> None:
    for one in folder.glob("headrace-*/.lock"):
        one.unlink()


CLEANERS = [whole, files, locks]


@pytest.mark.parametrize("clean", CLEANERS, ids=lambda clean: clean.__name__)
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_an_engine_goes_on_when_its_temporary_folder_was_cleaned(
    store_url: str,
    tmp_path: Path,
    temporary: Path,
    mode: str,
    clean: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.partitioning.snapshot._IN_MEMORY", 64)  # IDs lie in files soon
    with hr.Engine(to=store_url, table="ev", id=["k"], mode=mode, workers=2) as engine:
        for number in range(4):
            batch = [{"k": k} for k in range(number * 500, number * 500 + 1000)]
            report = engine.ingest(batch)
            assert (report.inserted, report.fell_back) == (500 if number else 1000, None)
            clean(temporary)
    assert Headrace(store_url, tmp_path).count("ev") == 2500
    assert not list(temporary.glob("headrace-*")), "what was made again is removed at the end"


@pytest.mark.parametrize("clean", CLEANERS, ids=lambda clean: clean.__name__)
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_a_load_whose_temporary_folder_is_cleaned_loses_nothing(
    store_url: str,
    tmp_path: Path,
    temporary: Path,
    mode: str,
    clean: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends, or says in words what was taken; the same command then brings the rest."""
    monkeypatch.setattr("headrace.partitioning.snapshot._IN_MEMORY", 64)
    path = tmp_path / "x.csv"
    path.write_text("k,v\n" + "".join(f"{k % 9000},1\n" for k in range(10_000)))

    class Clean(Silent):
        def committed(self, piece: object, done: object) -> None:
            clean(temporary)

    options = options_of({"to": store_url, "table": "ev", "id": ["k"], "mode": mode, "workers": 2, "chunk_rows": 700})
    for listener in (Clean(), None):
        try:
            report = load_with(options, [str(path)], listener=listener)
        except HeadraceError as error:
            told = error.hint or ""
            if listener is None or "TMPDIR" not in told:
                raise
    assert report.read == 10_000
    assert Headrace(store_url, tmp_path).query("SELECT count(*), count(DISTINCT k) FROM ev") == [(9000, 9000)]


def test_what_was_spooled_is_read_though_it_was_removed(sqlite_url: str, temporary: Path) -> None:
    body = b"k\n" + b"".join(b"%d\n" % k for k in range(300_000))

    class Clean(Silent):
        def began(self, facts: object) -> None:
            whole(temporary)

    with feeds_server() as feeds:
        feeds.answers["/x.csv"] = Answer(body)
        options = options_of({"to": sqlite_url, "table": "ev", "id": ["k"]})
        assert load_with(options, [f"{feeds.url}/x.csv"], listener=Clean()).inserted == 300_000


def test_a_folder_that_somebody_else_has_put_in_its_place_is_not_used(
    sqlite_url: str, tmp_path: Path, temporary: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with hr.Engine(to=sqlite_url, table="ev", id=["k"]) as engine:
        engine.ingest([{"k": 1}])
        (folder,) = temporary.glob("headrace-*")
        shutil.rmtree(folder)
        folder.symlink_to(elsewhere)
        with pytest.raises(HeadraceError, match="another user"):
            engine.ingest([{"k": 2}])
        folder.unlink()
        assert engine.ingest([{"k": 2}]).inserted == 1
    assert not list(elsewhere.iterdir())


def test_a_folder_that_was_made_again_is_not_swept_by_others(temporary: Path, sqlite_url: str) -> None:
    with hr.Engine(to=sqlite_url, table="ev", id=["k"]) as engine:
        engine.ingest([{"k": 1}])
        whole(temporary)
        engine.ingest([{"k": 2}])
        (folder,) = temporary.glob("headrace-*")
        swept = threading.Thread(target=lambda: scratch_folder().__enter__())
        swept.start()
        swept.join()
        assert folder.is_dir()
