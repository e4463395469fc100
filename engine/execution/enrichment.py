"""Enriching events by the user's function, in the types of the event table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headrace.errors import WorkerError
from headrace.events.enrich import Enriched, Enrichment, parts_of
from headrace.execution.added_columns import Settled, settle, together
from headrace.storage.store import Store

__all__ = ["enriched"]


def enriched(enrichment: Enrichment, given: pa.RecordBatch, store: Store, table: str, where: str) -> Enriched:
    """`given` with the columns that the function adds, and the rows on which it fails, or of which the table cannot
    hold a value. Missing columns are added to the table.

    Raises `WorkerError` for such a row if rows may not be rejected.
    """
    parts, failures = parts_of(enrichment, given, where)
    failed = dict(failures)
    if not parts:
        return Enriched(given.slice(0, 0), failures)
    added = list(dict.fromkeys(name for part in parts for name in part.schema.names if name not in given.schema.names))
    whole = parts[0] if len(parts) == 1 else _take(enrichment, together(parts, added, where), failed, given, where)
    without_value = [name for name in added if pa.types.is_null(whole.schema.field(name).type)]
    events = whole.drop_columns(without_value) if without_value else whole
    added = [name for name in added if name not in without_value]
    if added and events.num_rows:
        events = _take(enrichment, settle(store, table, events, added, where), failed, given, where)
    return Enriched(events, sorted(failed.items()), without_value)


def _take(
    enrichment: Enrichment, settled: Settled, failed: dict[int, str], given: pa.RecordBatch, where: str
) -> pa.RecordBatch:
    """The events that are left; the others join the `failed`, by their position in what was `given`."""
    left = np.delete(np.arange(given.num_rows), list(failed))
    for at, (column, reason) in settled.failed.items():
        if enrichment.on_error == "fail":
            raise WorkerError(
                f"{enrichment.name} returned a value that its column cannot hold: {reason}",
                where=f"{where}, column {column}",
                hint="a column has the type of its first values: let the function give it one type in every batch, "
                "such as pa.array(values, pa.float64()), or keep such rows as rejects with --on-error reject",
            )
        failed[int(left[at])] = f"{enrichment.name}, column {column}: {reason}"
    return settled.events
