"""``--prove``: events that somebody deletes while a load goes on are brought again, or named."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.program import Headrace

from headrace import Engine
from headrace.api import load_with
from headrace.errors import VerificationError
from headrace.loading import proof
from headrace.observability.stages import Silent
from headrace.options.load import options_of
from headrace.report import Report
from headrace.storage.postgres import connecting
from headrace.storage.records import Committed, Slice

ROWS = 300
LAYOUTS: dict[str, dict[str, Any]] = {"hash": {"id": ["key"]}, "time": {"id": ["key", "at"], "time": "at"}}
WAYS: dict[str, dict[str, Any]] = {
    "sequential": {},
    **{name: {"mode": "parallel", "strategy": name, "workers": 2} for name in ("partitioned", "upsert", "locked")},
}


class After(Silent):
    """Does something each time when some slices of a run are in."""

    def __init__(self, slices: int, act: Callable[[], object], *, times: int = 1) -> None:
        self._slices, self._act, self._times = slices, act, times

    def began(self, run: object) -> None:
        self._left = self._slices

    def committed(self, piece: Slice, done: Committed) -> None:
        self._left -= 1
        if self._left == 0 and self._times:
            self._times -= 1
            self._act()


def rows(keys: range) -> list[dict[str, Any]]:
    return [{"key": key, "at": f"20{key % 30:02}-01-01T00:00:{key % 60:02}"} for key in keys]


def written(path: Path, keys: range) -> Path:
    path.write_text("key,at\n" + "".join(f"{one['key']},{one['at']}\n" for one in rows(keys)))
    return path


def loaded(headrace: Headrace, given: object, listener: Silent | None = None, **more: Any) -> Report:
    types = {"key": "integer", "at": "timestamp"}
    named: Any = {"to": headrace.url, "table": "t", "types": types, "chunk_rows": 50, "id": ["key"], **more}
    return load_with(options_of(named), [given], listener=listener)


def thin(headrace: Headrace) -> None:
    headrace.query("DELETE FROM t WHERE key IN (7, 8, 40)")


@pytest.fixture(params=[proof.LOOKED_UP, 0], ids=["by id", "by range"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few events are looked up by themselves, many by what the table holds where they lie."""
    monkeypatch.setattr(proof, "LOOKED_UP", request.param)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_goes_while_a_load_is_under_way_is_brought_again(
    store_url: str, headrace: Headrace, tmp_path: Path, layout: str
) -> None:
    loaded(headrace, written(tmp_path / "a.csv", range(-100, 20)), **LAYOUTS[layout])
    events = written(tmp_path / "b.csv", range(ROWS))
    report = loaded(headrace, str(events), After(3, lambda: thin(headrace)), prove=True, **LAYOUTS[layout])
    assert report.proved == ROWS
    assert "not in the table at the end of the load" in report.notes[0]
    assert "events are in the table" in report.to_text()
    assert headrace.query("SELECT count(*), count(DISTINCT key) FROM t") == [(ROWS + 100, ROWS + 100)]
    assert report.inserted + report.duplicate_in_store == ROWS


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_proven(store_url: str, headrace: Headrace, tmp_path: Path, way: str) -> None:
    events = written(tmp_path / "b.csv", range(ROWS))
    report = loaded(headrace, str(events), After(4, lambda: thin(headrace)), prove=True, **LAYOUTS["time"], **WAYS[way])
    assert (report.proved, headrace.count("t")) == (ROWS, ROWS)
    again = loaded(headrace, str(events), prove=True, **LAYOUTS["time"], **WAYS[way])
    assert (again.proved, again.inserted, again.notes) == (ROWS, 0, ())


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("beside", [0, 60], ids=["alone", "among others"])
def test_a_fresh_load_and_one_among_others_are_proven(
    store_url: str, headrace: Headrace, tmp_path: Path, beside: int
) -> None:
    if beside:
        loaded(headrace, written(tmp_path / "a.csv", range(ROWS, ROWS + beside)), **LAYOUTS["time"])
    report = loaded(headrace, written(tmp_path / "b.csv", range(ROWS)), prove=True, **LAYOUTS["time"])
    assert (report.proved, report.inserted, report.notes) == (ROWS, ROWS, ())


