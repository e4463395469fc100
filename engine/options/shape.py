"""How a run cuts its input into slices, and how parallel mode stays safe.

    strategy      a micro-batch is   its slices     existing IDs are known from
    sequential    one chunk          one            the snapshot
    partitioned   several chunks     a partition    the snapshot
    upsert        one chunk          one            the database's conflict resolution
    locked        one chunk          a partition    a query under the partition's lock

Sequential is one partition on an inline executor; the path is the same for all four. The shape is kept with the run:
receipts speak about its slices, so a run that is resumed keeps it, whatever mode it is resumed in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from headrace.options.choices import StrategyName
from headrace.storage.records import Existing

__all__ = ["SEQUENTIAL", "STRATEGIES", "Shape", "parallel_shape", "share_of_memory"]

STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)
# a lock is held for one slice: more partitions than loaders let two of them seldom want the same one
LOCKED_PARTITIONS = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """How the input is cut: a micro-batch is closed once it has `rows` rows or `bytes` bytes, and is split by the hash
    of the IDs into `partitions` slices.
    """

    strategy: Literal["sequential"] | StrategyName
    partitions: int = 1
    rows: int = 1
    bytes: int = 1

    @property
    def existing(self) -> Existing:
        """Where the IDs that exist are known from."""
        match self.strategy:
            case "upsert":
                return "conflict"
            case "locked":
                return "query"
            case _:
                return "snapshot"

    def to_json(self) -> str:
        """The text that is kept with the run."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> Shape:
        """The shape that `to_json` wrote; sequential where there is none."""
        return SEQUENTIAL if text is None else cls(**json.loads(text))


SEQUENTIAL = Shape("sequential")


def parallel_shape(
    strategy: StrategyName, *, workers: int, partitions: int | None, chunk_rows: int, memory: int
) -> Shape:
    """The shape for `workers` workers with `memory` bytes for all chunks on their way.

    A micro-batch of the strategy ``partitioned`` has a chunk for each worker, so that a slice is about as large as a
    chunk: large enough for COPY, small enough that the next micro-batch is prepared meanwhile.
    """
    if strategy == "upsert":
        return Shape(strategy)
    if strategy == "locked":
        return Shape(strategy, partitions or max(workers, LOCKED_PARTITIONS))
    return Shape(strategy, partitions or workers, workers * chunk_rows, share_of_memory(memory, workers))


def share_of_memory(memory: int, workers: int) -> int:
    """The bytes that one chunk, and one micro-batch until it is closed, may have.

    Two micro-batches are on their way at a time, each up to one share and a last chunk, and `workers` + 1 chunks are
    made ahead.
    """
    return max(1, memory // (workers + 5))
