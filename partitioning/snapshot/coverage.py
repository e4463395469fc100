"""Which part of the time axis a snapshot covers, and what must still be fetched to cover given times.

    times of a chunk ──covers?──► covered: absence from the snapshot means absence from the store
                         └──────► late: rounded out to 30-day blocks ──minus what is covered──► segments to fetch

Times are microseconds since 1970 UTC. Segments are half-open, so that neighbours neither overlap nor leave a gap, and
their ends are whole milliseconds: an ID of layout ``time`` knows no more, and with a finer end a segment would cover
events that the fetch by ID range leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_US", "EVERYTHING", "Coverage", "Segment", "stretches"]

BLOCK_US = 30 * 86_400_000_000
"""Late times are fetched by the 30-day block, counted from 1970-01-01."""

_MOST_SEGMENTS = 16  # a chunk of scattered times must not become thousands of statements
_US_PER_MS = 1000
_INT64 = np.iinfo(np.int64)


def _whole_ms(us: int | None) -> int | None:
    return None if us is None else us // _US_PER_MS * _US_PER_MS


@dataclass(frozen=True, slots=True)
class Segment:
    """The times ``low <= t < high``, rounded down to whole milliseconds; `None` is unbounded.

    Raises `ValueError` if that leaves nothing.
    """

    low: int | None = None
    high: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", _whole_ms(self.low))
        object.__setattr__(self, "high", _whole_ms(self.high))
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"a segment holds at least a millisecond: {self}")


EVERYTHING = Segment()


class Coverage:
    """A set of times, as disjoint segments in ascending order."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What is covered: disjoint, not even touching, ascending."""
        return tuple(self._segments)

    @property
    def complete(self) -> bool:
        """Whether every time is covered."""
        return self._segments == [EVERYTHING]

    def add(self, segment: Segment) -> None:
        """Cover `segment` too."""
        self._segments = list(_united([*self._segments, segment]))

    def covers(self, times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `times` (rows,) are covered."""
        edges = [edge for segment in self._segments for edge in (_low(segment), segment.high) if edge is not None]
        # Edges alternate between low and high: after an odd number of them one is inside a segment.
        inside = np.searchsorted(np.array(edges, dtype=np.int64), times, side="right") % 2 == 1
        return np.asarray(inside, dtype=np.bool_)

    def missing(self, times: NDArray[np.int64]) -> list[Segment]:
        """The segments that, once added, cover all of `times`: ascending, disjoint, nothing that is covered already.

        Times scattered over more than 16 separate stretches of blocks are bridged where the gaps are smallest.
        """
        late = times[~self.covers(times)]
        blocks = np.unique(late // BLOCK_US)
        return list(_without([_of_blocks(first, last) for first, last in stretches(blocks)], self._segments))


def _low(segment: Segment) -> int:
    return _INT64.min if segment.low is None else segment.low


def _high(segment: Segment) -> int:
    """The end for comparisons: one past every int64 if unbounded."""
    return _INT64.max + 1 if segment.high is None else segment.high


def _united(segments: Iterable[Segment]) -> Iterator[Segment]:
    """The same times as disjoint segments; overlapping and touching ones become one."""
    ordered = sorted(segments, key=_low)
    current = ordered[0]
    for segment in ordered[1:]:
        if _low(segment) > _high(current):
            yield current
            current = segment
        elif _high(segment) > _high(current):
            current = Segment(current.low, segment.high)
    yield current


def _without(segments: Iterable[Segment], covered: Sequence[Segment]) -> Iterator[Segment]:
    """What is left of `segments` outside `covered`, both ascending and disjoint."""
    for segment in segments:
        low: int | None = segment.low
        for hole in covered:
            if _high(hole) <= (_INT64.min if low is None else low) or _low(hole) >= _high(segment):
                continue
            if _low(hole) > (_INT64.min if low is None else low):
                yield Segment(low, hole.low)
            low = hole.high
            if _high(hole) >= _high(segment):
                break
        else:
            yield Segment(low, segment.high)


def stretches(blocks: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive block numbers as (first, last), at most 16 of them."""
    if len(blocks) == 0:
        return
    gaps = np.diff(blocks)
    widest = np.argsort(gaps, kind="stable")[::-1][: _MOST_SEGMENTS - 1]
    cuts = np.sort(widest[gaps[widest] > 1])
    firsts, lasts = [0, *(cuts + 1).tolist()], [*cuts.tolist(), len(blocks) - 1]
    for first, last in zip(firsts, lasts, strict=True):
        yield int(blocks[first]), int(blocks[last])


def _of_blocks(first: int, last: int) -> Segment:
    """Blocks `first` to `last` as one segment, unbounded where int64 ends."""
    low, high = first * BLOCK_US, (last + 1) * BLOCK_US
    return Segment(low if low >= _INT64.min else None, high if high <= _INT64.max else None)
