"""The rows of pieces, gathered from their chunks and sorted by ID."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.execution.orders import ChunkRows
from headrace.partitioning.dedup import id_order
from headrace.partitioning.identity import ids_to_arrow
from headrace.storage.records import EVENT_ID, PROVIDER

__all__ = ["addresses", "gathered", "lacking"]

SHOWN = 3  # addresses in a message


def gathered(pieces: Sequence[ChunkRows], provider: str) -> pa.RecordBatch:
    """The rows of `pieces` sorted by ID, with ID and provider added.

    Sorted inserts keep the index cheap and prevent deadlocks.
    """
    events, ids = _taken(pieces[0]) if len(pieces) == 1 else _taken_together(pieces)
    added = {EVENT_ID: ids_to_arrow(ids), PROVIDER: pa.repeat(provider, len(ids))}
    return pa.RecordBatch.from_arrays([*events.columns, *added.values()], names=[*events.schema.names, *added])


def _taken(piece: ChunkRows) -> tuple[pa.RecordBatch, NDArray[np.uint8]]:
    """One piece's rows, sorted by ID. Rows that stand so already are not copied."""
    ids = piece.ids
    order = id_order(ids)
    rows = piece.rows[order]
    batch = piece.events.open()
    if len(rows) == batch.num_rows and bool((rows[:-1] < rows[1:]).all()):
        return batch, ids
    return batch.take(pa.array(rows)), ids[order]


def _taken_together(pieces: Sequence[ChunkRows]) -> tuple[pa.RecordBatch, NDArray[np.uint8]]:
    """The rows of all pieces, sorted by ID, by one gather over the whole chunks: half the copies of one for each."""
    tables = [pa.Table.from_batches([piece.events.open()]) for piece in pieces]
    starts = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
    rows = np.concatenate([piece.rows + start for piece, start in zip(pieces, starts, strict=True)])
    ids = np.concatenate([piece.ids for piece in pieces])
    order = id_order(ids)
    # a column that one of the chunks lacks is null there
    whole = pa.concat_tables(tables, promote_options="default")
    return whole.take(pa.array(rows[order])).combine_chunks().to_batches()[0], ids[order]


def addresses(pieces: Sequence[ChunkRows]) -> str:
    """The addresses of `pieces`, for a message."""
    shown = [str(piece.address) for piece in pieces[:SHOWN]]
    return "; ".join(shown) + (f" and {len(pieces) - SHOWN} more chunks" if len(pieces) > SHOWN else "")


def lacking(pieces: Sequence[ChunkRows], events: pa.RecordBatch) -> dict[str, NDArray[np.bool_]]:
    """For each column that some of the `pieces` lack and others have, which of `events` come from those without it."""
    owned = [frozenset(piece.events.open().schema.names) for piece in pieces]
    names = sorted(frozenset().union(*owned) - frozenset.intersection(*owned)) if len(set(owned)) > 1 else []
    if not names or not events.num_rows:
        return {}
    every = ids_to_arrow(np.concatenate([piece.ids for piece in pieces]))
    found = pa.compute.index_in(events.column(EVENT_ID), value_set=every).to_numpy()
    of_each = np.repeat(np.arange(len(pieces)), [len(piece.rows) for piece in pieces])[found]
    # the user's function may have given it a value
    return {
        name: np.array([name not in one for one in owned])[of_each] & events.column(name).is_null().to_numpy(False)
        for name in names
        if name in events.schema.names
    }
