"""The verdict's model: what must hold for any costs, and the known cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.observability.stages import totals_of
from headrace.profiling.costs import Costs, costs_of, round_trips
from headrace.profiling.model import (
    CANDIDATES,
    Advice,
    Machine,
    amdahl,
    best_workers,
    connections_gain,
    judge,
    parallel_seconds,
    sequential_seconds,
)
from headrace.storage.spans import Span

CHUNK = 1_000
FREE = Costs(10_000, 10, 0, 0, 0, 0, 0, 0, 0, 0)
small = st.floats(0, 1e-3, allow_nan=False)
costs = st.builds(
    Costs,
    rows=st.just(10_000),
    chunks=st.just(10),
    agree=small,
    reader=small,
    decider=small,
    prepare=small,
    carry=small,
    commit=st.floats(0, 1, allow_nan=False),
    database=small,
    processor=small,
)
machines = st.builds(
    Machine, cores=st.integers(1, 64), start=st.floats(0, 5), gain=st.floats(1, 2), writers=st.sampled_from([None, 1])
)
workers = st.integers(1, 64)


def verdict(alone: Costs, machine: Machine, rows: int = 100_000, count: int = 2, **changed: float) -> Advice:
    modelled, _ = parallel_seconds(alone, machine, alone.rows, count, CHUNK)
    told = {"sequential_sample": sequential_seconds(alone, alone.rows, 1.0), "parallel_sample": modelled, **changed}
    return judge(alone, machine, rows=rows, chunk_rows=CHUNK, parallel_costs=alone, workers=count, **told)


@given(costs, machines, workers, st.integers(0, 10**7), st.integers(0, 10**7))
def test_more_rows_never_take_less(one: Costs, machine: Machine, count: int, rows: int, more: int) -> None:
    less, _ = parallel_seconds(one, machine, rows, count, CHUNK)
    longer, _ = parallel_seconds(one, machine, rows + more, count, CHUNK)
    assert longer >= less * (1 - 1e-9)


@given(costs, machines, workers, st.integers(1, 10**7))
def test_no_number_of_workers_beats_a_bound(one: Costs, machine: Machine, count: int, rows: int) -> None:
    seconds, _ = parallel_seconds(one, machine, rows, count, CHUNK)
    assert seconds * (1 + 1e-9) >= one.processor * rows / machine.cores
    assert seconds * (1 + 1e-9) >= one.worker * rows / count
    assert seconds * (1 + 1e-9) >= one.reader * rows


@given(st.floats(1, 2), workers)
def test_connections_gain_no_more_than_their_number_and_no_less_than_nothing(gain: float, count: int) -> None:
    assert 1 - 1e-9 <= connections_gain(Machine(2, 0, gain), count) <= count + 1e-9
    assert connections_gain(Machine(2, 0, gain, writers=1), count) == 1
    assert connections_gain(Machine(2, 0, gain), 2) == pytest.approx(gain)


@given(costs, workers)
def test_amdahls_bound_lies_between_one_and_the_workers(one: Costs, count: int) -> None:
    assert 1 - 1e-9 <= amdahl(one, count) <= count + 1e-9


@given(costs, machines, st.integers(1, 10**7))
def test_the_best_workers_are_within_five_percent_of_the_best(one: Costs, machine: Machine, rows: int) -> None:
    times = {count: parallel_seconds(one, machine, rows, count, CHUNK)[0] for count in CANDIDATES}
    assert times[best_workers(one, machine, rows, CHUNK)] <= min(times.values()) * 1.05


def test_costly_work_of_the_workers_is_divided_by_them() -> None:
    found = verdict(replace(FREE, carry=100e-6, processor=100e-6), Machine(8, 0.5), count=4)
    assert found.parallel
    assert found.candidate.bound == "the workers"
    assert found.candidate.seconds == pytest.approx(100_000 * 100e-6 / 4 + 0.5, rel=0.1)
    assert found.speedup > 3


def test_one_core_gains_nothing_from_workers() -> None:
    found = verdict(replace(FREE, carry=100e-6, processor=100e-6), Machine(1, 0.5), count=4)
    assert not found.parallel
    assert found.candidate.bound == "the cores"


def test_cores_that_others_keep_busy_gain_nothing() -> None:
    """As it was wrong once: on a machine that others used, waiting for a core was taken for waiting that is shared."""
    starved = replace(FREE, carry=100e-6, processor=10e-6)
    assert verdict(starved, Machine(2, 0.5)).parallel
    found = verdict(starved, Machine(2, 0.5, others=1.9))
    assert not found.parallel
    assert found.candidate.bound == "the cores"


def test_one_writer_gains_nothing_where_writing_is_the_work() -> None:
    writing = replace(FREE, carry=50e-6, database=50e-6, processor=50e-6)
    assert not verdict(writing, Machine(8, 0.5, writers=1), count=8).parallel
    assert verdict(writing, Machine(8, 0.5), count=8).parallel


def test_a_distant_database_pays_with_more_commits_at_a_time() -> None:
    far = replace(FREE, commit=0.2, carry=1e-6, processor=1e-6)
    assert verdict(far, Machine(2, 0.5), count=8).parallel


def test_a_last_micro_batch_pays_a_whole_commit_however_small_it_is() -> None:
    """As it was wrong once: the advice for a database 20 ms away, with half a micro-batch after the first."""
    far = replace(FREE, commit=0.3, carry=1e-6)
    one, _ = parallel_seconds(far, Machine(2, 0.0), 4 * CHUNK, 4, CHUNK)
    and_a_row, _ = parallel_seconds(far, Machine(2, 0.0), 4 * CHUNK + 1, 4, CHUNK)
    two, _ = parallel_seconds(far, Machine(2, 0.0), 8 * CHUNK, 4, CHUNK)
    assert and_a_row - one == pytest.approx(0.3, abs=0.01)
    assert two - and_a_row < 0.01


def test_what_the_sample_took_beyond_the_model_is_paid_once_and_widens_the_range() -> None:
    one, machine = replace(FREE, carry=100e-6, processor=100e-6), Machine(8, 0.5)
    modelled, _ = parallel_seconds(one, machine, one.rows, 4, CHUNK)
    plain, slower = verdict(one, machine, count=4), verdict(one, machine, count=4, parallel_sample=modelled + 2)
    assert slower.candidate.seconds == pytest.approx(plain.candidate.seconds + 2)
    assert slower.candidate.high - slower.candidate.low > plain.candidate.high - plain.candidate.low


def test_a_load_of_no_time_has_a_range_of_numbers() -> None:
    found = verdict(FREE, Machine(2, 0.0), rows=10_000, sequential_sample=0.0, parallel_sample=5e-324)
    assert not any(map(math.isnan, (found.speedup_low, found.speedup, found.speedup_high, found.sequential.high)))


@given(costs, machines, st.integers(10_000, 10**7))
def test_ranges_hold_what_is_expected_and_advice_follows(one: Costs, machine: Machine, rows: int) -> None:
    found = verdict(one, machine, rows)
    for each in (found.sequential, found.candidate):
        assert each.low <= each.seconds <= each.high
    assert found.speedup_low <= found.speedup <= found.speedup_high
    assert found.parallel == (found.speedup >= 1.1)


def test_a_workers_first_chunk_is_not_taken_for_its_pace() -> None:
    seconds = {"1/a": (5.0, 1.0, 1.0), "2/a": (7.0, 1.0, 1.0)}
    spans = [
        Span("prepare", at, took, took, worker, rows=100)
        for worker, each in seconds.items()
        for at, took in enumerate(each)
    ]
    found = costs_of(spans, rows=600, round_trip=0.0, processor=0.0)
    assert found.prepare == pytest.approx(6 * 1.0 / 600)
    assert costs_of(spans[:1], rows=100, round_trip=0.0, processor=0.0).prepare == pytest.approx(5.0 / 100)


def test_a_small_first_chunk_lets_the_first_copy_begin_sooner() -> None:
    one = replace(FREE, reader=2e-6, prepare=3e-6, decider=1e-6, carry=10e-6)
    even = verdict(one, Machine(2, 0.5), rows=10 * CHUNK)
    assert verdict(one, Machine(2, 0.5), rows=10 * CHUNK, first_rows=CHUNK).sequential == even.sequential
    small = verdict(one, Machine(2, 0.5), rows=10 * CHUNK, first_rows=CHUNK // 4)
    assert even.sequential.seconds - small.sequential.seconds == pytest.approx(6e-6 * CHUNK * 3 / 4)
    assert small.candidate == even.candidate


def test_a_round_trip_is_paid_by_the_commit_and_not_by_the_row() -> None:
    spans = [
        Span("commit", 0, 1.0, 0.1, "1/w", rows=100),
        Span("commit.commit", 0, 0.2, 0.0, "1/w"),
        Span("commit.copy", 0, 0.6, 0.1, "1/w", rows=100),
    ]
    near = costs_of(spans, rows=100, round_trip=0.0, processor=0.0)
    far = costs_of(spans, rows=100, round_trip=0.1, processor=0.0)
    assert near.commit == pytest.approx(0.2)
    assert far.commit == pytest.approx(0.2 + 0.2)
    assert far.carry * 100 + far.commit == pytest.approx(near.carry * 100 + near.commit)


def test_round_trips_are_counted_by_what_a_commit_asks() -> None:
    names = ["commit", "commit.begin", "commit.receipt", "commit.copy", "commit.commit", "prepare"]
    spans = [Span(name, 0, 0.1, 0.0, "1/w") for name in names]
    assert round_trips(totals_of(spans)) == 4
    assert round_trips(totals_of(spans[-1:])) == 0


@given(costs, machines, st.integers(20_000, 10**7), st.integers(2, 16))
def test_what_workers_read_is_divided_by_them(one: Costs, machine: Machine, rows: int, count: int) -> None:
    by_coordinator = parallel_seconds(one, machine, rows, count, CHUNK)[0]
    by_workers, bound = parallel_seconds(one.read_by_workers(), machine, rows, count, CHUNK)
    assert bound != "reading" or not one.reader
    assert by_workers <= by_coordinator + one.reader * rows / count + 1e-6
    assert amdahl(one.read_by_workers(), count) >= amdahl(one, count) * (1 - 1e-9)
