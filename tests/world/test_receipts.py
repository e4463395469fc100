"""A load is stopped, the world changes, the same command is given: a receipt is checked before it is built on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.program import Headrace

from headrace import AlertRule
from headrace.api import load_with
from headrace.errors import Interrupted
from headrace.observability.stages import Silent
from headrace.options.load import options_of
from headrace.report import Report
from headrace.storage.records import Committed, Slice

ROWS, CHUNK = 400, 50
SEQUENTIAL: dict[str, Any] = {}
PARALLEL: dict[str, Any] = {"mode": "parallel", "workers": 2}


class StopAfter(Silent):
    """Asks for an end after some slices."""

    def __init__(self, slices: int) -> None:
        self.stop = Event()
        self._left = slices

    def committed(self, piece: Slice, done: Committed) -> None:
        self._left -= 1
        if self._left <= 0:
            self.stop.set()


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text("key,value\n" + "".join(f"{key},v{key}\n" for key in range(ROWS)))
    return path


def loaded(headrace: Headrace, *inputs: Path, **more: Any) -> Report:
    named = {"to": headrace.url, "table": "t", "id": ["key"], "types": {"key": "integer"}, "chunk_rows": CHUNK, **more}
    return load_with(options_of(named), [str(one) for one in inputs])  # type: ignore[arg-type]


def stopped(headrace: Headrace, *inputs: Path, after: int = 2, **more: Any) -> None:
    named = {"to": headrace.url, "table": "t", "id": ["key"], "types": {"key": "integer"}, "chunk_rows": CHUNK, **more}
    listener = StopAfter(after)
    with pytest.raises(Interrupted):
        load_with(options_of(named), [str(one) for one in inputs], stop=listener.stop, listener=listener)  # type: ignore[arg-type]


def check_whole(headrace: Headrace, rows: int = ROWS) -> None:
    """Each event is there once, with its value, and every run's books are those of its receipts."""
    assert sorted(headrace.query("SELECT key, value FROM t WHERE key >= 0")) == [(n, f"v{n}") for n in range(rows)]
    off = headrace.query(
        "SELECT run_id FROM headrace_runs AS r WHERE inserted <> "
        "(SELECT coalesce(sum(inserted), 0) FROM headrace_receipts AS c WHERE c.run_id = r.run_id)"
    )
    assert off == []


def runs(headrace: Headrace) -> list[tuple[Any, ...]]:
    """Each run's status, whether it can be resumed, and what it inserted; the oldest first."""
    found = headrace.query("SELECT status, job IS NOT NULL, inserted FROM headrace_runs ORDER BY started_at")
    return [(status, bool(job), inserted) for status, job, inserted in found]


def emptied(headrace: Headrace) -> None:
    headrace.query("DELETE FROM t")


def one_row_gone(headrace: Headrace) -> None:
    headrace.query("DELETE FROM t WHERE key = 7")


def dropped(headrace: Headrace) -> None:
    headrace.query("DROP TABLE t")


def renumbered(headrace: Headrace) -> None:
    """A row is under another event's ID."""
    other = "X'00112233445566778899aabbccddeeff'" if headrace.url.startswith("sqlite") else f"'{'ab' * 16}'::uuid"
    headrace.query(f"UPDATE t SET event_id = {other}, key = -1 WHERE key = 7")  # noqa: S608


@pytest.mark.parametrize("change", [emptied, one_row_gone, dropped, renumbered])
def test_a_resumed_load_brings_back_what_is_gone_and_says_so(
    store_url: str, headrace: Headrace, events: Path, change: Callable[[Headrace], None]
) -> None:
    stopped(headrace, events)
    (before,) = runs(headrace)
    change(headrace)
    gone = {emptied: before[2], dropped: before[2]}.get(change, 1)
    report = loaded(headrace, events)
    assert (report.inserted, report.duplicate_in_store) == (ROWS - before[2] + gone, before[2] - gone)
    assert "superseded" in report.notes[0]
    assert "superseded" in report.to_text()
    check_whole(headrace)
    assert runs(headrace) == [("failed", False, before[2]), ("done", True, report.inserted)]
    assert "superseded" in headrace.query("SELECT error FROM headrace_runs WHERE status = 'failed'")[0][0]


