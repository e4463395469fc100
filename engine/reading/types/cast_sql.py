"""The SQL that casts one column strictly, from the input's type to the schema's type.

Each function here gives a DuckDB expression whose value is exact or null, never rounded, truncated or guessed; or
``None`` where the two types have no sensible cast at all. DuckDB's own casts are lax (``'305.41'::BIGINT`` is 305,
``'0x1A'`` is 26, a TIMESTAMP forgets its offset), so they run only on text whose shape was checked, or are checked
after. The common shape of each type comes first: regular expressions cost as much as the reading itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from headrace.partitioning.contract import LogicalType

__all__ = ["Cast", "identifier", "is_bytes", "is_text", "literal", "logical_name"]

_BLANK = " \t\r\n\f\v"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
# as Headrace writes the days of years that have not four digits, in ISO 8601: those before the year 0 with a minus
_FAR_DAY = r"(-[0-9]{4}|-?[0-9]{5})-[0-9]{2}-[0-9]{2}"
_TIME = r"[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6}0*)?)?"
_ZONE = r" ?(Z|z|UTC|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)"
# regular expressions, not IN lists: DuckDB makes a join of a long list, and evaluates its side of it for every row
_SPECIAL = "'[+-]?(nan|inf|infinity)'"
_TRUE, _FALSE = "'true|t|yes|y|1'", "'false|f|no|n|0'"
_MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def is_text(kind: pa.DataType) -> bool:
    """Whether the Arrow type is one of the string types."""
    types = pa.types
    return any((types.is_string(kind), types.is_large_string(kind), types.is_string_view(kind)))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether the Arrow type is one of the binary types."""
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def logical_name(kind: pa.DataType) -> LogicalType:
    """The logical type that a column of Arrow type `kind` becomes; what has no counterpart becomes string."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return logical_name(kind.value_type)
    tests: tuple[tuple[LogicalType, bool], ...] = (
        ("bool", types.is_boolean(kind)),
        ("decimal", types.is_uint64(kind) or types.is_decimal(kind)),
        ("integer", types.is_integer(kind)),
        ("float", types.is_floating(kind)),
        ("timestamp", types.is_timestamp(kind)),
        ("date", types.is_date(kind)),
        ("bytes", is_bytes(kind)),
    )
    return next((name for name, matches in tests if matches), "string")


@dataclass(frozen=True, slots=True)
class Cast:
    """One column to cast: its name in SQL, the Arrow type found, the canonical one wanted, the zone of local times."""

    column: str
    found: pa.DataType
    wanted: pa.DataType
    timezone: str

    @property
    def sql(self) -> str | None:
        """The expression, or ``None`` if the two types have no sensible cast."""
        return _FROM[_kind(self.found)](self)

    @property
    def to(self) -> LogicalType:
        """The logical type wanted."""
        return logical_name(self.wanted)

    @property
    def decimal(self) -> str:
        """The SQL type of the decimal wanted."""
        return f"DECIMAL(38, {self.wanted.scale})"

    def instant(self, naive: str) -> str:
        """A time without a zone as the instant's TIMESTAMP in UTC.

        Where clocks are set back and a time comes twice, it is the earlier; one that they skip is null.
        """
        if self.timezone == "UTC":
            return naive
        zone = literal(self.timezone)
        later = f"timezone({zone}, {naive})"
        # clocks are set back by an hour, at Lord Howe by half an hour
        candidates = [f"{later} - INTERVAL {minutes} MINUTE" for minutes in (60, 30, 0)]
        tests = " ".join(f"WHEN timezone({zone}, {sql}) = {naive} THEN {sql}" for sql in candidates)
        return f"timezone('UTC', CASE {tests} END)"


def _from_text(cast: Cast) -> str | None:
    c = cast.column
    if cast.to == "string":
        return c
    if cast.to == "bytes":
        return f"encode({c})"
    t = f"trim({c}, {literal(_BLANK)})"
    return _TEXT[cast.to](c, t, cast)


def _text_to_integer(c: str, t: str, _cast: Cast) -> str:
    # most integers read back as they were written; only the others pay for a regular expression
    plain = f"try_cast({c} AS BIGINT)"
    exact = f"try_cast({t} AS DECIMAL(38, 15))"
    return (
        f"CASE WHEN CAST({plain} AS VARCHAR) = {c} THEN {plain}"
        f" WHEN regexp_full_match({t}, '[+-]?(0|[1-9][0-9]*)(\\.0*)?')"
        f" THEN try_cast(regexp_extract({t}, '^[+-]?[0-9]+') AS BIGINT)"
        f" WHEN regexp_full_match({t}, '[+-]?(0|[1-9][0-9]{{0,14}})(\\.[0-9]{{0,14}})?[eE]\\+?[0-9]{{1,2}}')"
        f" AND {exact} = trunc({exact}) THEN try_cast({exact} AS BIGINT) END"
    )


def _text_to_float(c: str, t: str, _cast: Cast) -> str:
    number = f"try_cast({c} AS DOUBLE)"
    # DuckDB takes 1_000 for a thousand, and +-1 for a minus
    plain = f"NOT contains({c}, '_') AND NOT contains({c}, '+-')"
    return (
        f"CASE WHEN isfinite({number}) THEN CASE WHEN {plain} THEN {number} END"
        f" WHEN regexp_full_match(lower({t}), {_SPECIAL}) THEN {number} END"
    )


def _text_to_bool(_c: str, t: str, _cast: Cast) -> str:
    return (
        f"CASE WHEN regexp_full_match(lower({t}), {_TRUE}) THEN true"
        f" WHEN regexp_full_match(lower({t}), {_FALSE}) THEN false END"
    )


def _text_to_timestamp(c: str, t: str, cast: Cast) -> str:
    utc = "Z?" if cast.timezone == "UTC" else "Z"
    # a cast to TIMESTAMP ignores the offset, which is right for these and costs a third of TIMESTAMPTZ
    plain = literal(f"{_DAY}{_TIME}{utc}")
    zoned, local = literal(f"{_DAY}{_TIME}{_ZONE}"), literal(f"{_DAY}({_TIME})?")
    far = literal(rf"{_FAR_DAY}{_TIME}\+00:00")
    return (
        f"CASE WHEN regexp_full_match({c}, {plain}) THEN try_cast({c} AS TIMESTAMP)"
        f" WHEN regexp_full_match({t}, {zoned}) THEN timezone('UTC', try_cast(upper({t}) AS TIMESTAMPTZ))"
        f" WHEN regexp_full_match({t}, {local}) THEN {cast.instant(f'try_cast({t} AS TIMESTAMP)')}"
        f" WHEN regexp_full_match({t}, {far}) THEN try_cast({t} AS TIMESTAMP) END"
    )


def _text_to_date(c: str, t: str, _cast: Cast) -> str:
    day, far = literal(_DAY), literal(_FAR_DAY)
    return (
        f"CASE WHEN regexp_full_match({c}, {day}) THEN try_cast({c} AS DATE)"
        f" WHEN regexp_full_match({t}, {day}) THEN try_cast({t} AS DATE)"
        f" WHEN regexp_full_match({t}, {far}) THEN try_cast({t} AS DATE) END"
    )


def _text_to_decimal(_c: str, t: str, cast: Cast) -> str:
    fixed = literal(rf"[+-]?[0-9]*(\.[0-9]{{0,{cast.wanted.scale}}}0*)?")
    number = f"try_cast({t} AS {cast.decimal})"
    # up to 15 significant digits, two decimals are equal exactly when the nearest doubles are
    exponent = literal(r"[+-]?[0-9](\.[0-9]{0,14})?[eE][+-]?[0-9]{1,2}")
    return (
        f"CASE WHEN regexp_full_match({t}, {fixed}) THEN {number}"
        f" WHEN regexp_full_match({t}, {exponent}) AND CAST({number} AS DOUBLE) = try_cast({t} AS DOUBLE)"
        f" THEN {number} END"
    )


_TEXT: dict[LogicalType, Callable[[str, str, Cast], str]] = {
    "integer": _text_to_integer,
    "float": _text_to_float,
    "bool": _text_to_bool,
    "timestamp": _text_to_timestamp,
    "date": _text_to_date,
    "decimal": _text_to_decimal,
}


def _choose(cast: Cast, expressions: Mapping[LogicalType, str]) -> str | None:
    """The expression for the wanted type; any scalar can become string."""
    return expressions.get(cast.to, f"CAST({cast.column} AS VARCHAR)" if cast.to == "string" else None)


def _from_integer(cast: Cast) -> str | None:
    c = cast.column
    if cast.to == "decimal":
        return f"try_cast({c} AS {cast.decimal})"
    return _choose(
        cast,
        {
            "integer": f"try_cast({c} AS BIGINT)",
            "float": f"CASE WHEN CAST(CAST({c} AS DOUBLE) AS HUGEINT) = {c} THEN CAST({c} AS DOUBLE) END",
            "bool": f"CASE {c} WHEN 0 THEN false WHEN 1 THEN true END",
        },
    )


def _from_float(cast: Cast) -> str | None:
    c = cast.column
    whole = f"CASE WHEN trunc({c}) = {c} THEN try_cast({c} AS BIGINT) END"
    if cast.to == "decimal":
        number = f"try_cast({c} AS {cast.decimal})"
        return f"CASE WHEN CAST({number} AS DOUBLE) = CAST({c} AS DOUBLE) THEN {number} END"
    return _choose(cast, {"integer": whole, "float": f"CAST({c} AS DOUBLE)"})


def _from_decimal(cast: Cast) -> str | None:
    c = cast.column
    if cast.to == "decimal":
        number = f"try_cast({c} AS {cast.decimal})"
        back = f"try_cast({number} AS DECIMAL({cast.found.precision}, {cast.found.scale}))"
        return f"CASE WHEN {back} = {c} THEN {number} END"
    whole = f"CASE WHEN {c} = trunc({c}) THEN try_cast({c} AS BIGINT) END"
    return _choose(cast, {"integer": whole, "float": f"CAST({c} AS DOUBLE)"})


def _from_bool(cast: Cast) -> str | None:
    return _choose(cast, {"bool": cast.column})


def _microseconds(cast: Cast) -> str:
    """The integer of a timestamp or duration in microseconds, null where there are nanoseconds."""
    c, unit = cast.column, cast.found.unit
    if unit == "ns":
        return f"CASE WHEN {c} % 1000 = 0 THEN {c} // 1000 END"
    return f"try_cast(CAST({c} AS HUGEINT) * {_MICROS[unit]} AS BIGINT)"


def _from_duration(cast: Cast) -> str | None:
    return {"string": f"CAST(to_microseconds({_microseconds(cast)}) AS VARCHAR)"}.get(cast.to)


def _from_timestamp(cast: Cast) -> str | None:
    """`column` holds the timestamp's integer: DuckDB's own types lose the nanoseconds beside a zone."""
    time = f"TRY(make_timestamp({_microseconds(cast)}))"
    zoned = cast.found.tz is not None
    text = f"strftime({time}, '%Y-%m-%dT%H:%M:%S.%f{'Z' if zoned else ''}')"
    return {
        "timestamp": time if zoned else cast.instant(time),
        "date": f"CASE WHEN CAST({time} AS TIME) = TIME '00:00:00' THEN CAST({time} AS DATE) END",
        "string": text,
    }.get(cast.to)


def _from_date(cast: Cast) -> str | None:
    c = cast.column
    return _choose(cast, {"date": c, "timestamp": cast.instant(f"CAST({c} AS TIMESTAMP)")})


def _from_bytes(cast: Cast) -> str | None:
    return {"bytes": cast.column, "string": f"TRY(decode({cast.column}))"}.get(cast.to)


def _from_nested(cast: Cast) -> str | None:
    return f"CAST(to_json({cast.column}) AS VARCHAR)" if cast.to == "string" else None


def _from_other(cast: Cast) -> str | None:
    return _choose(cast, {})


_FROM: dict[str, Callable[[Cast], str | None]] = {
    "text": _from_text,
    "integer": _from_integer,
    "float": _from_float,
    "decimal": _from_decimal,
    "bool": _from_bool,
    "timestamp": _from_timestamp,
    "date": _from_date,
    "duration": _from_duration,
    "bytes": _from_bytes,
    "nested": _from_nested,
    "other": _from_other,
}


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    tests = (
        ("text", is_text(kind) or types.is_null(kind)),
        ("integer", types.is_integer(kind)),
        ("float", types.is_floating(kind)),
        ("decimal", types.is_decimal(kind)),
        ("bool", types.is_boolean(kind)),
        ("timestamp", types.is_timestamp(kind)),
        ("date", types.is_date(kind)),
        ("duration", types.is_duration(kind)),
        ("bytes", is_bytes(kind)),
        ("nested", types.is_nested(kind)),
    )
    return next((name for name, matches in tests if matches), "other")
