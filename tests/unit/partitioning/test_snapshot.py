"""Sets of IDs against Python's own set, and coverage that is never claimed before it is fetched."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import HeadraceError
from headrace.partitioning import snapshot
from headrace.partitioning.snapshot import BLOCK_US, EVERYTHING, IdRuns, Segment, Snapshot, runs
from headrace.partitioning.snapshot.bloom import Presence
from headrace.partitioning.snapshot.coverage import Coverage

SEED = 3
HALVES = st.sampled_from([bytes(8), b"\x00" * 7 + b"\x01", b"\x01" + b"\x00" * 7, b"\xff" * 8, b"\x80" + b"\xff" * 7])
COLLIDING = st.builds(bytes.__add__, HALVES, HALVES)
BATCHES = st.lists(st.lists(COLLIDING | st.binary(min_size=16, max_size=16), max_size=12), max_size=25)
INT64 = st.integers(-(2**63), 2**63 - 1)


def array(ids: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files from the tenth ID on, and slices of a few IDs: every border is crossed in small examples."""
    monkeypatch.setattr(snapshot, "_IN_MEMORY", 10)
    monkeypatch.setattr(snapshot, "_GATHERED", 5)
    monkeypatch.setattr(runs, "_SLICE", 4)
    monkeypatch.setattr(runs, "_PART", 6)
    monkeypatch.setattr(runs, "_FEWEST_READ", 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=BATCHES, asked=st.lists(COLLIDING | st.binary(min_size=16, max_size=16), max_size=10))
def test_id_runs_know_exactly_what_was_added(
    tmp_path: Path, small_sizes: None, batches: list[list[bytes]], asked: list[bytes]
) -> None:
    known: set[bytes] = set()
    with IdRuns(tmp_path) as ids:
        for batch in batches:
            assert ids.contains(array(batch)).tolist() == [event_id in known for event_id in batch]
            ids.add(array(sorted(set(batch) - known)))
            known |= set(batch)
            assert len(ids) == len(known)
        everything = [*asked, *sorted(known), *asked]
        assert ids.contains(array(everything)).tolist() == [event_id in known for event_id in everything]


@pytest.mark.parametrize("collide", ["low", "high"])
def test_ids_that_agree_in_one_half_stay_apart(tmp_path: Path, small_sizes: None, collide: str) -> None:
    ids = np.random.default_rng(SEED).integers(0, 256, (600, 16), dtype=np.uint8)
    ids[:, 8:] = ids[0, 8:] if collide == "low" else ids[:, 8:]
    ids[:, :8] = ids[0, :8] if collide == "high" else ids[:, :8]
    with IdRuns(tmp_path) as known:
        for start in range(0, 300, 7):
            known.add(ids[start : min(start + 7, 300)])
        assert known.contains(ids).tolist() == [True] * 300 + [False] * 300, f"seed {SEED}"


def test_many_chunks_end_in_few_runs_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_IN_MEMORY", 2_000)
    ids = np.random.default_rng(SEED).integers(0, 256, (200_000, 16), dtype=np.uint8)
    with IdRuns(tmp_path) as known:
        for start in range(0, 100_000, 500):
            known.add(ids[start : start + 500])
        assert len(known) == 100_000
        assert len(list(tmp_path.rglob("*.low"))) <= 21  # at most seven of each of three sizes
        assert known.contains(ids).tolist() == [True] * 100_000 + [False] * 100_000, f"seed {SEED}"


def test_files_are_private_and_gone_after_close(tmp_path: Path) -> None:
    ids = np.random.default_rng(SEED).integers(0, 256, (1 << 18, 16), dtype=np.uint8)
    known = IdRuns(tmp_path)
    known.add(ids)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in files} == {0o700}
    known.close()
    known.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        known.contains(ids[:1])


def test_a_full_disk_is_reported_with_what_to_do(tmp_path: Path, small_sizes: None) -> None:
    with IdRuns(tmp_path) as known:
        (folder,) = tmp_path.iterdir()
        (folder / "1.low").write_bytes(b"in the way")
        with pytest.raises(HeadraceError, match="temporary files") as caught:
            known.add(np.random.default_rng(SEED).integers(0, 256, (20, 16), dtype=np.uint8))
        assert "TMPDIR" in str(caught.value.hint)


@given(st.lists(INT64.map(lambda number: number % 2**64), min_size=1, max_size=200))
def test_presence_never_denies_what_was_added(numbers: list[int]) -> None:
    low = np.sort(np.array(numbers, np.uint64))
    presence = Presence(len(low))
    presence.add(low)
    assert presence.maybe(low).all()


def test_presence_lets_few_strangers_pass() -> None:
    low = np.random.default_rng(SEED).integers(0, 2**64, 2 << 17, dtype=np.uint64)
    presence = Presence((1 << 17) - 1)
    presence.add(np.sort(low[: presence.capacity]))
    assert presence.capacity == 1 << 17
    assert presence.maybe(low[presence.capacity :]).mean() < 0.08, f"seed {SEED}"


