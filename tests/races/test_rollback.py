"""A loader that dies holding locks for which others wait: no event is lost, whole loads and their resumption included.

    holder    ── locks, rows in ──► dies before COMMIT                 ── the same load again ──► what only it has
    waiters        ── wait for its locks ─────────► granted: rows in

`tests/contract/test_locks.py` has the same of single slices; here are the runs around them, with their books.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from contract.pieces import Pause, Stop, look
from support.program import scaled
from support.races import id_of

import headrace
from headrace.errors import WorkerError
from headrace.report import Report
from headrace.storage import open_store
from headrace.storage.records import Counts
from headrace.storage.store import Store

# just before the statement that waits for a lock, and just before the last one of a transaction
WAITING = "SELECT pg_advisory_xact_lock"
LAST = "UPDATE headrace_receipts"
NAMES = ("holder", "first", "second")


class Loaders:
    """Three loaders of one table, each with a worker whose statements can be stopped at."""

    def __init__(self, url: str) -> None:
        self.pauses = {"holder": Pause(LAST, then=Stop()), "first": Pause(WAITING), "second": Pause(WAITING)}
        self._url = url
        self._open = ExitStack()
        self._workers = {name: self._open.enter_context(ThreadPoolExecutor(1, name)) for name in NAMES}
        self._coordinators = self._open.enter_context(ThreadPoolExecutor(len(NAMES)))

    def open_store(self, url: str) -> Store:
        """What a worker opens, with the pause of the loader that it works for."""
        name, _, _ = threading.current_thread().name.partition("_")
        return self._open.enter_context(open_store(url, on_statement=self.pauses[name]))

    def start(self, name: str, file: Path) -> Future[Report]:
        """Load `file`; returns when the loader has come to its pause."""
        self.pauses[name].arm()
        started = self._coordinators.submit(self.load, name, file)
        self.pauses[name].wait_until_there(started)
        return started

    def load(self, name: str, file: Path) -> Report:
        return headrace.load(
            file,
            to=self._url,
            table="t",
            id=["key"],
            mode="parallel",
            strategy="locked",
            workers=1,
            partitions=1,
            executor=self._workers[name],
        )

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def loaders(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaders]:
    three = Loaders(postgres_url)
    monkeypatch.setattr("headrace.execution.tasks.open_store", three.open_store)
    yield three
    three.close()


def write(folder: Path, name: str, keys: range) -> Path:
    file = folder / f"{name}.csv"
    file.write_text("key\n" + "".join(f"{key}\n" for key in keys))
    return file


@pytest.mark.timeout(900)  # 200 rounds of four loads in `make test-all`
def test_a_load_that_rolls_back_after_others_waited_loses_no_event(
    postgres_url: str, loaders: Loaders, tmp_path: Path
) -> None:
    rounds = scaled(200, default=8)
    for number in range(rounds):
        base = number * 8
        mine = write(tmp_path, f"{number}-holder", range(base, base + 6))
        held = loaders.start("holder", mine)
        waiting = []
        for name, keys in (("first", range(base + 1, base + 7)), ("second", range(base + 2, base + 8))):
            waiting.append(loaders.start(name, write(tmp_path, f"{number}-{name}", keys)))
            loaders.pauses[name].go()
        loaders.pauses["holder"].go()
        with pytest.raises(WorkerError, match="Stop"):
            held.result()
        reports = [one.result() for one in waiting]
        assert sorted(report.inserted for report in reports) == [1, 6], f"round {number}"
        again = loaders.load("holder", mine)
        assert again.counts == Counts(read=6, inserted=1, duplicate_in_store=5), f"round {number}"
        assert all(report.lock_seconds > 0 == report.retries for report in reports)
    stored = sorted(event.bytes for (event,) in look(postgres_url, "SELECT event_id FROM t"))
    assert stored == sorted(map(id_of, range(rounds * 8)))
    runs = "SELECT status, count(*) FROM headrace_runs GROUP BY status"
    assert look(postgres_url, runs) == [("done", 3 * rounds)], "the holder's second load went on with its first run"
