"""Values as text that is the same on both databases, whatever a session's settings are.

A float is its shortest text that gives the same float again; a time is in UTC, however far away. Neither may go through
Python's calendar, which ends with the year 9999, nor through a server's ``extra_float_digits``, which rounds.
"""

from __future__ import annotations

import struct
from decimal import Decimal, InvalidOperation

import pyarrow as pa
import sqlalchemy as sa

from headrace.storage.moments import days_of, moment_us, read_date, read_moment

__all__ = ["SORTED_FORMS", "asked", "differing", "plain_number", "sortable", "told"]

_MOST_DIGITS = 100
# what SQLite calls to bring a text that is not as Headrace writes it in a form that sorts and compares as its value
SORTED_MOMENT, SORTED_DATE, SORTED_DECIMAL = "headrace_moment", "headrace_date", "headrace_decimal"
_DIGIT = "[0-9]"
_DAY = f"{_DIGIT * 4}-{_DIGIT * 2}-{_DIGIT * 2}"
_AS_WRITTEN = {
    SORTED_DATE: _DAY,
    SORTED_MOMENT: f"{_DAY} {_DIGIT * 2}:{_DIGIT * 2}:{_DIGIT * 2}.{_DIGIT * 6}",
}


def asked(column: sa.ColumnElement[object], kind: pa.DataType, dialect: str) -> sa.ColumnElement[object]:
    """How a value of `column` is fetched, for `told`."""
    types = pa.types
    if dialect != "postgresql":
        return column
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_decimal(kind):
        return sa.cast(column, sa.Text)
    return sa.func.float8send(sa.cast(column, sa.Double)) if types.is_floating(kind) else column


def told(value: object, kind: pa.DataType) -> str | None:
    """What `asked` has fetched as text from which the column's type can be read again."""
    types = pa.types
    if types.is_floating(kind) and isinstance(value, bytes | memoryview):
        value = struct.unpack(">d", value)[0]
    elif types.is_boolean(kind) and value in (0, 1):
        value = bool(value)
    elif isinstance(value, str):
        if types.is_timestamp(kind):
            return read_moment(value)
        if types.is_date(kind):
            return read_date(value)
        return plain_number(value) if types.is_decimal(kind) else value
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="backslashreplace")
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def plain_number(text: str) -> str:
    """A number without an exponent; anything else as it is."""
    if "E" not in text:
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return format(number, "f") if number.is_finite() and abs(number.adjusted()) <= _MOST_DIGITS else text


def sortable(column: sa.ColumnElement[object], kind: pa.DataType, dialect: str) -> sa.ColumnElement[object]:
    """`column` in a form that sorts as its values do: SQLite has times, dates and decimals as text."""
    name = _sorting(kind)
    if dialect != "sqlite" or name is None:
        return column
    by_value: sa.ColumnElement[object] = getattr(sa.func, name)(column)
    if name not in _AS_WRITTEN:
        return by_value
    # nearly all are written so, and sort so
    return sa.case((column.op("GLOB")(_AS_WRITTEN[name]), column), else_=by_value)


def differing(
    one: sa.ColumnElement[object], other: sa.ColumnElement[object], kind: pa.DataType, dialect: str
) -> sa.ColumnElement[bool]:
    """Whether two columns hold other values: in SQLite one value may be written in several ways, and in PostgreSQL a
    column of the user's may have a type or a collation to which "a" and "A" are equal.
    """
    if dialect == "postgresql" and pa.types.is_string(kind):
        return sa.cast(one, sa.Text).collate("C").is_distinct_from(sa.cast(other, sa.Text).collate("C"))
    differ = one.is_distinct_from(other)
    name = _sorting(kind)
    if dialect != "sqlite" or name is None:
        return differ
    by_value = getattr(sa.func, name)
    # a text that is no such value is compared as the text that it is
    unlike = sa.func.coalesce(by_value(one), one).is_distinct_from(sa.func.coalesce(by_value(other), other))
    return differ & unlike


def _sorted_moment(value: object) -> str | None:
    """A time as a text that sorts as the time does: that of the years 0 to 9999 as Headrace writes it."""
    us = moment_us(value) if isinstance(value, str) else None
    return None if us is None else _sorted(read_moment(str(value)), clock=True)


def _sorted_date(value: object) -> str | None:
    """A date as a text that sorts as the date does."""
    days = days_of(value) if isinstance(value, str) else None
    return None if days is None else _sorted(read_date(str(value)), clock=False)


def _sorted_decimal(value: object) -> str | None:
    """A decimal as a text that sorts as the number does."""
    try:
        number = Decimal(str(value)) if isinstance(value, str | int | float) else None
    except InvalidOperation:
        return None
    if number is None or not number.is_finite() or number.adjusted() > _MOST_DIGITS:
        return None
    sign, digits, exponent = number.as_tuple()
    shifted = int(exponent) + _MOST_DIGITS
    whole = int("".join(map(str, digits)))
    scaled = whole * 10**shifted if shifted >= 0 else whole // 10**-shifted
    return str(10 ** (2 * _MOST_DIGITS + 2) + (-scaled if sign else scaled)).zfill(2 * _MOST_DIGITS + 3)


SORTED_FORMS = {SORTED_MOMENT: _sorted_moment, SORTED_DATE: _sorted_date, SORTED_DECIMAL: _sorted_decimal}
"""The functions that a connection to SQLite must know, by name, each of one argument."""


def _sorting(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_timestamp(kind):
        return SORTED_MOMENT
    if types.is_date(kind):
        return SORTED_DATE
    return SORTED_DECIMAL if types.is_decimal(kind) else None


def _sorted(text: str, *, clock: bool) -> str:
    """An ISO text so that the years before 0 come before, and those behind 9999 behind, all others."""
    if text.endswith("infinity"):
        return "!!" if text.startswith("-") else "~~"
    if clock:
        day, _, time = text.removesuffix("+00:00").partition("T")
        text = f"{day} {time if '.' in time else time + '.000000'}"
    before, year = text.startswith("-"), text.lstrip("-").partition("-")[0]
    rest = text.lstrip("-").partition("-")[2]
    if before:
        return f"!{10**7 - int(year):08}-{rest}"
    return f"{year}-{rest}" if len(year) == 4 else f"~{int(year):08}-{rest}"  # noqa: PLR2004 - as they are written
