"""Typed columns (Parquet, Arrow, data frames) in canonical types: a value is kept exactly, or null.

The text of numbers, times and dates is part of event IDs where a column is text in the contract: it stays for ever as
DuckDB wrote it when the first tables were filled, and tests freeze it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.partitioning.contract import LogicalType
from headrace.reading.types.arrow_types import is_bytes, logical_name
from headrace.reading.types.text_cast import InZone
from headrace.reading.types.values import by_value, exact_decimal, only
from headrace.storage.moments import date_text

__all__ = ["from_typed"]

_UTC = pa.timestamp("us", tz="UTC")
_LIMIT = 2**63
_HOUR, _DAY = 3_600_000_000, 86_400_000_000
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
# days and microseconds that stand for infinity, as DuckDB has them
_ENDLESS_DAYS, _ENDLESS = 2**31 - 1, _LIMIT - 1
# the days and microseconds of the years 1 to 9999
_FOUR_DIGIT_DAYS = (-719_162, 2_932_896)
_FOUR_DIGIT_TIMES = (-719_162 * _DAY, 2_932_897 * _DAY - 1)
# the size of floats that Arrow writes without an exponent, as DuckDB does
_LEAST_PLAIN, _MOST_PLAIN = 1e-4, 1e9

pa.ChunkedArray = pa.ChunkedArray


def from_typed(column: pa.ChunkedArray, wanted: pa.DataType, in_zone: InZone | None) -> pa.ChunkedArray | None:
    """A column as the canonical type `wanted`; ``None`` if the two types have no sensible cast.

    `in_zone` gives the instants of local times, and is ``None`` where they are UTC.
    """
    kind, to = _kind(column.type), logical_name(wanted)
    cast = _double_to_text if pa.types.is_float64(column.type) and to == "string" else _CASTS.get((kind, to))
    return None if cast is None else cast(column, wanted, in_zone)


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    tests = (
        ("integer", types.is_integer(kind)),
        ("float", types.is_floating(kind)),
        ("decimal", types.is_decimal(kind)),
        ("bool", types.is_boolean(kind)),
        ("timestamp", types.is_timestamp(kind)),
        ("date", types.is_date(kind)),
        ("duration", types.is_duration(kind)),
        ("time", types.is_time(kind)),
        ("bytes", is_bytes(kind)),
    )
    return next((name for name, matches in tests if matches), "other")


def _as_it_is(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    return column.cast(wanted)


def _integer_to_integer(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    if pa.types.is_uint64(column.type):
        column = only(pc.less(column, pa.scalar(_LIMIT, pa.uint64())), column)
    return column.cast(wanted)


def _integer_to_float(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    numbers = pc.cast(column, wanted, safe=False)
    within = pc.less(numbers, 2.0 ** (64 if pa.types.is_uint64(column.type) else 63))
    back = pc.cast(only(within, numbers), column.type, safe=False)
    return only(pc.equal(back, column), numbers)


def _integer_to_bool(column: pa.ChunkedArray, _wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    one = pc.equal(column, pa.scalar(1, column.type))
    return only(pc.or_(one, pc.equal(column, pa.scalar(0, column.type))), one)


def _integer_to_decimal(column: pa.ChunkedArray, wanted: pa.DataType, in_zone: InZone | None) -> pa.ChunkedArray:
    return _decimal_to_decimal(column.cast(pa.decimal128(20, 0)), wanted, in_zone)


def _float_to_integer(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    within = pc.and_(pc.greater_equal(column, -(2.0**63)), pc.less(column, 2.0**63))
    return pc.cast(only(pc.and_(within, pc.equal(pc.trunc(column), column)), column), wanted, safe=False)


def _float_to_decimal(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    """The nearest decimal, if it is the float when it is read again."""
    numbers = column.cast(pa.float64())
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = numbers.fill_null(np.nan).to_numpy() * float(f"1e{wanted.scale}")
        whole = np.trunc(scaled)
        whole += np.sign(scaled) * (np.abs(scaled - whole) >= 0.5)  # noqa: PLR2004 - a half goes away from zero
        units = pa.array(whole, mask=~(np.abs(whole) < float(f"1e{wanted.precision}")))
    decimals = pa.chunked_array([units.cast(pa.decimal128(wanted.precision, 0)).view(wanted)])
    near = pc.fill_null(pc.equal(_decimal_to_float(decimals, pa.float64(), None), numbers), False)
    # the product of large ones is off at times, where their own digits fit
    others = only(pc.and_(pc.is_finite(numbers), pc.invert(near)), numbers)
    exact = by_value(others, lambda value: exact_decimal(Decimal(repr(value)), wanted.scale), wanted)
    return pc.coalesce(only(near, decimals), exact)


def _double_to_text(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    """Shortest digits, as Python has them; but a NaN keeps its sign."""
    size = pc.abs(column)
    plain = pc.or_(_between(size, _LEAST_PLAIN, _MOST_PLAIN), pc.equal(size, 0.0))
    text = pc.cast(only(plain, column), wanted)
    text = pc.if_else(pc.equal(pc.trunc(column), column), pc.binary_join_element_wise(text, ".0", ""), text)
    if pc.all(plain, min_count=0).as_py():
        return text
    words = pa.chunked_array([np.where(np.signbit(column.fill_null(0).to_numpy()), "-nan", "nan")]).cast(wanted)
    others = only(pc.and_not(pc.invert(plain), pc.is_nan(column)), column)
    return pc.coalesce(text, by_value(others, repr, wanted), only(pc.is_nan(column), words))


def _decimal_to_integer(column: pa.ChunkedArray, wanted: pa.DataType, in_zone: InZone | None) -> pa.ChunkedArray:
    whole = _decimal_to_decimal(column, pa.decimal128(38, 0), in_zone)
    limit = Decimal(_LIMIT)
    return only(pc.and_(pc.greater_equal(whole, -limit), pc.less(whole, limit)), whole).cast(wanted)


def _decimal_to_float(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    return pc.cast(pc.cast(column, pa.string()), wanted)  # by text: Arrow's own cast is off by a digit at times


def _decimal_to_decimal(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    try:  # with room for all digits: Arrow does not see it when more zeros behind the point overflow 128 bits
        return column.cast(pa.decimal256(2 * wanted.precision, wanted.scale)).cast(wanted)
    except pa.ArrowInvalid:
        return by_value(column, lambda value: exact_decimal(value, wanted.scale), wanted)


def _decimal_to_text(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    precision, scale = column.type.precision, column.type.scale
    units = pa.chunked_array(
        [chunk.view(pa.decimal128(precision, 0)) for chunk in column.chunks], pa.decimal128(precision, 0)
    )
    digits = pc.cast(units, wanted)
    if not scale:
        return digits
    # a type that has no digits before the point is written without a zero there
    padded = pc.utf8_lpad(pc.utf8_ltrim(digits, characters="-"), scale + (precision > scale), "0")
    sign = pc.if_else(pc.starts_with(digits, "-"), "-", "")
    whole, fraction = pc.utf8_slice_codeunits(padded, 0, -scale), pc.utf8_slice_codeunits(padded, -scale)
    return pc.binary_join_element_wise(sign, whole, ".", fraction, "")


def _micros(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Timestamps or durations in microseconds, null where there are nanoseconds, or more than 64 bits."""
    counts, unit = column.cast(pa.int64()), column.type.unit
    if unit == "ns":
        micros = pc.divide(counts, 1_000)
        return only(pc.equal(pc.multiply(micros, 1_000), counts), micros)
    most = (_LIMIT - 1) // _UNITS[unit]
    within = pc.and_(pc.less_equal(counts, most), pc.greater_equal(counts, -most))
    return counts if unit == "us" else pc.multiply(only(within, counts), _UNITS[unit])


