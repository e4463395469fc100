"""Functions that the tests of a moving world hand to Headrace as a user would."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["refuse_sevens", "with_length"]


def with_length(events: pa.RecordBatch) -> pa.RecordBatch:
    """Adds how long the text `a` is."""
    return events.append_column("length", pc.utf8_length(events.column("a")).cast(pa.int64()))


def refuse_sevens(events: pa.RecordBatch) -> pa.RecordBatch:
    """Adds whether the number `key` is even, and fails on those that seven divides."""
    keys = events.column("key").to_pylist()
    if any(key % 7 == 0 for key in keys):
        raise ValueError("seven divides it")
    return events.append_column("even", pa.array([key % 2 == 0 for key in keys]))
