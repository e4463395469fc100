"""Functions that the tests of a moving world hand to Headrace as a user would."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["with_length"]


def with_length(events: pa.RecordBatch) -> pa.RecordBatch:
    """Adds how long the text `a` is."""
    return events.append_column("length", pc.utf8_length(events.column("a")).cast(pa.int64()))
