"""What past loads say of a provider: what must hold for any loads, and the known cases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.profiling.history import LEAST, MOST_ROWS, History, Site, _View, histories
from headrace.profiling.model import WORTH
from headrace.storage.providers import PastLoad

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
STAGES = ("read", "prepare", "decide", "enrich", "commit.copy", "commit.commit")


def place(cores: int = 8, *, start: float = 0.5, writers: int | None = None) -> Site:
    return Site(cores, 0.0001, database_here=True, writers=writers, start=lambda _: start)


def load(number: int, rows: int, cpu: float = 0.0, provider: str = "p", **stages: float) -> PastLoad:
    """A load of `rows` rows in one chunk, whose `stages` (seconds) follow each other."""
    named = {name.replace("_", "."): seconds for name, seconds in stages.items()}
    commit = sum(seconds for name, seconds in named.items() if name.startswith("commit."))
    sums = {name: (1, seconds, 0.0) for name, seconds in {"prepare": 0.0, **named, "commit": commit}.items()}
    seconds = sum(one[1] for name, one in sums.items() if "." not in name)
    return PastLoad(
        provider, "t", number, str(number), BEGAN + timedelta(days=number), "sequential", 1, 1, rows, rows,
        seconds, cpu, 0.1, sums,
    )  # fmt: skip


def told(loads: list[PastLoad], where: Site) -> History:
    (one,) = histories(loads, where)
    return one


seconds = st.floats(0, 10, allow_nan=False)
loads = st.builds(
    lambda rows, cpu, each: [load(n, rows, cpu, **dict(zip(map(slug, STAGES), each, strict=True))) for n in range(4)],
    st.integers(1, 10**6),
    seconds,
    st.tuples(*[seconds] * len(STAGES)),
)
places = st.builds(place, st.integers(1, 64), start=st.floats(0, 5), writers=st.sampled_from([None, 1]))


def slug(name: str) -> str:
    return name.replace(".", "_")


@given(loads, places)
def test_ranges_hold_what_is_expected_and_advice_follows(some: list[PastLoad], where: Site) -> None:
    verdict = told(some, where).verdict
    assert verdict is not None
    assert verdict.speedup_low <= verdict.speedup * (1 + 1e-9)
    assert verdict.speedup <= verdict.speedup_high * (1 + 1e-9)
    assert verdict.parallel == (verdict.speedup >= WORTH)


@given(loads, places)
def test_it_pays_from_more_rows_than_it_does_not_pay_at(some: list[PastLoad], where: Site) -> None:
    found = told(some, where)
    assert found.verdict is not None
    if found.verdict.parallel:
        assert found.pays_from == some[0].read
    elif found.pays_from is not None:
        assert some[0].read < found.pays_from <= MOST_ROWS


def test_a_costly_function_of_the_users_calls_for_parallel_mode_once_the_loads_are_long_enough() -> None:
    small = told([load(n, 1_000, enrich=0.2) for n in range(1, 6)], place())
    assert small.verdict is not None
    assert not small.verdict.parallel
    assert small.pays_from is not None
    assert 1_000 < small.pays_from < 100_000
    large = told([load(n, 100_000, enrich=20.0) for n in range(1, 6)], place())
    assert large.grown
    assert "--mode parallel --strategy partitioned --workers" in large.advice


def test_one_core_that_is_busy_gains_nothing_however_long_the_loads_are() -> None:
    found = told([load(n, 100_000, cpu=20.0, enrich=20.0) for n in range(1, 6)], place(1))
    assert not found.grown
    assert found.pays_from is None
    assert found.advice.endswith("larger loads would not change this")


def test_a_machine_that_others_keep_busy_gains_nothing() -> None:
    waiting = [load(n, 100_000, cpu=2.0, enrich=20.0) for n in range(1, 6)]
    assert told(waiting, place(2)).grown
    starved = [replace(one, machine_cpu=1.0) for one in waiting]
    assert not told(starved, place(2)).grown


def test_workers_are_only_started_to_be_timed_where_it_could_matter() -> None:
    asked: list[int] = []

    def start(workers: int) -> float:
        asked.append(workers)
        return 0.5

    told([load(n, 100_000, cpu=20.0, enrich=20.0) for n in range(1, 6)], Site(1, 0.0, True, None, start))
    assert asked == []
    told([load(n, 100_000, enrich=20.0) for n in range(1, 6)], Site(8, 0.0, True, None, start))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("rows", "chunks", "strategy", "expected"),
    [
        (40_000, 2, "sequential", 40_000),
        (1_000_000, 9, "sequential", 125_000),
        (100_000, 20, "sequential", 5_000),
        (40_000, 1, "sequential", 40_000),
        (1_000_000, 8, "partitioned", 125_000),
    ],
    ids=["two chunks", "many", "small files", "one", "in parallel"],
)
def test_a_small_first_chunk_is_not_taken_for_a_whole_one(rows: int, chunks: int, strategy: str, expected: int) -> None:
    one = load(0, rows, prepare=1.0)
    sums = {name: (chunks, *rest) for name, (_, *rest) in one.stages.items()}
    past = replace(one, chunks=chunks, strategy=strategy, stages=sums)
    view = _View.of([past, replace(past, number=1)], place())
    assert (view.chunk_rows, view.costs.chunks) == (expected, rows // expected)


def test_growth_is_the_oldest_third_beside_the_newest() -> None:
    found = told([load(n, n * 1_000, read=float(n)) for n in range(1, 10)], place())
    assert found.growth is not None
    assert (found.growth.rows_then, found.growth.rows_now) == (2_000, 8_000)
    assert (found.growth.seconds_then, found.growth.seconds_now) == (pytest.approx(2), pytest.approx(8))


def test_the_newest_loads_alone_decide() -> None:
    """Loads of long ago, when the function was still costly, do not count."""
    old = [load(n, 100_000, enrich=20.0) for n in range(1, 10)]
    new = [load(n, 100_000, cpu=0.2, read=0.2) for n in range(10, 16)]
    assert not told([*old, *new], place()).grown
    assert told(old, place()).grown


def test_each_provider_is_told_of_by_itself() -> None:
    found = histories(
        [*(load(n, 10, provider="a") for n in range(LEAST)), *(load(n, 10, provider="b") for n in range(LEAST - 1))],
        place(),
    )
    assert [(one.provider, one.verdict is None) for one in found] == [("a", False), ("b", True)]
