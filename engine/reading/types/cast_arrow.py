"""Casts by Arrow alone: of text whose every value is written plainly, of numbers and times into wider types.

The cast layer (`headrace.reading.types.cast`) accepts many forms of a value and costs accordingly. Most columns hold
one form: then one core of Arrow's is faster than two of DuckDB's, and there is no query to plan (29 against 36 ms for
131,072 rows of 13 columns, 1 against 7 for 2,000); and a load that needs DuckDB for nothing does not import it. An
answer is certain to be what the cast layer would give; ``None`` says that a value needs a closer look. A property test
holds the two together.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from headrace.partitioning.contract import LogicalType

__all__ = ["FALSE_NUMBER", "quick_cast", "quick_verdict"]

_UTC = pa.timestamp("us", tz="UTC")
_PLAIN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
# the first and the last microsecond of the years 1 to 9999
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
_YEAR_ONE = pa.scalar(_FIRST, pa.int64())
_DAY_ONE = pa.scalar(_FIRST // 86_400_000_000, pa.int32())
_QUICK: dict[LogicalType, pa.DataType] = {
    "integer": pa.int64(),
    "float": pa.float64(),
    "timestamp": _UTC,
    "date": pa.date32(),
}
_BLANKS = r"[ \t\r\n\f\v]*"
# what a text must look like to be of the type at all, however it is written
_POSSIBLE: dict[LogicalType, str] = {
    "bool": rf"(?i)^{_BLANKS}(true|false){_BLANKS}$",
    "integer": rf"^{_BLANKS}[+-]?[0-9]+{_BLANKS}$",
    "float": rf"^{_BLANKS}[+-]*((?i:nan|inf|infinity)|[0-9a-fA-FxX._]*([eE][+-]*[0-9_]*)?){_BLANKS}$",
    "date": rf"^{_BLANKS}-?[0-9]{{4,5}}-[0-9]{{2}}-[0-9]{{2}}{_BLANKS}$",
    "timestamp": rf"^{_BLANKS}-?[0-9]{{4,5}}-[0-9]{{2}}-[0-9]{{2}}",
}
# digits that name something: an account, a telephone; inference leaves them text
FALSE_NUMBER = r"^\s*([+-]?(0[0-9].*|[0-9]{16,})|\+[0-9]{7,})\s*$"


def quick_cast(column: pa.ChunkedArray, wanted: pa.DataType, timezone: str) -> pa.ChunkedArray | None:
    """`column` as `wanted`, or ``None`` where that takes the cast layer. `timezone` is that of times without a zone."""
    try:
        if not pa.types.is_string(column.type):
            return _widened(column, wanted, timezone)
        if pa.types.is_float64(wanted):
            return _floats(column)
        if pa.types.is_int64(wanted):
            return _integers(column)
        if wanted.equals(_UTC):
            return _times(column, timezone)
        if pa.types.is_date32(wanted):
            return _dates(column)
    except pa.ArrowInvalid:  # a value that Arrow cannot read
        pass
    return None


def quick_verdict(values: pa.ChunkedArray, kind: LogicalType, timezone: str) -> bool | None:
    """Whether all of `values`, texts that are not blank, are taken for `kind` by inference
    (`headrace.reading.types.inference`), or ``None`` where that takes a closer look.
    """
    wanted = _QUICK.get(kind)
    if wanted is not None and quick_cast(values, wanted, timezone) is not None:
        return kind != "float" or not pc.any(pc.match_substring_regex(values, FALSE_NUMBER)).as_py()
    if kind in _POSSIBLE and not _all(pc.match_substring_regex(values, _POSSIBLE[kind])):
        return False
    if kind == "bool" and _all(pc.match_substring_regex(values, "^(true|false|True|False|TRUE|FALSE)$")):
        return True
    return None


def _widened(column: pa.ChunkedArray, wanted: pa.DataType, timezone: str) -> pa.ChunkedArray | None:
    """Numbers in a type that holds every one of the narrower, and instants of years that every database holds."""
    types, found = pa.types, column.type
    if types.is_integer(found) and not types.is_uint64(found) and types.is_int64(wanted):
        return column.cast(wanted)
    if types.is_float32(found) and types.is_float64(wanted):
        return column.cast(wanted)
    if types.is_timestamp(found) and found.unit != "ns" and wanted.equals(_UTC):
        return _instants(column) if found.tz is not None or timezone == "UTC" else None
    return None


def _instants(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    micros = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    ends = pc.min_max(micros).as_py()
    if ends["min"] is not None and not _FIRST <= ends["min"] <= ends["max"] <= _LAST:
        return None
    return micros.cast(_UTC)


def _floats(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Decimal and exponent forms. A word (nan, inf), an overflow and an underflow are the cast layer's."""
    numbers = pc.cast(column, pa.float64())
    if not _all(pc.is_finite(numbers)):
        return None
    zeros = pc.equal(numbers, 0.0)
    if pc.any(zeros).as_py() and pc.any(pc.match_substring_regex(column.filter(zeros), "[1-9]")).as_py():
        return None
    return numbers


def _integers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Integers written as they are printed: no zero or plus in front, no minus zero, no hexadecimal digits."""
    numbers = pc.cast(column, pa.int64())
    return numbers if _all(pc.equal(pc.cast(numbers, pa.string()), column)) else None


def _times(column: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray | None:
    """ISO 8601 to the minute, second or microsecond, all with ``Z`` or, where times are UTC, all without."""
    zoned = _all(pc.ends_with(column, "Z"))
    if not zoned and timezone != "UTC":
        return None
    if not _all(pc.match_substring_regex(column, _PLAIN + ("Z$" if zoned else "$"))):
        return None
    times = pc.cast(column, _UTC) if zoned else pc.assume_timezone(pc.cast(column, pa.timestamp("us")), "UTC")
    return times if _all(pc.greater_equal(times.cast(pa.int64()), _YEAR_ONE)) else None


def _dates(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Days of the years 1 to 9999, as in 2022-04-09."""
    if not _all(pc.match_substring_regex(column, "^[0-9]{4}-[0-9]{2}-[0-9]{2}$")):
        return None
    days = pc.cast(column, pa.date32())
    return days if _all(pc.greater_equal(days.cast(pa.int32()), _DAY_ONE)) else None


def _all(mask: pa.ChunkedArray) -> bool:
    """Whether it holds for every value that is there."""
    return pc.all(mask, skip_nulls=True, min_count=0).as_py() is True
