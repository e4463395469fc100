"""The six promises, held by a state machine against a plain Python oracle, on both databases.

Steps: load, load something that overlaps, crash before any statement and resume (again and again), replay rejects. The
oracle is a dict and a list: it knows nothing of IDs, chunks, snapshots or receipts.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.program import Crash, crash_at, scaled

from headrace.events.alert_rule import AlertRule
from headrace.loading.replay import replay
from headrace.loading.run import ingest
from headrace.options.load import LoadOptions
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.report import Report
from headrace.storage import open_store
from headrace.storage.records import Counts

KEYS = st.integers(0, 40).map(str) | st.sampled_from(["oops", "1.5"])
ROWS = st.lists(st.tuples(KEYS, st.text('ab\u00e9,"\n ', max_size=3)), min_size=1, max_size=40)


class Oracle:
    """What must be in the table (first one wins) and among the rejects."""

    def __init__(self) -> None:
        self.events: dict[int, str | None] = {}
        self.kept: list[str] = []

    def load(self, rows: list[tuple[str, str]]) -> Counts:
        """Take `rows` in, and say what the books must be."""
        before, met = set(self.events), set()
        inserted = in_input = in_store = rejected = 0
        for key, value in rows:
            if not key.isdigit():
                self.kept.append(key)
                rejected += 1
            elif int(key) in met:
                in_input += 1
            elif int(key) in before:
                in_store += 1
            else:
                inserted += 1
                self.events[int(key)] = value
            if key.isdigit():
                met.add(int(key))
        return Counts(len(rows), inserted, in_input, in_store, rejected)


class Promises(RuleBasedStateMachine):
    """One database and its oracle."""

    url_for: Any = staticmethod(lambda _folder: "")

    @initialize()
    def begin(self) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self._scratch.name)
        self.urls: Iterator[str] = self.url_for(self.folder)
        self.url = next(self.urls)
        self.oracle = Oracle()
        self.files = 0
        self.options = LoadOptions(
            to=self.url,
            table="t",
            identity=("key",),
            alerts=(AlertRule("odd", where="key % 2 = 1"),),
            read=ReadOptions(types={"key": "integer", "value": "string"}),
        )

    def teardown(self) -> None:
        if hasattr(self, "urls"):
            for _ in self.urls:  # lets the generator drop its database
                pass
            self._scratch.cleanup()

    @rule(rows=ROWS, chunk_rows=st.sampled_from([1, 3, 7, 1000]))
    def load(self, rows: list[tuple[str, str]], chunk_rows: int) -> None:
        expected = self.oracle.load(rows)
        assert self._run(self._write(rows), chunk_rows).counts == expected

    @rule(rows=ROWS, chunk_rows=st.sampled_from([1, 3, 7]), deaths=st.lists(st.integers(1, 30), min_size=1, max_size=3))
    def crash_and_resume(self, rows: list[tuple[str, str]], chunk_rows: int, deaths: list[int]) -> None:
        expected = self.oracle.load(rows)
        path = self._write(rows)
        for statement in deaths:
            try:
                report = self._run(path, chunk_rows, die_at=statement)
            except Crash:
                self._no_half_chunk()
            else:
                # it survived, so it is finished: what follows would be a second load of the same file
                assert report.counts == expected
                return
        assert self._run(path, chunk_rows).counts == expected

    @rule(key=st.integers(0, 50))
    def replay_rejects(self, key: int) -> None:
        with open_store(self.url) as store:
            store.ledger.prepare()
            kept = store.rejects.find(state="kept")
            reports = replay(store, kept, self.options, changes={"key": str(key)}) if kept else []
        rows, self.oracle.kept = len(self.oracle.kept), []
        fresh = rows > 0 and key not in self.oracle.events
        assert sum(report.inserted for report in reports) == int(fresh)
        assert sum(report.read for report in reports) == rows
        if fresh:
            self.oracle.events[key] = None  # which of the replayed rows wins is not promised: looked up below

    @invariant()
    def table_and_rejects_are_the_oracles(self) -> None:
        if not hasattr(self, "url") or not self.files:
            return
        rows = dict(self._query("SELECT key, value FROM t"))
        for key in [key for key, value in self.oracle.events.items() if value is None]:
            self.oracle.events[key] = rows[key]
        assert rows == self.oracle.events
        raised = [json.loads(payload)["key"] for (payload,) in self._query("SELECT payload FROM headrace_alerts")]
        assert sorted(raised) == sorted(key for key in self.oracle.events if key % 2 == 1)
        kept = self._query("SELECT raw FROM headrace_rejects WHERE state = 'kept'")
        assert len(kept) == len(self.oracle.kept)
        self._no_half_chunk()

    def _no_half_chunk(self) -> None:
        """Promise 2: each receipt has exactly the rows it says, and each row a receipt."""
        if not sa.inspect(self._engine()).has_table("t"):
            return
        counted = dict(self._query("SELECT headrace_receipt, count(*) FROM t GROUP BY headrace_receipt"))
        said = dict(self._query("SELECT receipt_id, inserted FROM headrace_receipts WHERE inserted > 0"))
        assert counted == said

    def _run(self, path: Path, chunk_rows: int, die_at: int | None = None) -> Report:
        options = replace(self.options, read=replace(self.options.read, chunk_rows=chunk_rows))
        note(f"load {path.name} in chunks of {chunk_rows}, dying at {die_at}")
        hook = None if die_at is None else crash_at(die_at)
        inputs = open_inputs([path], options.read, self.folder)
        with open_store(self.url, on_statement=hook) as store:
            store.ledger.prepare()
            return ingest(store, inputs, "t", options)

    def _write(self, rows: list[tuple[str, str]]) -> Path:
        self.files += 1
        path = self.folder / f"{self.files}.csv"
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
            writer.writerows([("key", "value"), *rows])
        return path

    def _engine(self) -> sa.Engine:
        return sa.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)

    def _query(self, statement: str) -> list[Any]:
        with self._engine().connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]


def _sqlite_file(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder / 'h.db'}"


def _check(machine: type[Promises], examples: int) -> None:
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=8,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    machine.TestCase().runTest()


def test_the_six_promises_hold_on_sqlite() -> None:
    class OnSqlite(Promises):
        url_for = staticmethod(_sqlite_file)

    _check(OnSqlite, scaled(200))


@pytest.mark.usefixtures("postgres_server")
def test_the_six_promises_hold_on_postgresql(new_database: Any) -> None:
    class OnPostgres(Promises):
        url_for = staticmethod(lambda _folder: new_database())

    _check(OnPostgres, scaled(60))
