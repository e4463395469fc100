"""How a run cuts its input into slices, and how parallel mode stays safe.

    strategy      the slices of a chunk   existing IDs are known from
    sequential    one                     the snapshot
    partitioned   one                     the snapshot
    upsert        one                     the database's conflict resolution
    locked        one for each partition  a query under the partition's lock

Sequential is the same path on an inline executor. Under `partitioned` one owner decides which chunk an ID is new in, so
that the slices of two chunks have no event in common, whoever commits them. The shape is kept with the run: receipts
speak about its slices, so a run that is resumed keeps it, whatever mode it is resumed in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from headrace.options.choices import StrategyName
from headrace.storage.records import Existing

__all__ = ["SEQUENTIAL", "STRATEGIES", "Shape", "parallel_shape"]

STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)
# a lock is held for one slice: more partitions than loaders let two of them seldom want the same one
LOCKED_PARTITIONS = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """How the input is cut: each chunk is split by the hash of the IDs into `partitions` slices. With `ranges`, workers
    read the files that can be cut, and chunks end where ranges do.
    """

    strategy: Literal["sequential"] | StrategyName
    partitions: int = 1
    ranges: bool = False

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
        """The shape that `to_json` wrote; sequential where there is none.

        Early versions committed several chunks of a run together: its receipts then match no slice, and it is done
        again.
        """
        kept = {} if text is None else json.loads(text)
        return cls(kept.get("strategy", "sequential"), kept.get("partitions", 1), kept.get("ranges", False))


SEQUENTIAL = Shape("sequential")


def parallel_shape(strategy: StrategyName, *, workers: int, partitions: int | None, ranges: bool) -> Shape:
    """The shape for `workers` workers; `partitions` are what the user asked for."""
    several = strategy == "locked"
    return Shape(strategy, (partitions or max(workers, LOCKED_PARTITIONS)) if several else 1, ranges)
