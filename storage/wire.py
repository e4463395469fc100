"""How wide a column travels to PostgreSQL: binary COPY takes exactly the width of the table's column, and no other."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from headrace.errors import SchemaError
from headrace.storage.schema import arrow_of_postgres

__all__ = ["narrowed", "wire_type"]


def wire_type(found: Any) -> pa.DataType | None:
    """The Arrow type whose binary form is exactly what a column of type `found` reads."""
    exact: list[tuple[type[Any], pa.DataType]] = [
        (sa.SmallInteger, pa.int16()),
        (sa.BigInteger, pa.int64()),
        (sa.Integer, pa.int32()),
        (sa.REAL, pa.float32()),
        (sa.Uuid, pa.binary(16)),
    ]
    return next((arrow for base, arrow in exact if isinstance(found, base)), arrow_of_postgres(found))


def narrowed(column: pa.Array, wanted: pa.DataType, name: str, table: str) -> pa.Array:
    """`column` as `wanted`. Raises `SchemaError` where a value does not fit."""
    if column.type.equals(wanted):
        return column
    try:
        # an integer must fit exactly; a float32 column is the user's own choice to round, but not to infinity
        narrowed = column.cast(wanted, safe=not pa.types.is_floating(wanted))
    except pa.ArrowInvalid as error:
        raise _misfit(str(error), name, table) from None
    if pa.types.is_float32(wanted):
        lost = pc.any(pc.and_(pc.is_inf(narrowed), pc.is_finite(column)))
        if lost.as_py():
            raise _misfit("a float is too large for real", name, table)
    return narrowed


def _misfit(what: str, column: str, table: str) -> SchemaError:
    return SchemaError(
        f"a value does not fit the table's type: {what}",
        where=f"{table}, column {column}",
        hint="widen the column in the database, for example to bigint or double precision",
    )
