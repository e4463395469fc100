r"""Texts as values of a type: Arrow reads the common forms, whole columns at a time, Python all others, value by value.

    texts ─► all printed numbers? ─► trimmed ─► each form: a pattern, and Arrow's cast ─► what is left ─► one function
                                                                                           per distinct text

A form's pattern lets through only what Arrow reads without an error, and reads as the type's function would: the forms
save time, the function (`_integer`, `_float`, …) says what the type accepts. A property test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from headrace.reading.types.arrow_types import logical_name
from headrace.reading.types.values import by_value, exact_decimal, only
from headrace.storage.moments import days_of, moment_us

__all__ = ["InZone", "from_text"]

InZone = Callable[[pa.ChunkedArray], pa.ChunkedArray]
"""From microseconds of local times to those of their instants, null where there is none."""
_DIGITS = 38
_LOOKED_AT = 9
_LONGEST = 4_000  # digits that Python makes an integer of
_BLANK = " \t\r\n\f\v"
_UTC = pa.timestamp("us", tz="UTC")
_INTEGER = r"(?:0|[1-9][0-9]{0,17}|[1-8][0-9]{18})"
_NUMBER = r"[+-]?(?:[0-9]{1,99}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?"
# a day of the years 1000 to 2999, of a century's first year only those that every year has
_DAY = (
    r"(?:[12][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[12][0-9](?:0[48]|[2468][048]|[13579][26])|2000)-02-29)"
)
_CLOCK = r"[ T](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
_OFFSET = r"[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"

_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.0*)?")
_WHOLE_EXPONENT = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,14})?[eE]\+?[0-9]{1,2}")
_EXPONENT = re.compile(r"[+-]?[0-9](?:\.[0-9]{0,14})?[eE][+-]?[0-9]{1,2}")
_DECIMAL = re.compile(r"[+-]?[0-9]*(?:\.[0-9]*)?")
_REAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_FOUR_DIGITS = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
# as Headrace writes the days of years that have not four digits, in ISO 8601: those before the year 0 with a minus
_FAR = r"(?:-[0-9]{4}|-?[0-9]{5})-[0-9]{2}-[0-9]{2}"
# 24:00 is the next day
_TIME = r"[ T](?:(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6}0*)?)?|24:00(?::00(?:\.0+)?)?)"
_DATE = re.compile(rf"{_FOUR_DIGITS}|{_FAR}")
_MOMENT = re.compile(rf"{_FOUR_DIGITS}(?:{_TIME}(?:Z|z| UTC|{_OFFSET})?)?|{_FAR}{_TIME}\+00:00")
_ZEROS = re.compile(r"(\.[0-9]{6})0+")
_WITH_ZONE = r"[ T].*[zZC+-]"
_BOOLS = {
    word: word in {"true", "t", "yes", "y", "1"}
    for word in ["true", "t", "yes", "y", "1", "false", "f", "no", "n", "0"]
}
_BOOL_WORDS, _BOOL_VALUES = pa.array(_BOOLS), pa.array(_BOOLS.values())


class _Form(NamedTuple):
    """A way to write values of a type: a pattern, and what reads a column of such texts."""

    pattern: str
    read: Callable[[pa.ChunkedArray], pa.ChunkedArray]


def from_text(column: pa.ChunkedArray, wanted: pa.DataType, in_zone: InZone | None) -> pa.ChunkedArray:
    """Texts as values of the canonical type `wanted`, null where they are none; `in_zone` is ``None`` for UTC."""
    if pa.types.is_string(wanted) or pa.types.is_binary(wanted):
        return column.cast(wanted)
    if (printed := _printed(column, wanted)) is not None:
        return printed
    kind = logical_name(wanted)
    if kind == "timestamp":
        return _times(column, in_zone)
    if kind == "bool":
        return pc.take(_BOOL_VALUES, pc.index_in(pc.ascii_lower(_trimmed(column)), _BOOL_WORDS))
    forms, exact = _decimals(wanted) if kind == "decimal" else _FORMS[wanted]
    whole = _whole(column, forms[0]) if forms else None
    return _read(_trimmed(column), forms, exact, wanted) if whole is None else whole


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.ascii_trim(column, characters=_BLANK)


def _printed(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray | None:
    """Numbers that Arrow reads, and in the case of integers prints as they were; ``None`` where one is another."""
    try:
        if pa.types.is_float64(wanted):
            numbers = pc.cast(column, wanted)
            return numbers if _all(pc.is_finite(numbers)) else None
        if pa.types.is_int64(wanted):
            numbers = pc.cast(column, wanted)
            return numbers if _all(pc.equal(pc.cast(numbers, column.type), column)) else None
    except pa.ArrowInvalid:
        pass
    return None


def _whole(column: pa.ChunkedArray, form: _Form) -> pa.ChunkedArray | None:
    """The values of texts that all have the form; ``None`` where one has another."""
    return form.read(column) if _all(_have(column, form)) else None


def _have(texts: pa.ChunkedArray, form: _Form) -> pa.ChunkedArray:
    return pc.match_substring_regex(texts, f"^(?:{form.pattern})$")


def _read(
    texts: pa.ChunkedArray, forms: Iterable[_Form], exact: Callable[[str], Any], kind: pa.DataType
) -> pa.ChunkedArray:
    """Each text by the first of the `forms` that it has, or else by `exact`."""
    parts = []
    for form in forms:
        taken = _have(texts, form)
        if pc.any(taken).as_py():
            parts.append(form.read(only(taken, texts)))
            texts = only(pc.invert(taken), texts)
    return pc.coalesce(*parts, by_value(texts, exact, kind))


def _times(column: pa.ChunkedArray, in_zone: InZone | None) -> pa.ChunkedArray:
    first = next((text.as_py() for text in column.slice(0, _LOOKED_AT) if text.is_valid), "")
    # what is tried first costs time alone
    forms = [_ZONED, _LOCAL] if re.search(_WITH_ZONE, first) else [_LOCAL, _ZONED]
    if (micros := _whole(column, forms[0])) is not None:
        zoned = forms[0] is _ZONED
        return (micros if zoned or in_zone is None else in_zone(micros)).cast(_UTC)
    texts = _trimmed(column)
    micros = _read(texts, forms, _moment, pa.int64())
    if in_zone is not None:
        with_zone = pc.match_substring_regex(texts, _WITH_ZONE)
        micros = pc.if_else(with_zone, micros, in_zone(only(pc.invert(with_zone), micros)))
    return micros.cast(_UTC)


def _decimals(wanted: pa.DataType) -> tuple[list[_Form], Callable[[str], Any]]:
    """Numbers without an exponent that fit `wanted` by the number of their digits, and the function for others."""
    whole, scale = _DIGITS - wanted.scale, wanted.scale
    exact = partial(_decimal, scale=scale)
    if not whole:
        return [], exact
    fraction = rf"|\.[0-9]{{1,{scale}}}" if scale else ""
    pattern = rf"[+-]?(?:[0-9]{{1,{whole}}}(?:\.[0-9]{{0,{scale}}})?{fraction})"
    return [_Form(pattern, lambda texts: pc.cast(texts, wanted))], exact


def _without_fraction(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(pc.replace_substring_regex(texts, r"^\+|\.0*$", ""), pa.int64())


def _integer(text: str) -> int | None:
    if _WHOLE.fullmatch(text):
        number = int(text.partition(".")[0]) if len(text) <= _LONGEST else int(Decimal(text))
    elif _WHOLE_EXPONENT.fullmatch(text) and (value := Decimal(text)) == int(value):
        number = int(value)
    else:
        return None
    return number if -(2**63) <= number < 2**63 else None


def _float(text: str) -> float | None:
    if _WORD.fullmatch(text):
        return float(text)
    return number if _REAL.fullmatch(text) and isfinite(number := float(text)) else None


def _decimal(text: str, scale: int) -> Decimal | None:
    if not (_DECIMAL.fullmatch(text) and any(map(str.isdigit, text))) and not _EXPONENT.fullmatch(text):
        return None
    return exact_decimal(Decimal(text), scale)


def _moment(text: str) -> int | None:
    """Microseconds since 1970: of the instant, or of a time without a zone as if it were in UTC."""
    if not _MOMENT.fullmatch(text):
        return None
    return moment_us(_ZEROS.sub(r"\1", text).replace(" UTC", "Z").replace("z", "Z"))


def _date(text: str) -> int | None:
    return days_of(text) if _DATE.fullmatch(text) else None


_ZONED = _Form(_DAY + _CLOCK + f"(?:Z|{_OFFSET})", lambda texts: pc.cast(texts, _UTC).cast(pa.int64()))
_LOCAL = _Form(f"{_DAY}(?:{_CLOCK})?", lambda texts: pc.cast(texts, pa.timestamp("us")).cast(pa.int64()))
_FORMS: dict[pa.DataType, tuple[list[_Form], Callable[[str], Any]]] = {
    pa.int64(): (
        [
            _Form("-?" + _INTEGER, lambda texts: pc.cast(texts, pa.int64())),
            _Form(rf"[+-]?{_INTEGER}(?:\.0*)?", _without_fraction),
        ],
        _integer,
    ),
    pa.float64(): ([_Form(_NUMBER, lambda texts: pc.cast(texts, pa.float64()))], _float),
    pa.date32(): ([_Form(_DAY, lambda texts: pc.cast(texts, pa.date32()))], _date),
}


def _all(mask: pa.ChunkedArray) -> bool:
    """Whether it holds for every value that is there."""
    return pc.all(mask, skip_nulls=True, min_count=0).as_py() is True
