"""What a run took by chunk: every span counts once, however many chunks are merged, and waiting has its reason."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.observability.chunk_costs import chunkwise
from headrace.observability.stages import totals_of
from headrace.storage.spans import Span

STAGES = ("agree", "read", "prepare", "decide", "commit", "commit.copy", "commit.encode", "wait.chunk")


def span(stage: str, first_row: int, seconds: float, cpu: float, rows: int = 0, source: str = "a.csv") -> Span:
    return Span(stage, 0.0, seconds, cpu, "1/MainThread", rows, rows * 8, source, first_row)


some_spans = st.lists(
    st.builds(
        span,
        st.sampled_from(STAGES),
        st.integers(0, 40),
        st.floats(0, 10),
        st.floats(0, 10),
        st.integers(0, 1_000),
        st.sampled_from(["", "a.csv", "b.csv"]),
    )
)


@given(some_spans, st.integers(1, 50))
def test_every_span_counts_once_in_a_bounded_number_of_chunks_in_input_order(spans: list[Span], most: int) -> None:
    found = chunkwise(spans, most)
    assert len(found.chunks) <= most
    met = list(dict.fromkeys((one.source, one.first_row) for one in spans if one.source))
    assert found.total == len(met) == sum(one.chunks for one in found.chunks)
    assert [(one.source, one.first_row) for one in found.chunks] == met[:: found.merged]
    assert all(one.chunks == found.merged for one in found.chunks[:-1])
    capped = [replace(one, cpu_seconds=min(one.cpu_seconds, one.seconds)) for one in spans]
    besides = totals_of(one for one in capped if not one.source)
    assert found.besides.keys() == besides.keys()
    for stage, total in besides.items():
        assert astuple(found.besides[stage]) == pytest.approx(astuple(total))
    for stage, total in totals_of(one for one in capped if one.source).items():
        parts = [one.stages[stage] for one in found.chunks if stage in one.stages]
        assert sum(part.spans for part in parts) == total.spans
        assert sum(part.rows for part in parts) == total.rows
        assert sum(part.size for part in parts) == total.size
        assert sum(part.seconds for part in parts) == pytest.approx(total.seconds)
        assert sum(part.cpu_seconds for part in parts) == pytest.approx(total.cpu_seconds)


@given(some_spans)
def test_the_seconds_are_on_a_core_or_waiting_and_the_database_is_part_of_that(spans: list[Span]) -> None:
    found = chunkwise(spans).chunks
    for name in ("rows", "size", "seconds", "on_a_core", "waiting"):  # whatever is merged, they add up
        merged = sum(getattr(one, name) for one in chunkwise(spans, 2).chunks)
        assert merged == pytest.approx(sum(getattr(one, name) for one in found), abs=1e-9)
    for one in found:
        assert one.on_a_core + one.waiting == pytest.approx(one.seconds)
        assert 0 <= one.on_a_core <= one.seconds
        commit = one.to_dict()["stages"].get("commit", {"waiting": 0})
        assert 0 <= one.waiting_for_database <= commit["waiting"] + 1e-6 <= one.waiting + 2e-6


def test_what_a_commit_waits_for_is_the_database_and_what_encoding_waits_for_is_not() -> None:
    told = chunkwise(
        [
            span("read", 0, 0.5, 0.25, 100),
            span("commit", 0, 3.0, 1.0, 90),
            span("commit.encode", 0, 1.0, 0.5, 90),
            span("commit.copy", 0, 1.5, 0.25, 90),
            span("wait.chunk", 0, 9.0, 0.0, source=""),
        ]
    ).to_dict()
    (chunk,) = told["chunks"]
    stages = chunk.pop("stages")
    assert chunk == {
        "source": "a.csv",
        "first_row": 0,
        "chunks": 1,
        "rows": 100,
        "bytes": 800,
        "seconds": 3.5,
        "on_a_core": 1.25,
        "waiting": 2.25,
        "waiting_for_database": 1.5,
    }
    assert stages["commit.copy"] == {"seconds": 1.5, "on_a_core": 0.25, "waiting": 1.25, "rows": 90, "bytes": 720}
    assert told["besides"]["wait.chunk"] == {
        "seconds": 9.0,
        "on_a_core": 0.0,
        "waiting": 9.0,
        "rows": None,
        "bytes": None,
    }
    assert (told["total"], told["merged"]) == (1, 1)


def test_more_chunks_than_are_wanted_are_merged_and_it_says_so() -> None:
    told = chunkwise(span("read", at, 1.0, 1.0, 1) for at in range(2_001)).to_dict()
    assert (told["total"], told["merged"], len(told["chunks"])) == (2_001, 3, 667)
    assert {one["rows"] for one in told["chunks"]} == {3}
