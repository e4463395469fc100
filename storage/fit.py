"""Whether a table that exists fits: the columns that events need, their types, and the unique key."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from headrace.errors import SchemaError
from headrace.storage.base import EVENT_ID, RESERVED_COLUMNS
from headrace.storage.schema import kind

__all__ = ["missing", "require_fit", "require_type"]


def missing(table: str, schema: pa.Schema, present: pa.Schema | None) -> list[pa.Field]:
    """The fields of `schema` that the table lacks. Raises `SchemaError` where a type differs."""
    held = {} if present is None else {field.name: field.type for field in present}
    for field in schema:
        if field.name in held and kind(held[field.name]) != kind(field.type):
            raise SchemaError(
                f"the input has {kind(field.type)}, the table holds {kind(held[field.name])}",
                where=f"{table}, column {field.name}",
                hint=f"convert it: --type {field.name}={kind(held[field.name])} or --select; or name another --table",
            )
    return [field for field in schema if field.name not in held]


def require_fit(table: str, names: Sequence[str], unique: Sequence[Sequence[str]] | None, cure: str) -> None:
    """Raise `SchemaError` unless the table has the reserved columns and a unique key on ``event_id`` alone.

    With `unique` ``None`` it may do without the key.
    """
    lacking = [name for name in RESERVED_COLUMNS if name not in names]
    if lacking:
        raise SchemaError(f"the table exists, but has no column {', '.join(lacking)}", where=table, hint=cure)
    if unique is not None and [EVENT_ID] not in [list(columns) for columns in unique]:
        raise SchemaError(
            "the table has no unique key on event_id, the authority on duplicates", where=table, hint=cure
        )


def require_type(table: str, name: str, arrow: pa.DataType | None, found: object) -> pa.DataType:
    """`arrow`, or `SchemaError` for a column whose type `found` has no canonical counterpart."""
    if arrow is None:
        raise SchemaError(
            f"Headrace cannot write a column of type {found}",
            where=f"{table}, column {name}",
            hint="change the column's type, or load into another table",
        )
    return arrow
