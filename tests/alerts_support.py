"""Rules that are functions, importable by the workers of the tests."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["is_long", "is_one_of_few"]


def is_long(events: pa.RecordBatch) -> pa.Array:
    return pc.greater(pc.utf8_length(events["value"]), 2)


def is_one_of_few(events: pa.RecordBatch) -> list[bool]:
    """What no rule may do: look at how the input was cut."""
    return [events.num_rows < 30] * events.num_rows