@pytest.mark.parametrize("strategy_name", ["partitioned", "upsert", "locked"])
@pytest.mark.parametrize("resumed", [SEQUENTIAL, PARALLEL], ids=["sequentially", "in parallel"])
def test_every_strategy_proves_what_it_skips(
    store_url: str, headrace: Headrace, events: Path, strategy_name: Any, resumed: dict[str, Any]
) -> None:
    stopped(headrace, events, strategy=strategy_name, **PARALLEL)
    one_row_gone(headrace)
    headrace.query("DELETE FROM t WHERE key >= 100")
    assert loaded(headrace, events, strategy=strategy_name, **resumed).notes
    check_whole(headrace)


def test_a_run_is_resumed_where_only_some_slices_of_each_chunk_were_committed(
    store_url: str, headrace: Headrace, events: Path
) -> None:
    """A process that was killed between two partitions of a chunk."""
    locked = {**PARALLEL, "strategy": "locked", "partitions": 2}
    stopped(headrace, events, **locked)
    headrace.query(
        'DELETE FROM t WHERE headrace_receipt IN (SELECT receipt_id FROM headrace_receipts WHERE "partition" = 0)'
    )
    headrace.query('DELETE FROM headrace_receipts WHERE "partition" = 0')
    report = loaded(headrace, events, **locked)
    assert (report.chunks_skipped, report.resumed) == (0, True)
    assert f"resumed: {report.slices_skipped} slices were already committed" in report.to_text()
    check_whole(headrace)


def test_control_a_load_that_finds_everything_there_goes_on(store_url: str, headrace: Headrace, events: Path) -> None:
    stopped(headrace, events)
    report = loaded(headrace, events)
    assert (report.notes, report.inserted, report.resumed) == ((), ROWS, True)
    assert runs(headrace) == [("done", True, ROWS)]
    check_whole(headrace)


def test_an_unfinished_run_of_long_ago_hides_nothing(store_url: str, headrace: Headrace, events: Path) -> None:
    stopped(headrace, events)
    loaded(headrace, events, resume=False)
    emptied(headrace)
    assert loaded(headrace, events).inserted == ROWS
    check_whole(headrace)


def test_a_run_can_be_superseded_again(store_url: str, headrace: Headrace, events: Path) -> None:
    stopped(headrace, events)
    emptied(headrace)
    stopped(headrace, events)
    one_row_gone(headrace)
    loaded(headrace, events)
    check_whole(headrace)
    assert [(status, job) for status, job, _ in runs(headrace)] == [("failed", False)] * 2 + [("done", True)]


def test_an_older_ledger_over_a_newer_table_counts_what_is_in(store_url: str, headrace: Headrace, events: Path) -> None:
    stopped(headrace, events, after=4)
    headrace.query("DELETE FROM headrace_receipts WHERE first_row >= 50")
    report = loaded(headrace, events)
    assert report.duplicate_in_store > 0
    check_whole(headrace)


@pytest.mark.parametrize("way", [SEQUENTIAL, PARALLEL], ids=["sequential", "parallel"])
def test_rows_that_come_in_no_fixed_order_are_loaded_by_a_new_run(
    store_url: str, headrace: Headrace, events: Path, way: dict[str, Any]
) -> None:
    select = "SELECT key, value FROM source ORDER BY random()"
    stopped(headrace, events, select=select, **way)
    assert loaded(headrace, events, select=select, **way).notes
    check_whole(headrace)