SEGMENTS = st.builds(
    lambda low, length: Segment(low, None if low is None or length is None else low + length),
    st.none() | st.integers(-5 * BLOCK_US, 5 * BLOCK_US).map(lambda us: us // 1000 * 1000),
    st.none() | st.integers(1, 3 * BLOCK_US // 1000).map(lambda ms: ms * 1000),
) | st.builds(lambda high: Segment(None, high), st.integers(-5 * BLOCK_US, 5 * BLOCK_US))
TIMES = st.lists(st.integers(-6 * BLOCK_US, 6 * BLOCK_US) | INT64, max_size=30)


def inside(segment: Segment, time: int) -> bool:
    return (segment.low is None or segment.low <= time) and (segment.high is None or time < segment.high)


@given(st.lists(SEGMENTS, max_size=5), TIMES)
def test_coverage_is_the_union_of_its_segments(segments: list[Segment], times: list[int]) -> None:
    coverage = Coverage()
    for segment in segments:
        coverage.add(segment)
    edges = [edge for segment in segments for edge in (segment.low, segment.high) if edge is not None]
    asked = [*times, *edges, *(edge - 1 for edge in edges)]
    expected = [any(inside(segment, time) for segment in segments) for time in asked]
    assert coverage.covers(np.array(asked, np.int64)).tolist() == expected


@given(st.lists(SEGMENTS, max_size=4), TIMES)
def test_missing_segments_cover_the_times_and_repeat_nothing(segments: list[Segment], times: list[int]) -> None:
    coverage = Coverage()
    for segment in segments:
        coverage.add(segment)
    asked = np.array(times, np.int64)
    missing = coverage.missing(asked)
    assert len(missing) <= 16 + len(segments)
    for one, following in pairwise(missing):
        assert one.high is not None
        assert following.low is not None
        assert one.high < following.low
    for segment in missing:
        probes = [
            edge for edge in (segment.low, None if segment.high is None else segment.high - 1) if edge is not None
        ]
        assert not coverage.covers(np.array(probes, np.int64)).any()
    for segment in missing:
        coverage.add(segment)
    assert coverage.covers(asked).all()
    assert coverage.missing(asked) == []


def test_late_times_are_rounded_out_to_blocks_clipped_and_joined() -> None:
    coverage = Coverage()
    coverage.add(Segment(10 * BLOCK_US + 5_000_000, None))
    late = np.array([-1, 0, BLOCK_US, 5 * BLOCK_US + 1, 10 * BLOCK_US + 1, 11 * BLOCK_US], np.int64)
    assert coverage.missing(late) == [
        Segment(-BLOCK_US, 2 * BLOCK_US),
        Segment(5 * BLOCK_US, 6 * BLOCK_US),
        Segment(10 * BLOCK_US, 10 * BLOCK_US + 5_000_000),
    ]


def test_a_segment_ends_at_whole_milliseconds_and_is_not_empty() -> None:
    assert Segment(1_999, 2_001) == Segment(1_000, 2_000)
    assert Segment(-1, 0) == Segment(-1_000, 0)
    with pytest.raises(ValueError, match="at least a millisecond"):
        Segment(1_000, 1_999)


def test_snapshot_knows_what_it_was_given_even_twice(tmp_path: Path, small_sizes: None) -> None:
    ids = np.random.default_rng(SEED).integers(0, 256, (50, 16), dtype=np.uint8)
    with Snapshot(tmp_path) as existing:
        existing.extend(iter([ids[:20].tobytes(), b"", ids[10:30].tobytes()]), Segment(0, None))
        existing.extend(iter([ids[:40].tobytes()]), Segment(None, 0))
        assert len(existing) == 40
        assert existing.complete
        assert existing.known(ids).tolist() == [True] * 40 + [False] * 10, f"seed {SEED}"
    assert list(tmp_path.iterdir()) == []


def test_coverage_is_not_claimed_when_the_fetch_fails_or_is_cut_short(tmp_path: Path) -> None:
    ids = np.random.default_rng(SEED).integers(0, 256, (10, 16), dtype=np.uint8)

    def broken() -> Iterator[bytes]:
        yield ids.tobytes()
        raise ConnectionError("the server went away")

    moment = np.array([0], np.int64)
    with Snapshot(tmp_path) as existing:
        with pytest.raises(ConnectionError):
            existing.extend(broken(), EVERYTHING)
        existing.extend(iter([ids.tobytes()]), None)
        assert not existing.complete
        assert not existing.covers(moment).any()
        assert existing.missing_segments(moment) == [Segment(0, BLOCK_US)]
        assert existing.known(ids).all()
        existing.extend(iter([]), EVERYTHING)
        assert existing.complete
        assert existing.segments == (EVERYTHING,)
        assert existing.covers(np.array([-(2**63), 0, 2**63 - 1], np.int64)).all()
