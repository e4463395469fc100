"""The one cast layer: the columns of any input become columns in canonical types, value by value and strictly.

    table of text or typed columns ──► one SELECT of DuckDB expressions ──► canonical columns + the bad values

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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import ConfigurationError, InputError, SchemaError
from headrace.partitioning.contract import LogicalType, arrow_type
from headrace.reading.types.cast_arrow import quick_cast
from headrace.reading.types.cast_sql import Cast, is_text, literal, logical_name
from headrace.reading.types.value_text import as_text, reason

if TYPE_CHECKING:
    import duckdb

__all__ = ["BadValue", "Caster", "canonical_type", "connect"]

_MEMORY_LIMIT = "1GB"
_MOST_DIGITS = 38


@dataclass(frozen=True, slots=True)
class BadValue:
    """A value that its column's type refused: the row's index in the table, the column, and why."""

    index: int
    column: str
    reason: str


def connect(threads: int, timezone: str) -> duckdb.DuckDBPyConnection:
    """A private in-memory DuckDB that downloads nothing and sees no Python variables.

    Raises `ConfigurationError` if `timezone` is not a known IANA name.
    """
    import duckdb  # noqa: PLC0415 - 45 MiB and 40 ms that loads of plain columns do without

    connection = duckdb.connect(
        config={
            "threads": str(max(1, threads)),
            "memory_limit": _MEMORY_LIMIT,
            "autoinstall_known_extensions": "false",
            "python_enable_replacements": "false",
        }
    )
    try:
        connection.execute(f"SET TimeZone = {literal(timezone)}")
    except duckdb.Error:
        connection.close()
        raise ConfigurationError(f"the time zone {timezone!r} is not known", hint="for example Europe/Berlin") from None
    return connection


def canonical_type(name: LogicalType, scale: int = 9) -> pa.DataType:
    """The Arrow type that carries the logical type; `scale` matters to decimal alone."""
    return pa.decimal128(38, scale) if name == "decimal" else arrow_type(name)


class Caster:
    """Casts tables to canonical schemas on one DuckDB connection; `timezone` is the zone of times without one.

    `connection` may also be a function that opens it at first use: plain columns are cast without it.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection | Callable[[], duckdb.DuckDBPyConnection],
        timezone: str,
        source: str,
    ) -> None:
        self._given = connection
        self.timezone = timezone
        self._source = source

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return self._given() if callable(self._given) else self._given

    def cast(self, table: pa.Table, schema: pa.Schema) -> tuple[pa.Table, list[BadValue]]:
        """`table` with the columns of `schema`, in its types, and the first bad value of every row that has one.

        Columns that `table` lacks are null; those that `schema` lacks are dropped. Raises `SchemaError` for a column
        whose type cannot be cast at all.
        """
        present = [field for field in schema if field.name in table.column_names]
        found = {field.name: plain(table.column(field.name)) for field in present}
        # a column that has its type already, or is written plainly, goes round DuckDB
        tried = {field.name: self._quickly(found[field.name], field.type) for field in present}
        quick = {name: column for name, column in tried.items() if column is not None}
        strange = [field for field in present if field.name not in quick]
        expressions = [
            self.expression(f"c{number}", found[field.name].type, field.type, field.name)
            for number, field in enumerate(strange)
        ]
        results = self._by_duckdb([found[field.name] for field in strange], expressions)
        cast = quick | {field.name: result for field, result in zip(strange, results, strict=True)}
        columns = [
            cast[field.name].cast(field.type) if field.name in cast else pa.nulls(table.num_rows, field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema), _bad_values(schema, found, cast)

    def _quickly(self, column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray | None:
        return column if column.type.equals(wanted) else quick_cast(column, wanted, self.timezone)

    def _by_duckdb(self, columns: list[pa.ChunkedArray], expressions: list[str]) -> list[pa.ChunkedArray]:
        if not expressions:
            return []
        import duckdb  # noqa: PLC0415 - as in `connect`

        try:
            return self.evaluate(columns, expressions)
        except duckdb.InvalidInputException as error:  # such as a map that has a key twice
            raise InputError(
                f"a column's values cannot be read ({str(error).splitlines()[0]})",
                where=self._source,
                hint="give the column in another form, such as JSON text, or leave it out",
            ) from error

    def expression(self, column: str, found: pa.DataType, wanted: pa.DataType, name: str) -> str:
        """The SQL that casts `column` of Arrow type `found` to `wanted`. Raises `SchemaError` naming `name`."""
        sql = Cast(column, found, wanted, self.timezone).sql
        if sql is None:
            raise SchemaError(
                f"column {name!r} has the type {found}, which cannot become {logical_name(wanted)}",
                where=self._source,
                hint=f"convert it in --select, or load it as text with --type {name}=string",
            )
        return sql

    def evaluate(self, columns: list[pa.ChunkedArray], expressions: list[str]) -> list[pa.ChunkedArray]:
        """`expressions` over `columns`, which they call ``c0``, ``c1``, …; one result column for each, in row order."""
        if not expressions:
            return []
        # positions, not names: DuckDB's names do not tell upper from lower case
        batch = pa.table(
            [_physical(column) for column in columns], names=[f"c{number}" for number in range(len(columns))]
        )
        self._connection.register("batch", batch)
        try:
            sql = ", ".join(f"{sql} AS r{number}" for number, sql in enumerate(expressions))
            result: pa.Table = self._connection.sql(f"SELECT {sql} FROM batch").to_arrow_table()  # noqa: S608 built here, from quoted parts
        finally:
            self._connection.unregister("batch")
        return list(result.columns)


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` without the encodings and types that DuckDB does not take: dictionaries, long decimals, half floats."""
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        return plain(_looked_up(column))
    if types.is_run_end_encoded(kind):
        return plain(pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type))
    if types.is_null(kind):
        return column.cast(pa.string())
    if types.is_decimal(kind):
        return _plain_decimals(column)
    simpler = pa.float32() if types.is_float16(kind) else pa.timestamp("ms") if types.is_date64(kind) else kind
    return column if simpler.equals(kind) else column.cast(simpler)


def _plain_decimals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals as DuckDB has them: 38 digits at most, and none left out in front of the point. Others become text."""
    kind = column.type
    if kind.scale < 0 and kind.precision - kind.scale <= _MOST_DIGITS:
        return column.cast(pa.decimal128(kind.precision - kind.scale, 0))
    return column.cast(pa.string()) if kind.scale < 0 or pa.types.is_decimal256(kind) else column


def _looked_up(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of indices as the values they stand for. Arrow looks up no views of text, which polars has."""
    kind = column.type.value_type
    kind = pa.large_string() if pa.types.is_string_view(kind) else kind
    return pa.chunked_array([chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks], kind)


def _physical(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps and durations as their integers: DuckDB has no nanoseconds in them, and would round those away."""
    return (
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) or pa.types.is_duration(column.type) else column
    )


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