def test_processes_that_share_a_run_whose_rows_have_no_order_both_end_well(
    store_url: str, headrace: Headrace, events: Path
) -> None:
    select = "SELECT key, value FROM source ORDER BY random()"
    stopped(headrace, events, select=select)
    failed: list[Exception] = []

    def load() -> None:
        try:
            loaded(headrace, events, select=select)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told below
            failed.append(error)

    both = [threading.Thread(target=load) for _ in range(3)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert failed == []
    check_whole(headrace)


@pytest.mark.parametrize("first_is_lost", [False, True], ids=["all receipts", "the first are missing"])
def test_a_table_that_was_widened_meanwhile_is_resumed(
    store_url: str, headrace: Headrace, events: Path, *, first_is_lost: bool
) -> None:
    stopped(headrace, events, chunk_rows=20, **PARALLEL)
    if first_is_lost:  # its commit failed, and that of the next chunk did not
        headrace.query(
            "DELETE FROM t WHERE headrace_receipt IN (SELECT receipt_id FROM headrace_receipts WHERE first_row = 0)"
        )
        headrace.query("DELETE FROM headrace_receipts WHERE first_row = 0")
    wider = headrace.folder / "wider.csv"
    wider.write_text("key,value,more\n-5,x,5\n")
    loaded(headrace, wider)
    report = loaded(headrace, events, chunk_rows=20, **PARALLEL)
    assert report.read == ROWS
    check_whole(headrace)


def test_a_file_that_was_replaced_under_its_size_and_time_is_loaded_anew(
    store_url: str, headrace: Headrace, events: Path
) -> None:
    facts = events.stat()
    stopped(headrace, events)
    events.write_text(events.read_text().replace("\n7,v7\n", "\n7,vX\n").replace("\n8,v8\n", "\n9,v9\n", 1))
    os.utime(events, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    report = loaded(headrace, events)
    assert report.duplicate_in_input == 1
    check_whole(headrace)


def test_rejects_of_a_superseded_run_are_neither_doubled_nor_lost(
    store_url: str, headrace: Headrace, events: Path
) -> None:
    text = events.read_text()
    events.write_text(text.replace("\n3,v3\n", "\nthree,v3\n").replace("\n390,v390\n", "\nmany,v390\n"))
    for change in (emptied, one_row_gone):
        stopped(headrace, events)
        change(headrace)
    report = loaded(headrace, events)
    assert report.rejected == 2
    kept = headrace.query("SELECT run_id, raw FROM headrace_rejects WHERE state = 'kept' ORDER BY reject_id")
    assert kept == [(report.run_id, "three,v3"), (report.run_id, "many,v390")]


def test_a_replayed_row_that_is_gone_is_kept_again(store_url: str, headrace: Headrace, events: Path) -> None:
    events.write_text(events.read_text().replace("\n3,v3\n", "\nthree,v3\n"))
    stopped(headrace, events)
    headrace.run("rejects", "replay", 1, "--set", "key=3")
    emptied(headrace)
    loaded(headrace, events)
    assert headrace.query("SELECT raw FROM headrace_rejects WHERE state = 'kept'") == [("three,v3",)]


def test_events_that_the_users_code_refused_are_not_missing(store_url: str, headrace: Headrace, events: Path) -> None:
    how: dict[str, Any] = {"enrich": "support.user_functions:refuse_sevens", "on_error": "reject"}
    stopped(headrace, events, **how)
    report = loaded(headrace, events, **how)
    assert (report.notes, report.resumed, report.rejected) == ((), True, ROWS // 7 + 1)
    assert headrace.query("SELECT count(*) FROM headrace_rejects") == [(ROWS // 7 + 1,)]
    stopped(headrace, events, resume=False, **how)
    one_row_gone(headrace)
    headrace.query("DELETE FROM t WHERE key = 8")
    assert loaded(headrace, events, **how).notes
    assert headrace.count("t") == ROWS - ROWS // 7 - 1


def test_an_event_that_comes_back_raises_no_second_alert(store_url: str, headrace: Headrace, events: Path) -> None:
    rules = {"alerts": [AlertRule("low", "key < 10")]}
    stopped(headrace, events, **rules)
    emptied(headrace)
    loaded(headrace, events, **rules)
    assert headrace.query("SELECT count(*), count(DISTINCT alert_key) FROM headrace_alerts") == [(10, 10)]
    check_whole(headrace)
