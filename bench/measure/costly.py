"""An `enrich` that is the limit of a load. A module of its own: a worker imports nothing else for it."""

from __future__ import annotations

import time

import pyarrow as pa

__all__ = ["costly"]

SPIN_SECONDS = 20e-6


def costly(events: pa.RecordBatch) -> pa.RecordBatch:
    """Python code that keeps a core busy for about 20 µs for each event, as a parser or a rule engine would."""
    scores = []
    for row in range(events.num_rows):
        until = time.perf_counter() + SPIN_SECONDS
        while time.perf_counter() < until:
            pass
        scores.append(row % 100)
    return events.append_column("score", pa.array(scores, pa.int64()))
