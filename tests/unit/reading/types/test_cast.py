"""Casts are exact or refused: each type against an oracle that is not DuckDB, and a table of the borderline cases."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, partial

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigurationError, SchemaError
from headrace.partitioning.contract import LogicalType
from headrace.reading.sql import connect
from headrace.reading.types.arrow_types import canonical_type
from headrace.reading.types.cast import Caster

CASTERS = {zone: Caster(cache(partial(connect, 1, zone)), zone, "x") for zone in ("UTC", "Europe/Berlin")}
NUMERIC = st.text("0123456789+-.eE_xnaif ", max_size=12)


def cast(values: pa.Array, wanted: LogicalType, zone: str = "UTC") -> list[object]:
    """The cast values, and the reason in place of each that was refused."""
    table, bad = CASTERS[zone].cast(pa.table({"v": values}), pa.schema([("v", canonical_type(wanted))]))
    out: list[object] = table.column("v").to_pylist()
    for value in bad:
        assert out[value.index] is None
        out[value.index] = f"refused: {value.reason}"
    return out


def one(text: str, wanted: LogicalType, zone: str = "UTC") -> object:
    return cast(pa.array([text], pa.string()), wanted, zone)[0]


def refused(value: object) -> bool:
    return isinstance(value, str) and value.startswith("refused")


@settings(max_examples=300, deadline=None)
@given(st.lists(NUMERIC | st.integers().map(str) | st.decimals(allow_nan=False).map(str), min_size=1, max_size=20))
def test_an_integer_is_the_exact_value_of_its_text_or_refused(texts: list[str]) -> None:
    for text, got in zip(texts, cast(pa.array(texts, pa.string()), "integer"), strict=True):
        if text.strip() == "":
            assert got is None
        elif not refused(got):
            assert Decimal(text.strip()) == got, text
        elif re.fullmatch(r"[+-]?(0|[1-9][0-9]*)", text.strip()):
            assert not -(2**63) <= int(text) < 2**63, text


@settings(max_examples=300, deadline=None)
@given(st.lists(NUMERIC | st.floats().map(str), min_size=1, max_size=20))
@example(["+-0", "+-1.5", "+-1e3", "+-inf"])
def test_a_float_is_what_python_reads_or_refused(texts: list[str]) -> None:
    for text, got in zip(texts, cast(pa.array(texts, pa.string()), "float"), strict=True):
        try:
            wanted: float | None = float(text) if "_" not in text else None
        except ValueError:
            wanted = None
        overflowed = wanted in (float("inf"), float("-inf")) and "inf" not in text.lower()
        if text.strip() == "":
            assert got is None
        elif wanted is None or overflowed:
            assert refused(got), text
        else:
            assert got == wanted or str(got) == str(wanted) == "nan", text


@settings(max_examples=100, deadline=None)
@given(
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 30)),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["T", " "]),
)
def test_a_timestamp_with_an_offset_is_that_instant(moment: datetime, minutes: int, between: str) -> None:
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    text = f"{moment.isoformat(between)}{sign}{hours:02d}:{rest:02d}"
    assert one(text, "timestamp", "Europe/Berlin") == (moment - timedelta(minutes=minutes)).replace(tzinfo=UTC)
    assert one(moment.isoformat(between), "timestamp") == moment.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2022-07-01 12:00:00", "2022-07-01T10:00"),
        ("2022-01-01T12:00", "2022-01-01T11:00"),
        ("2022-10-30 02:30:00", "2022-10-30T00:30"),  # comes twice: the earlier
        ("2022-10-30 01:59:00", "2022-10-29T23:59"),
        ("2022-10-30 03:00:00", "2022-10-30T02:00"),
        ("2022-03-27 01:59:00", "2022-03-27T00:59"),
        ("2022-03-27 02:30:00", None),  # skipped
        ("2022-03-27 03:00:00", "2022-03-27T01:00"),
    ],
)
def test_a_time_without_a_zone_is_read_in_the_zone_given(text: str, hour: str | None) -> None:
    got = one(text, "timestamp", "Europe/Berlin")
    assert refused(got) if hour is None else got == datetime.fromisoformat(hour).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        (
            "integer",
            ["0", "-5", "+4", " 12 ", "313.0", "1e3", "1.5e1", "5."],
            ["007", "305.41", "0x1A", "1_000", "1e-1"],
        ),
        ("integer", ["9223372036854775807"], ["9223372036854775808", "1,5", "true", "NaN", "12345678901234567e0"]),
        ("float", ["1", ".5", "1e5", "nan", "-Infinity"], ["1e400", "0x1p3", "1_0", "1,5", "1 2", "nan(1)x"]),
        ("bool", ["true", "F", "yes", "N", "1", "0"], ["2", "wahr", "tr"]),
        ("date", ["2022-04-09", " 2024-02-29 "], ["2022-02-29", "2022-4-9", "2022/04/09", "2022-04-09T00:00:00"]),
        ("timestamp", ["2022-04-09", "2022-04-09T00:18Z", "2022-04-09 00:18:00.123456000+0200"], ["epoch", "infinity"]),
        (
            "timestamp",
            ["2022-04-09T00:18+05", "2022-04-09T00:18-2359"],
            ["2022-04-09T00:18+99:99", "2022-04-09T00:18-0060"],
        ),
        ("timestamp", ["2022-04-09 00:18:00 UTC"], ["2022-04-09T00:18:00.1234567Z", "2022-13-01", "20220409", "12:00"]),
        ("decimal", ["1.123456789", "1.5000000000000", ".5", "1e3", "1e-05"], ["1.1234567891", "1e-12", "x", "."]),
        ("string", ["", " x ", "\x00"], []),
        ("bytes", ["é"], []),
    ],
)
def test_what_each_type_accepts_as_text(wanted: LogicalType, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if refused(one(text, wanted)) or one(text, wanted) is None] == []
    assert [text for text in bad if not refused(one(text, wanted))] == []


@pytest.mark.parametrize(
    ("values", "wanted", "got"),
    [
        (pa.array([313.0, 2.0**62]), "integer", [313, 2**62]),
        (pa.array([305.5, 2.0**63, float("nan")]), "integer", None),
        (pa.array([5]), "float", [5.0]),
        (pa.array([2**53 + 1]), "float", None),
        (pa.array([7, 2**63 - 1], pa.uint64()), "integer", [7, 2**63 - 1]),
        (pa.array([2**63], pa.uint64()), "integer", None),
        (pa.array([2000], pa.timestamp("ns", "America/New_York")), "timestamp", [datetime.fromtimestamp(2e-6, UTC)]),
        (pa.array([1], pa.timestamp("ns")), "timestamp", None),
        (pa.array([1], pa.timestamp("s")), "string", ["1970-01-01T00:00:01.000000"]),
        (pa.array([2**62], pa.timestamp("s")), "timestamp", None),
        (pa.array(["a", None, "b"]).dictionary_encode(), "string", ["a", None, "b"]),
        (pa.array([{"x": [1]}]), "string", ['{"x":[1]}']),
        (pa.array([b"a"]), "string", ["a"]),
        (pa.array([b"\xff"]), "string", None),
        (pa.array([Decimal("5.00")]), "integer", [5]),
        (pa.array([Decimal("5.01")]), "integer", None),
        (pa.array([0.1]), "decimal", [Decimal("0.1")]),
        (pa.array([1e-10]), "decimal", None),
        (pa.array([1.5], pa.float16()), "float", [1.5]),
        (pa.array([Decimal(1200)], pa.decimal128(4, -2)), "decimal", [Decimal(1200)]),
        (pa.array([Decimal(1200)], pa.decimal128(4, -2)), "integer", [1200]),
        (pa.array([10**12], pa.duration("ns")), "string", ["00:16:40"]),
        (pa.array([90_001], pa.duration("ms")), "string", ["00:01:30.001"]),
        (pa.array([1, 999], pa.duration("ns")), "string", None),
        (pa.array(["a", None, "a"], pa.string_view()).dictionary_encode(), "string", ["a", None, "a"]),
        (pa.nulls(1), "integer", [None]),
    ],
)
def test_typed_values_are_cast_by_value(values: pa.Array, wanted: LogicalType, got: list[object] | None) -> None:
    result = cast(values, wanted)
    assert all(refused(value) for value in result) if got is None else result == got


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array([[1]]), "integer"),
        (pa.array([datetime(2022, 1, 1, tzinfo=UTC)]), "float"),
        (pa.array([True]), "date"),
        (pa.array([True]), "integer"),
        (pa.array([1]), "timestamp"),
    ],
)
def test_types_without_a_sensible_cast_are_named(values: pa.Array, wanted: LogicalType) -> None:
    with pytest.raises(SchemaError, match=rf"'v' has the type .* cannot become {wanted}"):
        cast(values, wanted)


def test_an_unknown_time_zone_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="Nowhere"):
        connect(1, "Nowhere/Land")


def test_columns_that_differ_in_case_alone_stay_apart() -> None:
    schema = pa.schema([("A", pa.int64()), ("a", pa.int64()), ("missing", pa.string())])
    table, bad = CASTERS["UTC"].cast(pa.table({"a": ["1"], "A": ["2"]}), schema)
    assert (table.to_pylist(), bad) == ([{"A": 2, "a": 1, "missing": None}], [])
