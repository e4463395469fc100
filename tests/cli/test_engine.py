"""`headrace.Engine`: batch after batch, with connection, pool and existing IDs kept warm."""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.program import Headrace

import headrace as package
from headrace import Engine
from headrace.engine import Engine as Original
from headrace.storage import open_store


def batch(keys: range) -> pa.Table:
    return pa.table({"key": list(keys), "value": [f"v{key}" for key in keys]})


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_one_snapshot_query_serves_all_batches(
    store_url: str, headrace: Headrace, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    package.load(batch(range(1000)), to=store_url, table="t", id=["key"])
    statements: list[str] = []
    monkeypatch.setattr("headrace.engine.open_store", partial(open_store, on_statement=statements.append))
    with Engine(to=store_url, table="t", id=["key"], mode=mode, workers=2) as engine:
        reports = [engine.ingest(batch(range(start, start + 500))) for start in range(600, 3000, 300)]
    assert [report.inserted for report in reports] == [100, *[300] * 7]
    assert headrace.count("t") == 3200
    plain = [" ".join(one.replace('"', "").split()) for one in statements]
    fetches = [one for one in plain if re.search(r"event_id FROM t(?!\w)", one) and "INSERT" not in one]
    assert len(fetches) == 1
    # what the engine has written itself it knows, and need not learn from the unique key
    assert [report.retries for report in reports] == [0] * 8


def test_the_pool_is_started_once(sqlite_url: str, tmp_path: Path) -> None:
    with Engine(
        to=sqlite_url, table="t", id=["key"], mode="parallel", workers=1, enrich="support.enrichments:add_pid"
    ) as engine:
        for start in range(0, 300, 100):
            engine.ingest(batch(range(start, start + 100)))
    pids = Headrace(sqlite_url, tmp_path).query("SELECT DISTINCT pid FROM t")
    assert len(pids) == 1


def test_another_loader_between_two_batches_duplicates_nothing(store_url: str, headrace: Headrace) -> None:
    with Engine(to=store_url, table="t", id=["key"]) as engine:
        engine.ingest(batch(range(100)))
        package.load(batch(range(50, 200)), to=store_url, table="t")
        report = engine.ingest(batch(range(150, 250)))
        assert (report.inserted, report.duplicate_in_store) == (50, 50)
        engine.refresh()
        assert engine.ingest(batch(range(250))).inserted == 0
    assert headrace.query("SELECT count(*), count(DISTINCT event_id) FROM t") == [(250, 250)]


def test_a_batch_that_fails_leaves_the_engine_of_use(store_url: str, headrace: Headrace) -> None:
    with Engine(to=store_url, table="t", id=["key"]) as engine:
        engine.ingest(batch(range(10)))
        with pytest.raises(package.ContractError):
            engine.ingest(pa.table({"other": [1]}))
        assert engine.ingest(batch(range(20))).inserted == 10
    assert headrace.count("t") == 20


@pytest.mark.parametrize("to", ["sqlite://", "sqlite:///{}/own.db"])
def test_nothing_is_committed_behind_the_back_of_a_batch_that_failed(to: str, tmp_path: Path) -> None:
    """The next slice is on its way then; what goes on with it would share a database in memory with what comes next."""
    failed = threading.Event()
    too_late: list[bool] = []

    def enrich(events: pa.RecordBatch) -> pa.RecordBatch:
        if "v0" in events.column("value").to_pylist():
            raise ValueError("made up")
        time.sleep(0.3)
        too_late.append(failed.is_set())
        return events

    with Engine(to=to.format(tmp_path), table="t", id=["key"], chunk_rows=10, enrich=enrich) as engine:
        with pytest.raises(package.WorkerError, match="made up") as caught:
            engine.ingest(batch(range(30)))
        failed.set()
        # the ledger could be told of it, while nobody else spoke to the store
        assert [note for note in caught.value.__notes__ if "ledger" in note] == []
        time.sleep(0.6)
        assert not any(too_late), "what was on its way had ended when the batch was given up"
        report = engine.ingest(batch(range(10, 30)))
    assert report.inserted + report.duplicate_in_store == 20


def test_providers_and_tables_share_an_engine(sqlite_url: str, headrace: Headrace) -> None:
    with Engine(to=headrace.url, id=["key"]) as engine:
        for table in ("a", "b", "a"):
            for provider in ("x", "y"):
                engine.ingest(batch(range(10)), table=table, provider=provider)
    assert (headrace.count("a"), headrace.count("b")) == (20, 20)


def test_an_engine_that_is_not_open_says_so() -> None:
    with pytest.raises(package.ConfigurationError, match="not open"):
        Engine(table="t").ingest(batch(range(1)))


def test_the_module_is_what_the_package_exports() -> None:
    assert Engine is Original


def test_what_workers_log_comes_out_with_worker_and_partition(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with Engine(
        to=sqlite_url, table="t", id=["key"], mode="parallel", workers=2, enrich="support.enrichments:say_so"
    ) as engine:
        engine.ingest(batch(range(100)))
    said = [record.getMessage() for record in caplog.records if record.name == "support.enrichments"]
    found = [re.fullmatch(r"\[worker \d+, partition (\d)\] got (\d+) events", text) for text in said]
    assert [one[1] for one in found if one] == ["0"]
    assert sum(int(one[2]) for one in found if one) == 100


def test_explain_names_the_chunks_that_may_have_brought_an_event(store_url: str, headrace: Headrace) -> None:
    """An early version has committed several chunks together."""
    package.load(batch(range(100)), to=store_url, table="t", id=["key"])
    headrace.query("""UPDATE headrace_receipts SET spans = '[["<arrow>", 0, 50], ["<arrow>", 50, 50]]'""")
    ((event_id,),) = headrace.query("SELECT event_id FROM t WHERE key = 70")
    text = event_id.hex() if isinstance(event_id, bytes) else str(event_id)
    told = headrace.json("explain", text)
    assert told["chunks"] == ["<arrow>, rows 0-49", "<arrow>, rows 50-99"]
    assert "one of these chunks" in headrace.run("explain", text).stdout
