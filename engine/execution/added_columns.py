"""The types of the columns that the user's function adds: the table's types, whatever the function returns in another
batch.

    added column ──► in the table already? ──► cast to its type, value by value and strictly ──► values that it cannot
                         │ no                                                                    hold: rejects, or an
                         ▼                                                                       error in words
                     the table gets it, in the type that the function gave first

If a function returns integers in one batch and floats in the next, the type of the first batch holds for both. Nothing
is rounded, and a column without any value settles no type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from headrace.errors import SchemaError
from headrace.events.alert_judge import own_connection
from headrace.reading.types.arrow_types import logical_name
from headrace.reading.types.cast import Caster
from headrace.storage.records import RESERVED_COLUMNS
from headrace.storage.sql.limits import beyond
from headrace.storage.store import Store

__all__ = ["Settled", "settle", "together"]

TRIES = 5  # another worker may add the same columns at the same moment


class Settled(NamedTuple):
    """The events in the table's types, and the reasons why some of the given events (by position) do not fit."""

    events: pa.RecordBatch
    failed: Mapping[int, tuple[str, str]]


def settle(store: Store, table: str, events: pa.RecordBatch, added: Collection[str], where: str) -> Settled:
    """Give the `added` columns of `events` the types of `table`, and the table those that it lacks.

    Events that cannot be cast are left out. The table's other columns must have been agreed on.
    """
    for attempt in range(TRIES):
        present = store.tables.schema(table) or pa.schema([])
        fitting, failed = _cast(events, present, [name for name in added if name in present.names], where)
        for name, reason, bad in beyond(fitting, store.tables.limits(table)):
            for at in np.flatnonzero(bad).tolist():
                failed.setdefault(at, (name, reason))
        left = _left(fitting, failed)
        data = [field for field in left.schema if field.name not in RESERVED_COLUMNS]
        try:
            if left.num_rows and not {field.name for field in data} <= set(present.names):
                store.tables.create_or_widen(table, pa.schema(data), time_index=None)
        except SchemaError:
            if attempt == TRIES - 1 or store.tables.schema(table) == present:
                raise
        else:
            return Settled(left, failed)
    raise AssertionError("the last try returns or raises")


def together(parts: Sequence[pa.RecordBatch], added: Collection[str], where: str) -> Settled:
    """Batches of one function as one: its columns in the widest of their types that holds each of their values."""
    schemas = [part.schema for part in parts]
    widest = {name: _widest([one.field(name).type for one in schemas if name in one.names]) for name in added}
    wanted = pa.schema(list(widest.items()))
    failed: dict[int, tuple[str, str]] = {}
    cast, start = [], 0
    for part in parts:
        one, bad = _cast(part, wanted, [name for name in added if name in part.schema.names], where)
        failed |= {start + at: why for at, why in bad.items()}
        start += part.num_rows
        cast.append(pa.Table.from_batches([one]))
    # a part without a value for a new column may lack it
    whole = pa.concat_tables(cast, promote_options="default").combine_chunks().to_batches()[0]
    return Settled(_left(whole, failed), failed)


def _widest(types: Sequence[pa.DataType]) -> pa.DataType:
    known = [one for one in types if not pa.types.is_null(one)]
    if not known:
        return pa.null()
    kinds = {logical_name(one) for one in known}
    if kinds == {"integer", "float"}:
        return pa.float64()
    if kinds == {"decimal"}:
        return max(known, key=lambda one: int(one.scale))
    return known[0]


def _cast(
    events: pa.RecordBatch, wanted: pa.Schema, names: Sequence[str], where: str
) -> tuple[pa.RecordBatch, dict[int, tuple[str, str]]]:
    """`events` with the columns `names` in the types of `wanted`, and the rows that have a value which cannot be so."""
    columns = dict(zip(events.schema.names, events.columns, strict=True))
    failed: dict[int, tuple[str, str]] = {}
    for name in names:
        kind, column = wanted.field(name).type, columns[name]
        if column.type.equals(kind):
            continue
        if pa.types.is_null(column.type) or pa.types.is_null(kind):
            columns[name] = column if pa.types.is_null(kind) else pa.nulls(len(column), kind)
            continue
        schema = pa.schema([(name, kind)])
        try:
            table, bad = Caster(own_connection, "UTC", where).cast(pa.table({name: column}), schema)
            columns[name] = table.column(0).combine_chunks()
            reasons = {one.index: one.reason for one in bad}
        except SchemaError:
            columns[name] = pa.nulls(len(column), kind)
            strange = f"a {logical_name(column.type)} cannot become {logical_name(kind)}"
            reasons = dict.fromkeys(np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist(), strange)
        for at, reason in reasons.items():
            failed.setdefault(at, (name, reason))
    return pa.RecordBatch.from_pydict(columns), failed


def _left(events: pa.RecordBatch, failed: Collection[int]) -> pa.RecordBatch:
    if not failed:
        return events
    good = np.ones(events.num_rows, dtype=bool)
    good[list(failed)] = False
    return events.filter(pa.array(good))
