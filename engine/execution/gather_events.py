"""The new rows of a slice, gathered from their chunk and sorted by ID."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headrace.execution.orders import ChunkRows
from headrace.partitioning.dedup import id_order
from headrace.partitioning.identity import ids_to_arrow
from headrace.storage.records import EVENT_ID, PROVIDER

__all__ = ["gathered"]


def gathered(chosen: ChunkRows, provider: str) -> pa.RecordBatch:
    """The `chosen` rows sorted by ID, with ID and provider added. Rows that stand so already are not copied.

    Sorted inserts keep the index cheap and prevent deadlocks.
    """
    ids, events = chosen.ids, chosen.events.open()
    order = id_order(ids)
    rows = chosen.rows[order]
    if len(rows) != events.num_rows or not bool((rows[:-1] < rows[1:]).all()):
        events, ids = events.take(pa.array(rows)), np.ascontiguousarray(ids[order])
    added = {EVENT_ID: ids_to_arrow(ids), PROVIDER: pa.repeat(provider, len(ids))}
    return pa.RecordBatch.from_arrays([*events.columns, *added.values()], names=[*events.schema.names, *added])
