"""What each type reads as text, against an oracle of the standard library that knows nothing of Arrow or Headrace.

Columns of one form go whole through Arrow, mixed ones value by value: both ways are held to the same oracle.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from functools import cache, partial
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.partitioning.contract import LogicalType
from headrace.reading.sql import connect
from headrace.reading.types.arrow_types import canonical_type
from headrace.reading.types.cast import Caster

ZONES = ("UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu")
CASTERS = {zone: Caster(cache(partial(connect, 1, zone)), zone, "x") for zone in ZONES}
EPOCH = datetime(1970, 1, 1)
CYCLE = 146_097  # days of 400 years, after which the calendar comes again
KINDS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


def whole(text: str) -> int | None:
    plain = re.fullmatch(r"[+-]?(0|[1-9][0-9]*)(\.0*)?", text)
    if not plain and not re.fullmatch(r"[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]{0,14})?[eE]\+?[0-9]{1,2}", text):
        return None
    value = Decimal(text)
    return int(value) if value == value.to_integral_value() and -(2**63) <= value < 2**63 else None


def real(text: str) -> float | None:
    if re.fullmatch(r"[+-]?(nan|inf|infinity)", text, re.IGNORECASE | re.ASCII):
        return float(text)
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return None
    return None if math.isinf(float(text)) else float(text)


def truth(text: str) -> bool | None:
    word = text.lower()
    return True if word in {"true", "t", "yes", "y", "1"} else False if word in {"false", "f", "no", "n", "0"} else None


def fixed(text: str, scale: int = 9) -> Decimal | None:
    plain = re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", text)
    if not plain and not re.fullmatch(r"[+-]?[0-9](\.[0-9]{0,14})?[eE][+-]?[0-9]{1,2}", text):
        return None
    with localcontext() as context:
        context.prec = 500
        units = Decimal(text).scaleb(scale)
        fits = units == units.to_integral_value() and abs(units) < 10**38
        return Decimal(int(units)).scaleb(-scale) if fits else None


def day(text: str) -> int | None:
    """Days since 1970, in a calendar that goes on before the year 1 and behind the year 9999."""
    found = re.fullmatch(r"([0-9]{4}|-[0-9]{4}|-?[0-9]{5})-([0-9]{2})-([0-9]{2})", text)
    if not found:
        return None
    cycles, year = divmod(int(found[1]) - 2000, 400)
    year, month, of_month = year + 2000, int(found[2]), int(found[3])
    if not 1 <= month <= 12 or not 1 <= of_month <= calendar.monthrange(year, month)[1]:
        return None
    return (date(year, month, of_month) - EPOCH.date()).days + cycles * CYCLE


def moment(text: str, zone: str) -> int | None:
    """Microseconds since 1970 UTC."""
    found = re.fullmatch(
        r"(?P<day>-?[0-9]{4,5}-[0-9]{2}-[0-9]{2})([ T](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
        r"(:(?P<second>[0-9]{2})(\.(?P<micro>[0-9]{1,6})0*)?)?(?P<zone>Z|z| UTC|[+-][0-9]{2}(:?[0-9]{2})?)?)?",
        text,
    )
    days = day(found["day"]) if found else None
    if found is None or days is None or (not re.match("[0-9]{4}-", text) and found["zone"] != "+00:00"):
        return None
    hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
    micro = int((found["micro"] or "").ljust(6, "0"))
    if minute > 59 or second > 59 or (hour > 23 and (hour, minute, second, micro) != (24, 0, 0, 0)):
        return None
    micros = ((days * 24 + hour) * 3600 + minute * 60 + second) * 10**6 + micro
    if found["zone"] is None and zone != "UTC":
        return instant(micros, zone)
    offset = re.fullmatch("([+-])([0-9]{2}):?([0-9]{2})?", found["zone"] or "")
    if offset is None:
        return micros
    hours, minutes = int(offset[2]), int(offset[3] or 0)
    if hours > 23 or minutes > 59:
        return None
    return micros - int(offset[1] + "1") * (hours * 60 + minutes) * 60 * 10**6


def instant(micros: int, zone: str) -> int | None:
    """The earlier of the instants that clocks of the zone show so, ``None`` if there is none."""
    naive = EPOCH + timedelta(microseconds=micros)
    for fold in (0, 1):
        aware = naive.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)
        if aware.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == naive:
            return (aware.replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)
    return None


ORACLES: dict[LogicalType, Callable[[str], object]] = {
    "integer": whole,
    "float": real,
    "bool": truth,
    "decimal": fixed,
    "date": day,
}
SIGNS = st.sampled_from(["", "", "-", "+", "+-"])
WHOLE = st.integers(-(2**64), 2**64).map(str) | st.integers(0, 999).map("{:05d}".format)
TAILS = st.sampled_from(["", ".", ".0", ".000", ".5", ".123456789", ".1234567891", ".10000000000000"])
POWERS = st.sampled_from(["", "", "e0", "E3", "e+2", "e-3", "e15", "e400", "e-400", "e", "e00"])
NUMBERS = st.builds("{}{}{}{}".format, SIGNS, st.integers(0, 10**19).map(str), TAILS, POWERS)
DIGITS = st.text("0123456789+-.eE_xnaif ", max_size=12)
FLOATS = st.floats().map(str) | st.floats(-1e6, 1e6).map("{:.4f}".format)
WORDS = st.sampled_from(["true", "F", "yes", "No", "T", "n", "1", "0", "tr", "wahr", "fal\u017fe", "y\u00a0"])
YEARS = st.sampled_from(["0000", "0001", "1900", "2000", "2024", "9999", "-0001", "10000", "-99999"]) | st.integers(
    1900, 2100
).map(str)
DAYS = st.builds("{}-{:02d}-{:02d}".format, YEARS, st.integers(0, 13), st.integers(0, 32))
GOOD_DAYS = st.dates(date(1000, 1, 1), date(2999, 12, 31)).map(str)
CLOCKS = st.builds(
    "{}{:02d}:{:02d}{}".format,
    st.sampled_from("T "),
    st.integers(0, 25),
    st.integers(0, 61),
    st.sampled_from(["", ":00", ":59", ":60", ":07.5", ":07.123456", ":07.1234567", ":07.12345600000", ":00."]),
)
OFFSETS = st.sampled_from(["", "Z", "z", " UTC", " Z", "UTC", "+00:00", "+02:00", "-0530", "+14", "-23:59", "+24:00"])
SHIFTS = st.sampled_from(["2022-03-27", "2022-10-30", "2022-04-03", "2022-10-02", "2050-03-27"])
TIMES = st.builds("{}{}{}".format, GOOD_DAYS | DAYS | SHIFTS, CLOCKS, OFFSETS)
GOOD_TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2999, 12, 31)).map(str)
LATER = st.sampled_from(["{}", "{}Z", "{}+02:00"]).flatmap(
    lambda form: st.lists(GOOD_TIMES.map(form.format), max_size=6)
)
ODD = st.sampled_from(["", " ", "nan", "-Infinity", "0x1A", "1,5", "\u0661", "epoch", "\x00", "1\x00", "12:00"])
PADS = st.sampled_from(["", "", "", " ", "\t", "\r\n", "\v", "\f"])


def columns(*kinds: st.SearchStrategy[str]) -> st.SearchStrategy[list[str | None]]:
    """Columns of one kind, and of several with odd ones and blanks around them."""
    mixed = st.builds("{}{}{}".format, PADS, st.one_of(*kinds, ODD), PADS)
    one_kind = st.sampled_from(kinds).flatmap(lambda kind: st.lists(st.none() | kind, max_size=8))
    return one_kind | st.lists(st.none() | mixed, max_size=8)


def check(
    texts: list[str | None], wanted: LogicalType, oracle: Callable[[str], object], kind: pa.DataType, zone: str
) -> None:
    schema = pa.schema([("v", canonical_type(wanted))])
    table, bad = CASTERS[zone].cast(pa.table({"v": pa.array(texts, kind)}), schema)
    column = table.column("v")
    numbers = {"timestamp": pa.int64(), "date": pa.int32()}.get(wanted)
    got = (column if numbers is None else column.cast(numbers)).to_pylist()
    bare = [None if text is None else text.strip(" \t\r\n\f\v") for text in texts]
    # by their text: minus zero is not zero here, and NaN is NaN
    assert list(map(repr, got)) == [repr(oracle(text)) if text else "None" for text in bare]
    assert [value.index for value in bad] == [
        at for at, text in enumerate(bare) if text and text.strip() and oracle(text) is None
    ]


@settings(max_examples=600, deadline=None)
@given(
    columns(WHOLE, NUMBERS, DIGITS, FLOATS, WORDS, st.integers(-(2**63), 2**63 - 1).map(str), GOOD_DAYS, DAYS),
    st.sampled_from(sorted(ORACLES)),
    st.sampled_from(KINDS),
)
@example(["+5", "-0", "7.0"], "integer", pa.string())
@example(["9223372036854775807", "8999999999999999999.0", "1"], "integer", pa.string())
@example(["1" * 5_000 + ".0"], "integer", pa.string())
@example(["2000-02-29", "1900-02-29", "2024-02-29", "2023-02-29"], "date", pa.string())
def test_a_text_is_what_its_type_says(texts: list[str | None], wanted: LogicalType, kind: pa.DataType) -> None:
    check(texts, wanted, ORACLES[wanted], kind, "UTC")


@settings(max_examples=300, deadline=None)
@given(columns(NUMBERS, WHOLE, DIGITS), st.integers(0, 38))
def test_a_decimal_has_the_digits_of_its_column_or_is_bad(texts: list[str | None], scale: int) -> None:
    table, _ = CASTERS["UTC"].cast(
        pa.table({"v": pa.array(texts, pa.string())}), pa.schema([("v", pa.decimal128(38, scale))])
    )
    bare = [None if text is None else text.strip(" \t\r\n\f\v") for text in texts]
    assert table.column("v").to_pylist() == [None if not text else fixed(text, scale) for text in bare]


@settings(max_examples=400, deadline=None)
@given(columns(TIMES, GOOD_DAYS) | LATER, st.sampled_from(KINDS))
@example(["2020-01-01T24:00:00", "2020-01-01 24:00:00.000Z", "2020-01-01T24:00:01"], pa.string())
@example(["-0001-01-01T00:00:00+00:00", "99999-12-31T23:59:59.999999+00:00", "10000-01-01T00:00:00Z"], pa.string())
def test_a_time_is_that_instant(texts: list[str | None], kind: pa.DataType) -> None:
    check(texts, "timestamp", partial(moment, zone="UTC"), kind, "UTC")


# before 1972 tables of zones differ
MODERN = st.datetimes(datetime(1972, 1, 1), datetime(2090, 1, 1)).map(str)


@settings(max_examples=200, deadline=None)
@given(columns(MODERN, st.builds("{}{}{}".format, SHIFTS, CLOCKS, OFFSETS)), st.sampled_from(ZONES))
@example(["2022-10-30 02:30", "2022-03-27 02:30", "2022-03-27 02:30Z"], "Europe/Berlin")
@example(["2022-04-03 01:45", "2022-10-02 02:15"], "Australia/Lord_Howe")
def test_a_time_without_a_zone_is_the_earlier_instant_of_the_zone_given(texts: list[str | None], zone: str) -> None:
    check(texts, "timestamp", partial(moment, zone=zone), pa.string(), zone)


@pytest.mark.parametrize(("wanted", "text"), [("integer", " 5.0"), ("timestamp", "2022-04-09T00:18:00+02:00 ")])
def test_equal_texts_are_looked_at_once(wanted: LogicalType, text: str) -> None:
    check(
        [text, None, text, "?", "?"],
        wanted,
        lambda one: None if one == "?" else {"i": 5, "t": 1649456280000000}[wanted[0]],
        pa.string(),
        "UTC",
    )
