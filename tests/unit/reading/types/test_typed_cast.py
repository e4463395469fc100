"""Typed values are exact or refused, and their text stays what it is: it takes part in event IDs."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, localcontext
from functools import cache, partial
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.partitioning.contract import LogicalType
from headrace.reading.sql import connect
from headrace.reading.types.arrow_types import canonical_type
from headrace.reading.types.cast import Caster

CASTERS = {zone: Caster(cache(partial(connect, 1, zone)), zone, "x") for zone in ("UTC", "Europe/Berlin")}
INT64 = st.integers(-(2**63), 2**63 - 1)
LEAST, MOST = datetime(1, 1, 1), datetime(9999, 12, 31)


def cast(values: pa.Array, wanted: pa.DataType, zone: str = "UTC") -> pa.ChunkedArray:
    """The cast column; every value that was lost is reported, and no other."""
    table, bad = CASTERS[zone].cast(pa.table({"v": values}), pa.schema([("v", wanted)]))
    column = table.column("v")
    lost = [at for at in range(len(values)) if values[at].is_valid and not column[at].is_valid]
    assert [value.index for value in bad] == lost
    return column


def fits(value: Decimal, kind: pa.DataType) -> bool:
    with localcontext() as context:
        context.prec = 500
        units = value.scaleb(kind.scale)
        return units == int(units) and abs(int(units)) < 10**kind.precision


def exactly(oracle: Callable[[Any], object], values: list[Any], kind: pa.DataType, wanted: pa.DataType) -> None:
    got = cast(pa.array(values, kind), wanted).to_pylist()
    assert list(map(repr, got)) == [repr(None if value is None else oracle(value)) for value in values]


@st.composite
def integers(draw: st.DrawFn) -> tuple[list[int | None], pa.DataType]:
    kind = draw(st.sampled_from([pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()]))
    least = 0 if pa.types.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
    most = least + 2**kind.bit_width - 1
    near = st.sampled_from([0, 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63 - 512, 2**63, 2**64 - 1, 10**17])
    value = st.integers(least, most) | near.filter(lambda number: number <= most)
    return draw(st.lists(st.none() | value, max_size=8)), kind


@settings(max_examples=300, deadline=None)
@given(integers())
def test_an_integer_goes_where_its_value_is_held(column: tuple[list[int | None], pa.DataType]) -> None:
    values, kind = column
    exactly(lambda value: value if value < 2**63 else None, values, kind, pa.int64())
    exactly(lambda value: float(value) if int(float(value)) == value else None, values, kind, pa.float64())
    exactly({0: False, 1: True}.get, values, kind, pa.bool_())
    exactly(str, values, kind, pa.string())
    wanted = canonical_type("decimal", 21)
    got = cast(pa.array(values, kind), wanted).to_pylist()
    assert got == [value if value is not None and abs(value) < 10**17 else None for value in values]


def sign_kept(value: float) -> str:
    return "-nan" if math.isnan(value) and math.copysign(1, value) < 0 else repr(value)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.none() | st.floats() | st.floats(-1e20, 1e20) | st.integers(-(10**17), 10**17).map(float), max_size=8)
)
def test_a_double_goes_where_its_value_is_held(values: list[float | None]) -> None:
    def whole(value: float) -> int | None:
        return int(value) if value.is_integer() and -(2**63) <= value < 2**63 else None

    exactly(whole, values, pa.float64(), pa.int64())
    exactly(sign_kept, values, pa.float64(), pa.string())
    kind = canonical_type("decimal")
    decimals = cast(pa.array(values, pa.float64()), kind).to_pylist()
    for value, got in zip(values, decimals, strict=True):
        if got is None:
            assert value is None or not math.isfinite(value) or not fits(Decimal(repr(value)), kind)
        else:
            assert float(got) == value


@st.composite
def decimals(draw: st.DrawFn) -> tuple[list[Decimal | None], pa.DataType]:
    digits = draw(st.integers(1, 38))
    scale = draw(st.integers(0, digits))
    units = st.integers(-(10**digits) + 1, 10**digits - 1)
    round_ones = st.integers(-9, 9).map(lambda digit: digit * 10 ** (digits - 1))
    values = draw(st.lists(st.none() | units | round_ones, max_size=8))
    numbers = [None if value is None else Decimal(f"{value}e-{scale}") for value in values]
    return numbers, pa.decimal128(digits, scale)


@settings(max_examples=300, deadline=None)
@given(decimals(), st.integers(0, 38))
def test_a_decimal_goes_where_its_value_is_held(column: tuple[list[Decimal | None], pa.DataType], scale: int) -> None:
    values, kind = column

    def text(value: Decimal) -> str:
        written = format(value, "f")
        return written.replace("0.", ".", 1) if kind.precision == kind.scale else written

    exactly(
        lambda value: int(value) if int(value) == value and -(2**63) <= value < 2**63 else None,
        values,
        kind,
        pa.int64(),
    )
    exactly(float, values, kind, pa.float64())
    exactly(text, values, kind, pa.string())
    wanted = canonical_type("decimal", scale)
    got = cast(pa.array(values, kind), wanted).to_pylist()
    assert got == [value if value is not None and fits(value, wanted) else None for value in values]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.none()
        | st.datetimes(LEAST, MOST)
        | st.dates(LEAST.date(), MOST.date()).map(lambda day: datetime(day.year, day.month, day.day)),
        max_size=8,
    ),
    st.sampled_from(["s", "ms", "us"]),
    st.sampled_from([None, "UTC", "Asia/Kathmandu"]),
)
def test_a_time_is_kept(values: list[datetime | None], unit: str, zone: str | None) -> None:
    span = {"s": 1_000_000, "ms": 1_000, "us": 1}[unit]
    micros = [
        None if value is None else (value - datetime(1970, 1, 1)) // timedelta(microseconds=span) * span
        for value in values
    ]
    moments = [None if us is None else datetime(1970, 1, 1) + timedelta(microseconds=us) for us in micros]
    array = pa.array([None if us is None else us // span for us in micros], pa.int64()).cast(pa.timestamp(unit, zone))
    assert cast(array, canonical_type("timestamp")).cast(pa.int64()).to_pylist() == micros
    end = "" if zone is None else "Z"
    texts = [None if value is None else value.isoformat(timespec="microseconds") + end for value in moments]
    assert cast(array, pa.string()).to_pylist() == texts
    days = [None if value is None or value.time() != time() else value.date() for value in moments]
    assert cast(array, pa.date32()).to_pylist() == days


@settings(max_examples=300, deadline=None)
@given(st.lists(st.none() | INT64 | st.integers(-(10**12), 10**12).map(lambda us: us * 1_000), max_size=8))
def test_nanoseconds_that_are_no_microseconds_are_bad(values: list[int | None]) -> None:
    values = [None if value == -(2**63) else value for value in values]  # what stands for no time
    micros = [value // 1000 if value is not None and value % 1000 == 0 else None for value in values]
    times = pa.array(values, pa.int64()).cast(pa.timestamp("ns"))
    assert cast(times, canonical_type("timestamp")).cast(pa.int64()).to_pylist() == micros
    spans = cast(pa.array(values, pa.int64()).cast(pa.duration("ns")), pa.string()).to_pylist()
    assert [text is None for text in spans] == [us is None for us in micros]
    for us, text in zip(micros, spans, strict=True):
        if us is not None:
            hours, minutes, seconds = text.lstrip("-").split(":")
            size = timedelta(hours=int(hours), minutes=int(minutes)) / timedelta(microseconds=1) + float(seconds) * 1e6
            assert abs(us) == pytest.approx(size)
            assert ((us < 0) == text.startswith("-"), len(hours) > 1) == (True, True)


FROZEN: list[tuple[pa.DataType, object, str | None]] = [
    (pa.float64(), 1e15, "1000000000000000.0"),
    (pa.float64(), 1e16, "1e+16"),
    (pa.float64(), 1e-5, "1e-05"),
    (pa.float64(), 0.0001, "0.0001"),
    (pa.float64(), 12345678901.25, "12345678901.25"),
    (pa.float64(), -0.0, "-0.0"),
    (pa.float32(), 16777216.0, "16777216.0"),
    (pa.float32(), 0.1, "0.1"),
    (pa.float32(), 4132455.75, "4132455.75"),
    (pa.float16(), 3.68359375, "3.68359375"),
    (pa.decimal128(2, 2), Decimal("-0.05"), "-.05"),
    (pa.decimal128(3, 2), Decimal("-0.05"), "-0.05"),
    (pa.decimal128(38, 20), Decimal("1E-20"), "0.00000000000000000001"),
    (pa.decimal256(70, 2), Decimal("1.50"), "1.50"),
    (pa.bool_(), True, "true"),
    (pa.date32(), date(9999, 12, 31), "9999-12-31"),
    (pa.date32(), 2_932_897, "10000-01-01"),
    (pa.date32(), -719_163, "0001-12-31 (BC)"),
    (pa.date32(), -719_529, "0002-12-31 (BC)"),
    (pa.date32(), 2**31 - 1, "infinity"),
    (pa.date64(), 86_400_000, "1970-01-02T00:00:00.000000"),
    (pa.timestamp("s", "UTC"), 253_402_300_800, "10000-01-01T00:00:00.000000Z"),
    (pa.timestamp("us"), -62_167_219_200_000_001, "-1-12-31T23:59:59.999999"),
    (pa.timestamp("us"), -62_135_596_800_000_001, "0000-12-31T23:59:59.999999"),
    (pa.timestamp("us"), 2**63 - 1, None),
    (pa.time32("s"), 60, "00:01:00"),
    (pa.time32("ms"), 500, "00:00:00.5"),
    (pa.time64("ns"), 1, "00:00:00.000000001"),
    (pa.duration("s"), -60, "-00:01:00"),
    (pa.duration("us"), 360_000_000_000, "100:00:00"),
    (pa.list_(pa.float64()), [1.0, None], "[1.0,null]"),
    (pa.struct([("a", pa.timestamp("us"))]), {"a": datetime(2022, 1, 1)}, '{"a":"2022-01-01 00:00:00"}'),
]


@pytest.mark.parametrize(("kind", "value", "text"), FROZEN)
def test_the_text_of_a_value_stays(kind: pa.DataType, value: object, text: str | None) -> None:
    counts = isinstance(value, int) and not pa.types.is_boolean(kind)
    wide = pa.int32() if counts and kind.bit_width == pa.int32().bit_width else pa.int64()
    array = pa.array([value, None], wide).cast(kind) if counts else pa.array([value, None], kind)
    assert cast(array, pa.string()).to_pylist() == [text, None]


@pytest.mark.parametrize("days", [106_751_992, -106_751_992, -(2**31)])
def test_a_day_beyond_the_times_that_there_are_is_bad(days: int) -> None:
    array = pa.array([days, 0], pa.int32()).cast(pa.date32())
    assert cast(array, canonical_type("timestamp")).cast(pa.int64()).to_pylist() == [None, 0]


def test_a_local_time_at_the_end_of_the_calendar_is_bad() -> None:
    array = pa.array([2**63 - 2, -(2**63), 0], pa.int64()).cast(pa.timestamp("us"))
    assert cast(array, canonical_type("timestamp"), "Europe/Berlin").cast(pa.int64()).to_pylist()[:2] == [None, None]


COLUMNS: list[tuple[object, LogicalType]] = [
    ([" 5", "5.0", "5e3", "x"], "integer"),
    (["nan", "x"], "float"),
    (["yes", "n"], "bool"),
    (["2022-04-09T00:18:00+02:00", "2022-04-09"], "timestamp"),
    (["1.5", "1e-3"], "decimal"),
    ([1.5, 2.0], "integer"),
    ([1e300], "string"),
    ([timedelta(1)], "string"),
]


def test_plain_and_awkward_columns_need_no_duckdb() -> None:
    program = f"""
import sys, datetime
import pyarrow as pa
from headrace.reading.types.arrow_types import canonical_type
from headrace.reading.types.cast import Caster
for values, wanted in {COLUMNS!r}:
    Caster(lambda: 1 / 0, "UTC", "x").cast(pa.table({{"v": values}}), pa.schema([("v", canonical_type(wanted))]))
assert "duckdb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
