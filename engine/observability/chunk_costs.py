"""The costs of a run by chunk and stage, from its spans. Pure.

    read, spool, prepare                     the chunk's own
    decide, gather, enrich, alerts, commit   those of its slices
    agree, snapshot, wait.…                  no chunk's: the run's own

The result is bounded, however long the run: if there are too many chunks, neighbours are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.observability.stages import StageTotal
from headrace.storage.spans import Span

__all__ = ["MOST_CHUNKS", "ChunkCosts", "Chunkwise", "chunkwise"]

MOST_CHUNKS = 1_000
DIGITS = 6  # of a second


@dataclass(slots=True)
class ChunkCosts:
    """The costs of a chunk (or of `chunks` neighbours, from this one on), by stage. The parts of a stage stand
    beside it.
    """

    source: str
    first_row: int
    chunks: int = 1
    stages: dict[str, StageTotal] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The rows read."""
        return self.stages["read"].rows if "read" in self.stages else 0

    @property
    def size(self) -> int:
        """Their bytes as Arrow columns."""
        return self.stages["read"].size if "read" in self.stages else 0

    @property
    def seconds(self) -> float:
        """The seconds of all stages."""
        return sum(one.seconds for name, one in self.stages.items() if "." not in name)

    @property
    def on_a_core(self) -> float:
        """The seconds that were spent on a core."""
        return sum(_on_a_core(one) for name, one in self.stages.items() if "." not in name)

    @property
    def waiting(self) -> float:
        """The other seconds."""
        return max(0.0, self.seconds - self.on_a_core)

    @property
    def waiting_for_database(self) -> float:
        """How much of the waiting was in a commit, for the database and the network before it. Encoding waits for a
        library's threads.
        """
        commit, encode = (self.stages.get(name, StageTotal()) for name in ("commit", "commit.encode"))
        return max(0.0, _waiting(commit) - _waiting(encode))

    def take(self, other: ChunkCosts) -> None:
        """Merge a neighbour into this one."""
        self.chunks += other.chunks
        for name, total in other.stages.items():
            self.stages.setdefault(name, StageTotal()).take(total)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "source": self.source,
            "first_row": self.first_row,
            "chunks": self.chunks,
            "rows": self.rows,
            "bytes": self.size,
            "seconds": round(self.seconds, DIGITS),
            "on_a_core": round(self.on_a_core, DIGITS),
            "waiting": round(self.waiting, DIGITS),
            "waiting_for_database": round(self.waiting_for_database, DIGITS),
            "stages": _stages(self.stages),
        }


@dataclass(frozen=True, slots=True)
class Chunkwise:
    """The costs of a run's `total` chunks in input order, up to `merged` of them in one (1: each has its own), and
    `besides` them, by stage, the costs of no chunk.
    """

    total: int
    merged: int
    chunks: Sequence[ChunkCosts]
    besides: Mapping[str, StageTotal]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "total": self.total,
            "merged": self.merged,
            "chunks": [one.to_dict() for one in self.chunks],
            "besides": _stages(self.besides),
        }


def chunkwise(spans: Iterable[Span], most: int = MOST_CHUNKS) -> Chunkwise:
    """The costs of each chunk; more than `most` chunks are merged with their neighbours, equally many in each
    entry but the last.
    """
    found: dict[tuple[str, int], ChunkCosts] = {}
    besides: dict[str, StageTotal] = {}
    for span in spans:
        stages = besides
        if span.source:
            place = (span.source, span.first_row)
            if place not in found:
                found[place] = ChunkCosts(*place)
            stages = found[place].stages
        _count(stages.setdefault(span.stage, StageTotal()), span)
    each = list(found.values())
    step = _step(each, most)
    return Chunkwise(len(each), step, [_merged(each[at : at + step]) for at in range(0, len(each), step)], besides)


def _step(each: Sequence[ChunkCosts], most: int) -> int:
    return -(-len(each) // most) or 1


def _count(total: StageTotal, span: Span) -> None:
    """Add a span. The two clocks are not read at once, so that it may seem to be on a core for longer than it took:
    that is cut off here, or else what is on a core would depend on how many chunks are merged.
    """
    total.add(span)
    total.cpu_seconds -= max(0.0, span.cpu_seconds - span.seconds)


def _merged(neighbours: Sequence[ChunkCosts]) -> ChunkCosts:
    first = neighbours[0]
    for other in neighbours[1:]:
        first.take(other)
    return first


def _stages(stages: Mapping[str, StageTotal]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "seconds": round(one.seconds, DIGITS),
            "on_a_core": round(_on_a_core(one), DIGITS),
            "waiting": round(_waiting(one), DIGITS),
            "rows": one.rows or None,  # a stage that goes over no rows says 0
            "bytes": one.size or None,
        }
        for name, one in sorted(stages.items())
    }


def _on_a_core(one: StageTotal) -> float:
    return min(one.seconds, one.cpu_seconds)


def _waiting(one: StageTotal) -> float:
    return one.seconds - _on_a_core(one)
