"""The stage clock: what each stage is said to have taken is what its spans sum up to, in every mode, on every store."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

from headrace import Engine, Report
from headrace.observability.stages import RunFacts, Silent
from headrace.storage.records import Committed, Counts, Slice
from headrace.storage.spans import Span, Stopwatch

ROWS = 3_000
DOUBLED = 200
PARALLEL: dict[str, Any] = {"mode": "parallel", "workers": 2, "partitions": 4, "chunk_rows": 500}
MODES: dict[str, dict[str, Any]] = {
    "sequential": {"mode": "sequential", "chunk_rows": 500},
    **{name: {**PARALLEL, "strategy": name} for name in ("partitioned", "upsert", "locked")},
}


def events(rows: Sequence[int]) -> pa.Table:
    return pa.table({"key": pa.array(rows, pa.int64()), "value": [f"value {row}" for row in rows]})


class Heard(Silent):
    """Keeps all it is told, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.spans: list[Span] = []
        self.counts = Counts()
        self.slices = 0

    def began(self, run: RunFacts) -> None:
        self.calls.append("began")
        self.run = run

    def measured(self, spans: Sequence[Span]) -> None:
        self.calls.append("measured")
        self.spans += spans

    def committed(self, piece: Slice, done: Committed) -> None:
        self.counts += done.counts
        self.slices += 1

    def ended(self, report: Report) -> None:
        self.calls.append("ended")

    def failed(self, error: BaseException) -> None:
        self.calls.append(f"failed {type(error).__name__}")


@pytest.fixture(scope="module", params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def loaded(url: str, **named: Any) -> Iterator[tuple[Report, Heard]]:
    """The same rows twice over, so that both a new event and a known one is met; then with what another wrote."""
    with Engine(to=url, table="t", id=["key"], **named) as engine:
        for start in (0, ROWS - DOUBLED):
            heard = Heard()
            report = engine.ingest(events([*range(start, start + ROWS), start]), listener=heard)
            yield report, heard


def test_the_spans_of_a_run_sum_up_to_its_report(store_url: str, mode: str) -> None:
    for report, heard in loaded(store_url, **MODES[mode]):
        seconds: dict[str, float] = defaultdict(float)
        rows: Counter[str] = Counter()
        for span in heard.spans:
            seconds[span.stage] += span.seconds
            rows[span.stage] += span.rows
        assert report.stages == pytest.approx(seconds)
        assert rows["read"] == rows["prepare"] == rows["decide"] == report.read
        assert heard.counts == report.counts
        assert rows["gather"] == rows["commit"] >= report.inserted > 0
        assert heard.calls[0] == "began"
        assert heard.calls[-1] == "ended"
        assert heard.run.run_id == report.run_id


def test_every_slice_is_measured_where_it_was_done(store_url: str, mode: str) -> None:
    for report, heard in loaded(store_url, **MODES[mode]):
        commits = [span for span in heard.spans if span.stage == "commit"]
        assert len(commits) == heard.slices
        assert len({(span.source, span.first_row, span.partition) for span in commits}) == heard.slices
        processes = {span.worker.split("/")[0] for span in commits}
        assert (str(os.getpid()) in processes) == (mode == "sequential")
        assert {span.partition for span in commits} <= set(range(report.partitions))
        assert all(span.size > 0 for span in commits if span.rows)


def test_every_stage_but_the_runs_own_says_whose_chunk_it_worked_on(store_url: str, mode: str) -> None:
    of_the_run = {"agree", "snapshot"}
    for report, heard in loaded(store_url, **MODES[mode]):
        chunks = {(span.source, span.first_row) for span in heard.spans if span.stage == "read" and span.rows}
        assert len(chunks) == report.chunks
        for span in heard.spans:
            if span.stage not in of_the_run and not span.stage.startswith("wait."):
                at_the_end = span.stage == "read" and not span.rows
                assert at_the_end or (span.source, span.first_row) in chunks, span


def test_the_parts_of_a_commit_fit_into_it(store_url: str, mode: str) -> None:
    database = store_url.split(":", 1)[0]
    for _, heard in loaded(store_url, **MODES[mode]):
        whole = {(s.source, s.first_row, s.partition): s for s in heard.spans if s.stage == "commit"}
        parts: dict[Any, list[Span]] = defaultdict(list)
        for span in heard.spans:
            if span.stage.startswith("commit."):
                parts[span.source, span.first_row, span.partition].append(span)
        assert parts.keys() == whole.keys()
        for key, of_one in parts.items():
            names = Counter(span.stage for span in of_one)
            assert names["commit.begin"] == names["commit.commit"] == 1
            # PostgreSQL gets the books with COMMIT
            assert names["commit.receipt"] == (2 if database == "sqlite" else 1)
            assert names["commit.locks"] == (mode == "locked")
            assert sum(span.seconds for span in of_one) <= whole[key].seconds
            if whole[key].rows:
                assert any(name in names for name in WRITING[database, mode]), names


WRITING = {
    **{("sqlite", name): {"commit.insert"} for name in MODES},
    **{("postgresql", name): {"commit.copy"} for name in ("sequential", "partitioned")},
    ("postgresql", "upsert"): {"commit.conflict"},
    ("postgresql", "locked"): {"commit.query"},
}


def test_a_failed_run_tells_what_it_measured_and_that_it_failed(store_url: str) -> None:
    def broken(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise RuntimeError("no")

    heard = Heard()
    with Engine(to=store_url, table="t", id=["key"], enrich=broken) as engine, pytest.raises(Exception, match="no"):
        engine.ingest(events(range(100)), listener=heard)
    assert heard.calls[0] == "began"
    assert heard.calls[-1].startswith("failed ")
    assert {"agree", "read", "prepare", "decide"} <= {span.stage for span in heard.spans}


def test_a_stage_that_fails_took_its_time_all_the_same() -> None:
    watch = Stopwatch("a.csv", 10, 3)
    stage = watch.stage("commit.copy", rows=5)
    with pytest.raises(KeyError, match="gone"), stage:
        raise KeyError("gone")
    (span,) = watch.spans
    assert (span.stage, span.rows, span.size, span.source, span.first_row, span.partition) == (
        "commit.copy", 5, 0, "a.csv", 10, 3,
    )  # fmt: skip


def test_a_refused_copy_is_measured_beside_the_safe_path(postgres_url: str) -> None:
    """Another writer was first: the slice's time is that of the fast path and of the safe one."""
    with Engine(to=postgres_url, table="t", id=["key"], mode="sequential") as engine:
        engine.ingest(events(range(10)))
        with Engine(to=postgres_url, table="t", id=["key"], mode="sequential") as other:
            other.ingest(events(range(50)))
        heard = Heard()
        report = engine.ingest(events(range(60)), listener=heard)
    assert report.inserted == 10
    stages = [span.stage for span in heard.spans]
    assert [stages.count(name) for name in ("commit.copy", "commit.aside", "commit.conflict")] == [1, 1, 1]
