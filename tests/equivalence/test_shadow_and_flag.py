"""The feature flag at work: shadow compares without writing, and turning the flag off takes effect in the run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from openfeature import api
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider
from support.program import Headrace

import headrace as package
import headrace.loading.shadow
from headrace.api import load_with
from headrace.observability.progress import Quiet
from headrace.options.flag import FLAG
from headrace.options.load import options_of
from headrace.storage.records import Counts

ROWS = 400


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    lines = [f"{n % 300},value {n}" for n in range(ROWS - 1)]
    path.write_text("\n".join(["key,value", *lines, "oops,bad"]) + "\n")
    return path


def shadowed(url: str, events: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> package.Report:
    monkeypatch.setenv(FLAG, "shadow")
    types: Any = {"key": "integer"}
    return package.load(events, to=url, table="t", id=["key"], types=types, chunk_rows=50, workers=2, **more)


def test_shadow_compares_and_writes_nothing(
    store_url: str, events: Path, headrace: Headrace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = shadowed(store_url, events, monkeypatch)
    assert (first.mode, first.inserted, first.rejected, first.shadow) == ("sequential", 300, 1, "8 chunks equal")
    again = shadowed(store_url, events, monkeypatch)
    assert (again.inserted, again.duplicate_in_store, again.shadow) == (0, 300, "8 chunks equal")
    assert headrace.count("t") == 300
    assert headrace.query("SELECT count(*) FROM headrace_receipts")[0][0] == 16
    assert not [record for record in caplog.records if record.name == "headrace.shadow"]


def test_a_difference_is_an_error_event_with_a_sample_and_not_a_failed_run(
    sqlite_url: str, events: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = headrace.loading.shadow.rows_by_partition

    def forgetful(ids: Any, partitions: int) -> list[Any]:
        """A partitioner that loses the first row of each partition."""
        return [rows[1:] for rows in split(ids, partitions)]

    monkeypatch.setattr(headrace.loading.shadow, "rows_by_partition", forgetful)
    report = shadowed(sqlite_url, events, monkeypatch)
    assert (report.inserted, report.rejected) == (300, 1)
    assert report.shadow is not None
    assert "chunks differ" in report.shadow
    (error, *_) = [record for record in caplog.records if record.name == "headrace.shadow"]
    assert error.levelno == logging.ERROR
    assert "rows 0-49" in error.getMessage()
    assert re.search(r"for example [0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-", error.getMessage()), (
        "no ID, or none of version 8"
    )


def test_shadow_compares_alerts(
    sqlite_url: str, events: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = package.AlertRule("third", where="key % 3 = 0")
    assert shadowed(sqlite_url, events, monkeypatch, alerts=[good]).shadow == "8 chunks equal"
    assert Headrace(sqlite_url, events.parent).query("SELECT count(*) FROM headrace_alerts") == [(100,)]
    # 50 rows of a chunk, 25 or so of a partition: a rule that sees that gives other answers in parallel
    bad = package.AlertRule("few", function="support.alert_rules:is_one_of_few")
    report = shadowed(sqlite_url, events, monkeypatch, alerts=[bad], provider="other")
    assert report.shadow == "6 of 8 chunks differ"  # the last two bring nothing new
    (error, *_) = [record for record in caplog.records if record.name == "headrace.shadow"]
    assert "0 IDs, for example none; 50 alerts, for example" in error.getMessage()


class Broken(Executor):
    """An executor whose tasks all fail."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(OSError("the cluster is gone"))
        return future


def test_a_shadow_that_fails_does_not_fail_the_run(
    sqlite_url: str, events: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect in the shadow")

    monkeypatch.setattr(headrace.loading.shadow.Shadow, "_decide", fail)
    report = shadowed(sqlite_url, events, monkeypatch)
    assert (report.inserted, report.shadow) == (300, "0 chunks equal; then the comparison failed")
    assert "a defect in the shadow" in caplog.text


def test_a_shadow_over_a_broken_executor_does_not_fail_the_run(
    sqlite_url: str, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = shadowed(sqlite_url, events, monkeypatch, executor=Broken())
    assert report.inserted == 300


@pytest.fixture
def flag_service() -> Iterator[Callable[[str], None]]:
    """Sets the flag at a real OpenFeature service in memory."""

    def set_flag(value: str) -> None:
        flags = {FLAG: InMemoryFlag("now", {"now": value})}
        api.set_provider_and_wait(InMemoryProvider(flags))

    yield set_flag
    api.clear_providers()


def test_turning_the_flag_off_takes_effect_at_the_next_micro_batch(
    store_url: str,
    events: Path,
    headrace: Headrace,
    flag_service: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    flag_service("on")

    class TurnOff(Quiet):
        def advance(self, counts: Counts, chunks: int = 1) -> None:
            flag_service("off")

    options = options_of({"to": store_url, "table": "t", "id": ["key"], "types": {"key": "integer"}, "chunk_rows": 10})
    report = load_with(options, [events], progress=TurnOff())
    assert (report.mode, report.inserted, report.rejected, report.fell_back) == ("parallel", 300, 1, None)
    assert "the feature flag was turned off" in caplog.text
    assert headrace.count("t") == 300
    sequential = load_with(options, [events])
    assert (sequential.mode, sequential.inserted) == ("sequential", 0)


def test_an_explicit_mode_beats_the_flag(sqlite_url: str, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FLAG, "on")
    options: Any = {"to": sqlite_url, "id": ["key"], "types": {"key": "string"}}
    assert package.load(events, table="a", mode="sequential", **options).mode == "sequential"
    assert package.load(events, table="b", **options).mode == "parallel"
    monkeypatch.setenv(FLAG, "off")
    assert package.load(events, table="c", mode="parallel", **options).mode == "parallel"


def test_a_canary_of_providers_is_parallel(sqlite_url: str, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FLAG, "canary:50")
    options: Any = {"to": sqlite_url, "id": ["key"], "types": {"key": "string"}, "table": "t"}
    modes = {name: package.load(events, provider=name, **options).mode for name in ("a", "b", "c", "d", "e", "f")}
    assert set(modes.values()) == {"sequential", "parallel"}
    again = {name: package.load(events, provider=name, **options).mode for name in modes}
    assert again == modes


def test_a_parallel_load_from_a_thread_of_a_busy_program(sqlite_url: str, events: Path) -> None:
    reports: list[package.Report] = []
    options: Any = {"to": sqlite_url, "table": "t", "id": ["key"], "types": {"key": "integer"}, "mode": "parallel"}
    worker = Thread(target=lambda: reports.append(package.load(events, chunk_rows=50, workers=2, **options)))
    worker.start()
    rows = np.arange(1_000_000)
    while worker.is_alive():
        rows = rows[::-1].copy()
        worker.join(0.01)
    assert (reports[0].inserted, reports[0].mode) == (300, "parallel")
