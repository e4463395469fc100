"""A quick cast is the cast layer's own answer, or none: the two side by side over plain, odd and mixed columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import casting
from headrace.casting import Caster, canonical_type, connect
from headrace.partitioning.contract import LogicalType
from headrace.quickcast import quick_cast

CASTERS = {zone: Caster(connect(1, zone), zone, "x") for zone in ("UTC", "Europe/Berlin")}
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


def both_ways(values: list[str | None], wanted: LogicalType, zone: str) -> tuple[Any, Any]:
    table = pa.table({"v": pa.array(values, pa.string())})
    schema = pa.schema([("v", canonical_type(wanted))])
    quick = CASTERS[zone].cast(table, schema)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(casting, "quick_cast", lambda *_: None)
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
