"""Die before the k-th statement, k rising until the load survives: each death, resumed, ends in the same table."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from support.program import Crash, Headrace, crash_at, scaled

from headrace.errors import StoreError
from headrace.loading.run import ingest
from headrace.options.load import LoadOptions
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.report import Report
from headrace.storage import open_store
from headrace.storage.records import Counts, StatementHook

ROWS = [("key", "value"), *((str(n % 23), f"v{n}") for n in range(40)), ("oops", "bad")]
BOOKS = Counts(read=41, inserted=23, duplicate_in_input=17, rejected=1)
OPTIONS = LoadOptions(table="t", identity=("key",), read=ReadOptions(types={"key": "integer"}, chunk_rows=7))


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text("\n".join(",".join(row) for row in ROWS))
    return path


def load(url: str, path: Path, hook: StatementHook | None = None) -> Report:
    with open_store(url, on_statement=hook) as store:
        store.ledger.prepare()
        return ingest(store, open_inputs([path], OPTIONS.read, path.parent), "t", OPTIONS)


def test_killed_before_any_statement_run_again_done(store_url: str, events: Path, headrace: Headrace) -> None:
    step = 1 if scaled(10) == 10 else 4
    statement = random.randrange(step) + 1 - step
    print("before the statements", statement + step, "and every", step)
    survived = False
    while not survived:
        statement += step
        try:
            load(store_url, events, crash_at(statement))
            survived = True
        except Crash:
            books = load(store_url, events).counts
            assert books == BOOKS, f"died before statement {statement}"
        assert headrace.count("t") == 23
        counted = headrace.query("SELECT sum(inserted), sum(rejected) FROM headrace_receipts")
        assert [tuple(map(int, row)) for row in counted] == [(23, 1)], f"died before statement {statement}"
        assert headrace.count("headrace_rejects") == 1
        for table in ("t", "headrace_receipts", "headrace_runs", "headrace_rejects", "headrace_contracts"):
            headrace.query(f"DROP TABLE {table}")
    assert statement > 30, "the loads were too short to die in"


def test_rows_and_receipt_exist_together_at_every_moment(store_url: str, events: Path, headrace: Headrace) -> None:
    with open_store(store_url) as store:
        store.ledger.prepare()

    def look(_: str) -> None:
        """Before each statement, as another session sees it: rows have receipts, and receipts their rows."""
        if not headrace.query_one_if_table("t", "SELECT count(*) FROM t"):
            return
        counted = dict(headrace.query("SELECT headrace_receipt, count(*) FROM t GROUP BY headrace_receipt"))
        said = dict(headrace.query("SELECT receipt_id, inserted FROM headrace_receipts WHERE inserted > 0"))
        assert counted == said

    assert load(store_url, events, look).counts == BOOKS


def test_unreadable_existing_ids_stop_the_run(store_url: str, events: Path, headrace: Headrace) -> None:
    load(store_url, events)

    def refuse_the_snapshot(statement: str) -> None:
        plain = " ".join(statement.replace('"', "").split())
        if re.search(r"event_id FROM t(?!\w)", plain) and "INSERT" not in plain:
            raise StoreError("the existing IDs cannot be read")

    with pytest.raises(StoreError, match="cannot be read"):
        load(store_url, events, refuse_the_snapshot)
    assert headrace.query("SELECT status FROM headrace_runs ORDER BY started_at DESC LIMIT 1") == [("failed",)]
    assert headrace.count("t") == 23
