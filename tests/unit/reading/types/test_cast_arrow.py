"""A quick cast is the cast layer's own answer, or none: the two side by side over plain, odd and mixed columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.partitioning.contract import LogicalType
from headrace.reading.types import cast
from headrace.reading.types.cast import Caster, canonical_type, connect
from headrace.reading.types.cast_arrow import quick_cast

CASTERS = {zone: Caster(connect(1, zone), zone, "x") for zone in ("UTC", "Europe/Berlin")}
TEXT = pa.string()
DIGITS = st.text("0123456789+-.eE", max_size=9)
FLOATS = st.floats(width=64).map(str) | st.floats(-1e6, 1e6).map("{:.4f}".format) | st.floats().map("{:e}".format)
POWERS = st.tuples(st.integers(0, 99), st.integers(-400, 400)).map(lambda pair: f"{pair[0]}e{pair[1]}")
INTEGERS = st.integers(-(2**64), 2**64).map(str) | st.integers(0, 99).map("{:03d}".format) | st.just("-0")
ODD = st.sampled_from(
    ["", " ", "1_0", "0x10", "nan", "inf", " 1", "1 ", "\u0661", "1,5", "-0.0", "00", "5.", ".5", "1e"]
)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
SHAPES = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d", "%Y-%m-%d %H", "%Y-%m-%d %H%M%S"]
SUFFIXES = ["", "Z", "+02:00", " UTC", "0"]
TIMES = st.builds(
    lambda moment, shape, suffix: moment.strftime(shape) + suffix,
    MOMENTS,
    st.sampled_from(SHAPES),
    st.sampled_from(SUFFIXES),
)
WRONG_TIMES = st.sampled_from(
    [
        "2021-02-29T00:00:00",
        "2020-02-30 00:00:00Z",
        "2020-01-01T24:00:00",
        "2020-01-01T23:59:60",
        "0000-01-01T00:00:00",
        "0001-01-01T00:00:00",
        "2020-01-01t00:00:00",
        "2020-13-01T00:00:00",
        "2020-01-01T00:00:00.1234567",
    ]
)


def columns(*values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str | None]]:
    """Columns of one kind, which a quick cast takes, and mixed ones."""
    one_kind = st.sampled_from(values).flatmap(lambda kind: st.lists(st.none() | kind, max_size=8))
    return one_kind | st.lists(st.none() | st.one_of(*values, ODD), max_size=8)


def both_ways(values: list[Any], wanted: LogicalType, zone: str, kind: pa.DataType = TEXT) -> tuple[Any, Any]:
    table = pa.table({"v": pa.array(values, kind)})
    schema = pa.schema([("v", canonical_type(wanted))])
    quick = CASTERS[zone].cast(table, schema)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cast, "quick_cast", lambda *_: None)
        slow = CASTERS[zone].cast(table, schema)
    return quick, slow


@settings(max_examples=400, deadline=None)
@given(
    columns(INTEGERS, DIGITS, FLOATS, POWERS, st.integers(-(2**63), 2**63 - 1).map(str)),
    st.sampled_from(["integer", "float"]),
)
def test_a_quick_number_is_the_cast_layers_number(values: list[str | None], wanted: LogicalType) -> None:
    (quick, refused), (slow, refused_too) = both_ways(values, wanted, "UTC")
    # by their bits: minus zero is not zero here
    assert list(map(repr, quick.column("v").to_pylist())) == list(map(repr, slow.column("v").to_pylist()))
    assert refused == refused_too


@settings(max_examples=400, deadline=None)
@given(columns(TIMES, WRONG_TIMES, MOMENTS.map(str)), st.sampled_from(sorted(CASTERS)))
def test_a_quick_time_is_the_cast_layers_time(values: list[str | None], zone: str) -> None:
    (quick, refused), (slow, refused_too) = both_ways(values, "timestamp", zone)
    assert quick.column("v").cast(pa.int64()).equals(slow.column("v").cast(pa.int64()))
    assert refused == refused_too


NARROW = [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.float32()]
TICKS = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us") for zone in (None, "UTC", "Asia/Kathmandu", "+03:00")]
SPAN = {"s": 1, "ms": 1_000, "us": 1_000_000}
YEARS = st.integers(-63_000_000_000, 260_000_000_000)  # seconds since 1970, of years that databases hold and of others


@st.composite
def narrow(draw: st.DrawFn) -> tuple[list[Any], pa.DataType]:
    kind = draw(st.sampled_from(NARROW))
    if pa.types.is_floating(kind):
        return draw(st.lists(st.none() | st.floats(width=32), max_size=8)), kind
    least = 0 if pa.types.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
    return draw(st.lists(st.none() | st.integers(least, least + 2**kind.bit_width - 1), max_size=8)), kind


@st.composite
def ticks(draw: st.DrawFn) -> tuple[list[Any], pa.DataType]:
    kind = draw(st.sampled_from(TICKS))
    anything = st.integers(-(2**63), 2**63 - 1)
    within = YEARS.map(lambda second: second * SPAN[kind.unit])
    return draw(st.lists(st.none() | within, max_size=8) | st.lists(within | anything, max_size=4)), kind


@settings(max_examples=400, deadline=None)
@given(narrow())
def test_a_number_in_a_wider_type_is_the_cast_layers_number(values: tuple[list[Any], pa.DataType]) -> None:
    found, kind = values
    wanted: LogicalType = "float" if pa.types.is_floating(kind) else "integer"
    (quick, refused), (slow, refused_too) = both_ways(found, wanted, "UTC", kind)
    assert list(map(repr, quick.column("v").to_pylist())) == list(map(repr, slow.column("v").to_pylist()))
    assert refused == refused_too == []


@settings(max_examples=400, deadline=None)
@given(ticks(), st.sampled_from(sorted(CASTERS)))
@example(([2**63 - 1], pa.timestamp("us")), "UTC")  # DuckDB's infinity
@example(([1 - 2**63], pa.timestamp("us", "UTC")), "UTC")
def test_an_instant_is_the_cast_layers_instant(values: tuple[list[Any], pa.DataType], zone: str) -> None:
    (quick, refused), (slow, refused_too) = both_ways(values[0], "timestamp", zone, values[1])
    assert quick.column("v").cast(pa.int64()).equals(slow.column("v").cast(pa.int64()))
    assert refused == refused_too


@pytest.mark.parametrize(
    ("kind", "wanted", "zone", "quick"),
    [
        (pa.int16(), "integer", "UTC", True),
        (pa.float32(), "float", "UTC", True),
        (pa.timestamp("us"), "timestamp", "UTC", True),
        (pa.timestamp("s", "Asia/Kathmandu"), "timestamp", "Europe/Berlin", True),
        (pa.timestamp("us"), "timestamp", "Europe/Berlin", False),
        (pa.timestamp("ns"), "timestamp", "UTC", False),
        (pa.uint64(), "integer", "UTC", False),
        (pa.float64(), "integer", "UTC", False),
    ],
)
def test_only_what_loses_nothing_goes_round_the_cast_layer(
    kind: pa.DataType, wanted: LogicalType, zone: str, quick: bool
) -> None:
    column = pa.chunked_array([pa.array([1, None, 2]).cast(kind)])
    assert (quick_cast(column, canonical_type(wanted), zone) is not None) == quick


@pytest.mark.parametrize(
    ("values", "wanted", "zone"),
    [
        (["1.5", None, "-2e3", "+1"], "float", "UTC"),
        (["313", None, "-9223372036854775808"], "integer", "UTC"),
        (["2020-01-01 00:00", None, "2020-01-01T00:00:00.5"], "timestamp", "UTC"),
        (["2020-01-01 00:00Z", None], "timestamp", "Europe/Berlin"),
    ],
)
def test_plain_columns_are_cast_quickly(values: list[str | None], wanted: LogicalType, zone: str) -> None:
    column = pa.chunked_array([pa.array(values, pa.string())])
    assert quick_cast(column, canonical_type(wanted), zone) is not None


@pytest.mark.parametrize(
    ("text", "wanted", "zone"),
    [
        ("007", "integer", "UTC"),
        ("0x10", "integer", "UTC"),
        ("-0", "integer", "UTC"),
        ("1e400", "float", "UTC"),
        ("1e-400", "float", "UTC"),
        ("nan", "float", "UTC"),
        ("2020-01-01 00", "timestamp", "UTC"),
        ("2020-01-01 00:00", "timestamp", "Europe/Berlin"),
        ("0000-01-01 00:00", "timestamp", "UTC"),
    ],
)
def test_what_needs_a_closer_look_is_left_to_the_cast_layer(text: str, wanted: LogicalType, zone: str) -> None:
    assert quick_cast(pa.chunked_array([pa.array([text])]), canonical_type(wanted), zone) is None
