"""The one cast layer: the columns of any input become columns in canonical types, value by value and strictly.

    text ─► text_cast ───┐
                         ├─► canonical columns + the bad values
    types ─► typed_cast ─┘

A cast never loses anything in silence: a value that has no exact counterpart becomes null in the output and is
reported as bad with the reason, and the caller makes a reject of its row. What each type accepts as text (surrounding
white space is ignored, and blank text is null, except for string and bytes):

    integer    -?digits without superfluous leading zeros, or the same value as 313.0 or 3.13e2; 64 bits
    float      decimal or exponent form, nan, inf, infinity; not hex, not 1_000, not 1e400
    bool       true t yes y 1 / false f no n 0, in any case
    timestamp  ISO 8601: date, or date and time to the microsecond, with Z or an offset; else in the reader's zone
    date       2022-04-09
    decimal    digits that fit 38 and the column's scale
    bytes      the text's UTF-8

Typed columns (Parquet, Arrow) follow the same rule by value: 313.0 is an integer, 305.5 is not. Two types that have no
sensible cast at all (a list to integer, a bool to date) raise `SchemaError` instead.

Two things DuckDB defines, for it has what Arrow lacks: the instants of local times in a named zone (its own table of
zones, the same on every machine), and the JSON text of nested values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import InputError, SchemaError
from headrace.reading.sql import Connect, evaluate, literal
from headrace.reading.types.arrow_types import is_text, logical_name
from headrace.reading.types.text_cast import from_text
from headrace.reading.types.typed_cast import from_typed
from headrace.reading.types.value_text import as_text, reason
from headrace.reading.types.values import only

__all__ = ["BadValue", "Caster", "plain"]

_MOST_DIGITS = 38
_LAST_LOCAL = 9_223_371_900_000_000_000  # microseconds: the year 294246


@dataclass(frozen=True, slots=True)
class BadValue:
    """A value that its column's type refused: the row's index in the table, the column, and why."""

    index: int
    column: str
    reason: str


class Caster:
    """Casts tables to canonical schemas; `timezone` is the zone of times without one.

    `connect` opens a DuckDB connection, for the few columns that need it.
    """

    def __init__(self, connect: Connect, timezone: str, source: str) -> None:
        self._connect = connect
        self._source = source
        self._in_zone = None if timezone == "UTC" else partial(_instants, connect, timezone)

    def cast(self, table: pa.Table, schema: pa.Schema) -> tuple[pa.Table, list[BadValue]]:
        """`table` with the columns of `schema`, in its types, and the first bad value of every row that has one.

        Columns that `table` lacks are null; those that `schema` lacks are dropped. Raises `SchemaError` for a column
        whose type cannot be cast at all.
        """
        present = [field for field in schema if field.name in table.column_names]
        found = {field.name: plain(table.column(field.name)) for field in present}
        cast = {field.name: self.column(found[field.name], field.type, field.name) for field in present}
        columns = [cast[field.name] if field.name in cast else pa.nulls(table.num_rows, field.type) for field in schema]
        return pa.Table.from_arrays(columns, schema=schema), _bad_values(schema, found, cast)

    def column(self, column: pa.ChunkedArray, wanted: pa.DataType, name: str) -> pa.ChunkedArray:
        """A `plain` column as `wanted`, null where a value is bad. Raises `SchemaError` naming the column `name`."""
        if column.type.equals(wanted):
            return column
        if is_text(column.type):
            return from_text(column, wanted, self._in_zone)
        cast = from_typed(column, wanted, self._in_zone)
        if cast is None and pa.types.is_string(wanted):
            return self._described(column)
        if cast is None:
            raise SchemaError(
                f"column {name!r} has the type {column.type}, which cannot become {logical_name(wanted)}",
                where=self._source,
                hint=f"convert it in --select, or load it as text with --type {name}=string",
            )
        return cast

    def _described(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Nested values as JSON, and what else has no type of Headrace's as text: DuckDB defines both."""
        import duckdb  # noqa: PLC0415 - as in `headrace.reading.sql`

        text = "to_json(c0)" if pa.types.is_nested(column.type) else "c0"
        try:
            return evaluate(self._connect(), column, [f"CAST({text} AS VARCHAR)"])[0]
        except duckdb.InvalidInputException as error:  # such as a map that has a key twice
            raise InputError(
                f"a column's values cannot be read ({str(error).splitlines()[0]})",
                where=self._source,
                hint="give the column in another form, such as JSON text, or leave it out",
            ) from error


def _instants(connect: Connect, timezone: str, micros: pa.ChunkedArray) -> pa.ChunkedArray:
    """The microseconds of local times as those of their instants, by DuckDB's table of time zones.

    Where clocks are set back and a time comes twice, it is the earlier; one that they skip is null.
    """
    naive, zone = "make_timestamp(c0)", literal(timezone)
    later = f"timezone({zone}, {naive})"
    # clocks are set back by an hour, at Lord Howe by half an hour
    candidates = [f"{later} - INTERVAL {minutes} MINUTE" for minutes in (60, 30, 0)]
    tests = " ".join(f"WHEN timezone({zone}, {sql}) = {naive} THEN {sql}" for sql in candidates)
    # at the ends of DuckDB's calendar there is no room for an offset
    within = pc.and_(pc.less(micros, _LAST_LOCAL), pc.greater(micros, -_LAST_LOCAL))
    return evaluate(connect(), only(within, micros), [f"epoch_us(CASE {tests} END)"])[0]


_SIMPLER: list[tuple[Callable[[pa.DataType], bool], pa.DataType]] = [
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_date64, pa.timestamp("ms")),
    (pa.types.is_string_view, pa.large_string()),
    (pa.types.is_binary_view, pa.large_binary()),
]


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` without encodings, and without types that another stands for: views, half floats, long decimals."""
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        return plain(_looked_up(column))
    if types.is_run_end_encoded(kind):
        return plain(pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type))
    if types.is_null(kind):
        return column.cast(pa.string())
    if types.is_decimal(kind):
        return _plain_decimals(column)
    simpler = next((simpler for matches, simpler in _SIMPLER if matches(kind)), kind)
    return column if simpler.equals(kind) else column.cast(simpler)


def _plain_decimals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals of 128 bits, none of their digits left out in front of the point. Those that are longer become text."""
    kind = column.type
    digits = kind.precision - min(kind.scale, 0)
    fits = digits <= _MOST_DIGITS and not pa.types.is_decimal256(kind)
    return column.cast(pa.decimal128(digits, max(kind.scale, 0)) if fits else pa.string())


def _looked_up(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of indices as the values they stand for. Arrow looks up no views of text, which polars has."""
    kind = column.type.value_type
    kind = pa.large_string() if pa.types.is_string_view(kind) else kind
    return pa.chunked_array([chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks], kind)


def _bad_values(
    schema: pa.Schema, found: dict[str, pa.ChunkedArray], cast: dict[str, pa.ChunkedArray]
) -> list[BadValue]:
    bad: dict[int, BadValue] = {}
    for field in schema:
        if field.name not in cast or cast[field.name].null_count == found[field.name].null_count:
            continue
        before, logical = found[field.name], logical_name(field.type)
        lost = pc.and_(pc.is_valid(before), pc.is_null(cast[field.name]))
        if is_text(before.type):
            lost = pc.and_(lost, pc.not_equal(pc.utf8_trim_whitespace(before), ""))
        for index in np.flatnonzero(lost.to_numpy()).tolist():
            if index not in bad:
                bad[index] = BadValue(index, field.name, reason(as_text(before[index]) or "", logical))
    return [bad[index] for index in sorted(bad)]
