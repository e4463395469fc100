"""Functions that the tests of a moving world hand to Headrace as a user would."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["refuse_sevens", "wait_at_ten_thousand", "with_length"]


def with_length(events: pa.RecordBatch) -> pa.RecordBatch:
    """Adds how long the text `a` is."""
    return events.append_column("length", pc.utf8_length(events.column("a")).cast(pa.int64()))


def refuse_sevens(events: pa.RecordBatch) -> pa.RecordBatch:
    """Adds whether the number `key` is even, and fails on those that seven divides."""
    keys = events.column("key").to_pylist()
    if any(key % 7 == 0 for key in keys):
        raise ValueError("seven divides it")
    return events.append_column("even", pa.array([key % 2 == 0 for key in keys]))


def wait_at_ten_thousand(events: pa.RecordBatch) -> pa.RecordBatch:
    """Waits, where an event's number `key` is 10,000, for the file that HEADRACE_TEST_GO names."""
    if pc.any(pc.equal(events.column("key"), 10_000)).as_py():
        deadline = time.monotonic() + 120
        while not Path(os.environ["HEADRACE_TEST_GO"]).exists():
            if time.monotonic() > deadline:
                raise TimeoutError("nobody let the load go on")
            time.sleep(0.01)
    return events
