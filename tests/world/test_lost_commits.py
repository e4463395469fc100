"""A database that loses what it had confirmed: the run says what is missing, is not done, and can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.program import Headrace
from support.servers import OwnPostgres, own_postgres

from headrace import Engine
from headrace.api import load_with
from headrace.errors import LostCommitsError
from headrace.observability.stages import RunFacts, Silent
from headrace.options.load import options_of
from headrace.report import Report
from headrace.storage.records import Committed, Slice

ROWS = 160
BATCH = [{"key": key, "value": f"v{key}"} for key in range(ROWS)]


class At(Silent):
    """Does something when some slices are in."""

    def __init__(self, slices: int, act: Callable[[], object], began: Callable[[], object] = lambda: None) -> None:
        self._left = slices
        self._act = act
        self._began = began

    def began(self, run: RunFacts) -> None:
        self._began()

    def committed(self, piece: Slice, done: Committed) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()


def loaded(url: str, path: Path, listener: Silent | None = None, **more: Any) -> Report:
    named: Any = {"to": url, "table": "t", "id": ["key"], "types": {"key": "integer"}, "chunk_rows": 20, **more}
    return load_with(options_of(named), [str(path)], listener=listener)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text("key,value\n" + "".join(f"{one['key']},{one['value']}\n" for one in BATCH))
    return path


def lose(headrace: Headrace) -> None:
    """The first slice, as if its commit had never been."""
    ((first,),) = headrace.query("SELECT min(receipt_id) FROM headrace_receipts WHERE row_count > 1")
    headrace.query(f"DELETE FROM t WHERE headrace_receipt = {first}")  # noqa: S608
    headrace.query(f"DELETE FROM headrace_receipts WHERE receipt_id = {first}")  # noqa: S608


@pytest.mark.parametrize("way", [{}, {"mode": "parallel", "workers": 2}], ids=["sequential", "parallel"])
def test_a_run_that_lost_a_commit_says_so_and_the_same_command_brings_it(
    store_url: str, headrace: Headrace, events: Path, way: dict[str, Any]
) -> None:
    with pytest.raises(LostCommitsError, match=r"lost 1 of the \d+ commits that it had confirmed") as said:
        loaded(store_url, events, At(3, lambda: lose(headrace)), **way)
    assert "run the same command again" in str(said.value)
    assert [status for (status,) in headrace.query("SELECT status FROM headrace_runs")] == ["failed"]
    again = loaded(store_url, events, **way)
    assert (again.inserted, again.resumed, again.notes) == (ROWS, True, ())
    assert headrace.count("t") == ROWS


def test_a_run_that_is_not_in_the_ledger_any_more_is_not_done(store_url: str, headrace: Headrace, events: Path) -> None:
    with pytest.raises(LostCommitsError, match="no longer in the ledger"):
        loaded(store_url, events, At(3, lambda: headrace.query("DELETE FROM headrace_runs")))
    assert loaded(store_url, events).duplicate_in_store == ROWS


def test_a_batch_whose_commits_were_lost_comes_in_when_it_is_given_again(store_url: str, headrace: Headrace) -> None:
    with Engine(to=store_url, table="t", id=["key"], chunk_rows=20) as engine:
        engine.ingest([{"key": -1, "value": "first"}])
        with pytest.raises(LostCommitsError, match="load the same input again"):
            engine.ingest(BATCH, listener=At(3, lambda: lose(headrace)))
        report = engine.ingest(BATCH)
        assert (report.inserted, report.duplicate_in_store) == (20, ROWS - 20)
    assert headrace.count("t") == ROWS + 1


@pytest.fixture(scope="module")
def careless() -> Iterator[OwnPostgres]:
    """A server that confirms commits before they are on disk, and writes them late."""
    with own_postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_commit = off")
            connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            connection.execute("SELECT pg_reload_conf()")
        yield server


def test_what_a_careless_server_loses_with_its_power_is_brought_again_by_the_same_command(
    careless: OwnPostgres, events: Path, tmp_path: Path
) -> None:
    def flush() -> None:
        with psycopg.connect(careless.url, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = on")
            connection.execute("CREATE TABLE IF NOT EXISTS flushed (i int)")
            connection.execute("INSERT INTO flushed VALUES (1)")

    def restart() -> None:
        careless.kill()
        careless.start()

    headrace = Headrace(careless.url, tmp_path)
    report = loaded(careless.url, events, At(3, restart, flush))
    assert "superseded" in report.notes[0], "a connection was lost, so the load was proven, and something was missing"
    assert headrace.count("t") == ROWS
    assert headrace.query("SELECT status FROM headrace_runs ORDER BY started_at") == [("failed",), ("done",)]