def test_a_table_of_far_more_than_was_met_is_not_read(
    store_url: str, headrace: Headrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "LOOKED_UP", 0)
    monkeypatch.setattr(proof, "SPARE", 0)
    loaded(headrace, written(tmp_path / "a.csv", range(ROWS)))
    report = loaded(headrace, written(tmp_path / "b.csv", range(-5, 5)), prove=True)
    assert (report.proved, report.inserted, report.notes) == (10, 5, ())


def test_control_without_it_nobody_looks(store_url: str, headrace: Headrace, tmp_path: Path) -> None:
    report = loaded(headrace, written(tmp_path / "b.csv", range(ROWS)), After(3, lambda: thin(headrace)))
    assert (report.proved, headrace.count("t")) == (None, ROWS - 3)


@pytest.mark.usefixtures("either_way")
def test_what_cannot_be_read_again_is_named(store_url: str, headrace: Headrace) -> None:
    with pytest.raises(VerificationError, match="3 of the input's events are not in the table") as said:
        loaded(headrace, rows(range(ROWS)), After(3, lambda: thin(headrace)), prove=True)
    assert said.value.exit_code == 4
    assert [status for (status,) in headrace.query("SELECT status FROM headrace_runs")] == ["failed"]
    assert loaded(headrace, rows(range(ROWS)), prove=True).inserted == 3


def test_a_neighbour_who_deletes_whatever_comes_is_told_of_in_the_end(
    store_url: str, headrace: Headrace, tmp_path: Path
) -> None:
    events = written(tmp_path / "b.csv", range(ROWS))
    with pytest.raises(VerificationError):
        loaded(headrace, str(events), After(3, lambda: thin(headrace), times=9), prove=True)
    assert loaded(headrace, str(events), prove=True).inserted == 3


@pytest.mark.usefixtures("either_way")
def test_what_the_users_code_refused_is_not_missing(store_url: str, headrace: Headrace) -> None:
    how: dict[str, Any] = {"enrich": "support.user_functions:refuse_sevens", "on_error": "reject", "prove": True}
    report = loaded(headrace, rows(range(ROWS)), **how)
    assert (report.proved, report.rejected) == (report.inserted, ROWS // 7 + 1)


def test_an_engine_proves_each_batch(store_url: str, headrace: Headrace) -> None:
    with Engine(to=store_url, table="t", id=["key"], prove=True) as engine:
        assert engine.ingest(rows(range(20))).proved == 20
        thin(headrace)
        report = engine.ingest(rows(range(10)))
        assert (report.proved, report.inserted) == (10, 2)


@pytest.mark.parametrize("noticed", ["by the pool", "by a statement"])
def test_a_lost_connection_is_reason_enough(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noticed: str
) -> None:
    """The pool replaces a connection whose end has arrived; where it has not arrived, the next statement fails."""
    headrace = Headrace(postgres_url, tmp_path)
    if noticed == "by a statement":
        monkeypatch.setattr(connecting, "_has_word", lambda _driver: False)

    def cut() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DELETE FROM t WHERE key IN (7, 8)")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        time.sleep(0.2)  # the end of the connections arrives

    report = loaded(headrace, written(tmp_path / "b.csv", range(ROWS)), After(2, cut))
    assert headrace.count("t") == ROWS
    assert report.notes


def test_the_command_line_and_the_file_of_providers_can_ask_for_it(
    store_url: str, headrace: Headrace, tmp_path: Path
) -> None:
    events = written(tmp_path / "b.csv", range(ROWS))
    assert headrace.load(events, "--table", "t", "--id", "key", "--prove")["proved"] == ROWS
    file = tmp_path / "headrace.toml"
    file.write_text(
        f'database = "{store_url}"\n[providers.p]\npath = "b.csv"\ntable = "u"\nid = ["key"]\nprove = true\n'
    )
    assert "prove" in json.dumps(json.loads((Path(__file__).parents[2] / "docs/headrace.schema.json").read_text()))
    headrace.run("run", "--config", file)
    assert headrace.count("u") == ROWS
