"""Rules that are functions, importable by the workers of the tests."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["add_parity", "is_long", "is_one_of_few"]


def is_long(events: pa.RecordBatch) -> pa.Array:
    return pc.greater(pc.utf8_length(events["value"]), 2)


def is_one_of_few(events: pa.RecordBatch) -> list[bool]:
    """What no rule may do: look at how the input was cut."""
    return [events.num_rows < 30] * events.num_rows


def add_parity(events: pa.RecordBatch) -> pa.RecordBatch:
    """Says it of keys below 10 alone: a batch of others has a column without a value, and so without a type."""
    keys = events["key"].to_pylist()
    return events.append_column("parity", pa.array([("even", "odd")[key % 2] if key < 10 else None for key in keys]))
