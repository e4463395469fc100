"""Values as a table's column reads them: binary COPY takes exactly the width of the column, and no other."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import SchemaError
from headrace.storage.sql.schema import kind

__all__ = ["narrowed"]

# kinds whose every value another kind can hold; that each one does is looked at
_HELD_BY = {"integer": ("float", "decimal")}


def narrowed(column: pa.Array, wanted: pa.DataType | None, name: str, table: str) -> pa.Array:
    """`column` as `wanted`. Raises `SchemaError` where a value does not fit, or the table's type has become another."""
    if wanted is not None and column.type.equals(wanted):
        return column
    if wanted is None or not _may_become(column.type, wanted):
        raise SchemaError(
            f"rows were read as {kind(_plain(column.type))}, and the column is {wanted or 'of no known type'} now",
            where=f"{table}, column {name}",
            hint="the column's type was changed meanwhile: run the same command again, which uses the new type",
        )
    try:
        # an integer must fit exactly; a float32 column is the user's own choice to round, but not to infinity
        rounds = pa.types.is_floating(wanted) and pa.types.is_floating(column.type)
        narrowed = column.cast(wanted, safe=not rounds)
    except pa.ArrowInvalid as error:
        raise _misfit(str(error), name, table) from None
    if pa.types.is_float32(wanted):
        lost = pc.any(pc.and_(pc.is_inf(narrowed), pc.is_finite(column)))
        if lost.as_py():
            raise _misfit("a float is too large for real", name, table)
    return narrowed


def _may_become(held: pa.DataType, wanted: pa.DataType) -> bool:
    held = _plain(held)
    if pa.types.is_null(held):
        return True
    if pa.types.is_fixed_size_binary(held) or pa.types.is_fixed_size_binary(wanted):
        return bool(held.equals(wanted))
    return kind(held) == kind(wanted) or kind(wanted) in _HELD_BY.get(kind(held), ())


def _plain(held: pa.DataType) -> pa.DataType:
    return held.value_type if pa.types.is_dictionary(held) else held


def _misfit(what: str, column: str, table: str) -> SchemaError:
    return SchemaError(
        f"a value does not fit the table's type: {what}",
        where=f"{table}, column {column}",
        hint="widen the column in the database, for example to bigint or double precision",
    )