def _moments(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same without what stands for infinity."""
    micros = _micros(column)
    return only(pc.and_(pc.not_equal(micros, _ENDLESS), pc.not_equal(micros, -_ENDLESS)), micros)


def _timestamp_to_timestamp(column: pa.ChunkedArray, wanted: pa.DataType, in_zone: InZone | None) -> pa.ChunkedArray:
    micros = _moments(column)
    return (micros if in_zone is None or column.type.tz is not None else in_zone(micros)).cast(wanted)


def _timestamp_to_date(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    micros = _moments(column)
    days = pc.divide(micros, _DAY)
    return only(pc.equal(pc.multiply(days, _DAY), micros), days).cast(pa.int32()).cast(wanted)


def _timestamp_to_text(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    micros = _moments(column)
    plain = _between(micros, *_FOUR_DIGIT_TIMES)
    text = pc.replace_substring(pc.cast(only(plain, micros).cast(pa.timestamp("us")), wanted), " ", "T")
    text = pc.coalesce(text, by_value(only(pc.invert(plain), micros), _far_moment, wanted))
    return text if column.type.tz is None else pc.binary_join_element_wise(text, "Z", "")


def _far_moment(us: int) -> str:
    days, rest = divmod(us, _DAY)
    seconds, micros = divmod(rest, 1_000_000)
    day = re.sub("^-0*", "-", date_text(days))
    return f"{day}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micros:06}"


def _date_to_timestamp(column: pa.ChunkedArray, wanted: pa.DataType, in_zone: InZone | None) -> pa.ChunkedArray:
    days = column.cast(pa.int32()).cast(pa.int64())
    micros = pc.multiply(only(pc.less_equal(pc.abs(days), (_LIMIT - 1) // _DAY), days), _DAY)
    micros = micros if in_zone is None else in_zone(micros)
    endless = pc.equal(pc.abs(days), _ENDLESS_DAYS)
    return pc.if_else(endless, pc.multiply(pc.sign(days), _ENDLESS), micros).cast(wanted)


def _date_to_text(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    days = column.cast(pa.int32())
    plain = _between(days, *_FOUR_DIGIT_DAYS)
    text = pc.cast(only(plain, column), wanted)
    return pc.coalesce(text, by_value(only(pc.invert(plain), days), _far_date, wanted))


def _far_date(days: int) -> str:
    if abs(days) == _ENDLESS_DAYS:
        return "infinity" if days > 0 else "-infinity"
    year, month, day = date_text(days).rsplit("-", 2)
    return f"{year}-{month}-{day}" if int(year) > 0 else f"{1 - int(year):04}-{month}-{day} (BC)"


def _duration_to_text(column: pa.ChunkedArray, wanted: pa.DataType, in_zone: InZone | None) -> pa.ChunkedArray:
    micros = _micros(column)
    size = pc.abs(only(pc.greater(micros, -_LIMIT), micros))
    hours = pc.divide(size, _HOUR)
    rest = pc.subtract(size, pc.multiply(hours, _HOUR)).cast(pa.time64("us"))
    clock = pc.utf8_slice_codeunits(_time_to_text(rest, wanted, in_zone), len("00"))
    sign = pc.if_else(pc.less(micros, 0), "-", "")
    return pc.binary_join_element_wise(sign, pc.utf8_lpad(hours.cast(wanted), 2, "0"), clock, "")


def _time_to_text(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    text = pc.cast(column, wanted)
    return text if column.type.unit == "s" else pc.replace_substring_regex(text, r"\.?0+$", "")


def _bytes_to_text(column: pa.ChunkedArray, wanted: pa.DataType, _in_zone: InZone | None) -> pa.ChunkedArray:
    try:
        return column.cast(pa.binary()).cast(wanted)
    except pa.ArrowInvalid:
        return by_value(column, _decoded, wanted)


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _between(column: pa.ChunkedArray, least: float, most: float) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(column, least), pc.less_equal(column, most))


_CASTS: dict[tuple[str, LogicalType], Callable[[pa.ChunkedArray, pa.DataType, InZone | None], pa.ChunkedArray]] = {
    ("integer", "integer"): _integer_to_integer,
    ("integer", "float"): _integer_to_float,
    ("integer", "bool"): _integer_to_bool,
    ("integer", "decimal"): _integer_to_decimal,
    ("integer", "string"): _as_it_is,
    ("float", "integer"): _float_to_integer,
    ("float", "float"): _as_it_is,
    ("float", "decimal"): _float_to_decimal,
    ("decimal", "integer"): _decimal_to_integer,
    ("decimal", "float"): _decimal_to_float,
    ("decimal", "decimal"): _decimal_to_decimal,
    ("decimal", "string"): _decimal_to_text,
    ("bool", "bool"): _as_it_is,
    ("bool", "string"): _as_it_is,
    ("timestamp", "timestamp"): _timestamp_to_timestamp,
    ("timestamp", "date"): _timestamp_to_date,
    ("timestamp", "string"): _timestamp_to_text,
    ("date", "date"): _as_it_is,
    ("date", "timestamp"): _date_to_timestamp,
    ("date", "string"): _date_to_text,
    ("duration", "string"): _duration_to_text,
    ("time", "string"): _time_to_text,
    ("bytes", "bytes"): _as_it_is,
    ("bytes", "string"): _bytes_to_text,
}
