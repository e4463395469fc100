"""What a column of text is taken for: the first type that all of its values are meant as, however many there are."""

from __future__ import annotations

import math
import re
from functools import cache, partial
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.program import scaled

from headrace.partitioning.contract import LogicalType
from headrace.reading.csv_reader import _TYPES
from headrace.reading.sql import connect
from headrace.reading.types.arrow_types import canonical_type
from headrace.reading.types.cast import Caster
from headrace.reading.types.inference import SampledColumn, infer

CASTERS = {zone: Caster(cache(partial(connect, 1, zone)), zone, "x") for zone in ("UTC", "Europe/Berlin")}
PADS = st.sampled_from(["", "", "", "", " ", "\t", "\r\n", "\v", "\f", "\u00a0", "\u2003"])
WORDS = st.sampled_from(
    ["true", "FALSE", "True", "tRUE", "fal\u017fe", "t", "yes", "0", "1", "Terra", "N", "nan", "-inf", "x"]
)
WHOLE = st.integers(-(10**17), 10**17).map(str) | st.integers(0, 999).map("{:04d}".format)
SIGNED = st.integers(0, 10**9).map("+{}".format) | st.sampled_from(["-0", "+-1", "--1", "0x1F", "1_000"])
REAL = st.floats(-1e20, 1e20).map(str) | st.sampled_from(
    ["5.", ".5", "1e5", "1E400", "1e-400", "0.0", "00.5", "0056.1"]
)
DAYS = st.dates().map(str) | st.sampled_from(["2021-02-29", "0000-01-01", "2021-1-1", "10000-01-01", "2021-13-01"])
TIMES = st.datetimes().map(str) | st.sampled_from(
    ["2021-01-01T00:00", "2021-01-01 00:00:00Z", "2021-01-01T24:00:00", "2021-01-01 00:00+02:00", "2021-03-28 02:30:00"]
)
KINDS = (WORDS, WHOLE, SIGNED, REAL, DAYS, TIMES, st.text("0123456789+-.eE:TZ ", max_size=12))


@st.composite
def texts(draw: st.DrawFn) -> list[str | None]:
    """A column of one kind, or of several; some values with blanks around them."""
    kind = draw(st.sampled_from(KINDS) | st.just(st.one_of(*KINDS)))
    values = draw(st.lists(st.none() | kind, max_size=8))
    padded = draw(st.booleans())
    return [value if value is None or not padded else draw(PADS) + value + draw(PADS) for value in values]


def inferred(values: list[str | None], zone: str) -> Any:
    column = SampledColumn("v", [pa.chunked_array([pa.array(values, pa.string())])], _TYPES)
    return infer(CASTERS[zone], [column])[0]


def meant(values: list[str | None], zone: str) -> LogicalType:
    """The type by the rules, one value after another."""
    texts = [value for value in values if value is not None and value.strip()]

    def cast(kind: LogicalType) -> pa.ChunkedArray | None:
        table, bad = CASTERS[zone].cast(pa.table({"v": texts}), pa.schema([("v", canonical_type(kind, 0))]))
        return None if bad else table.column("v")

    def matches(pattern: str) -> bool:
        return any(re.search(pattern, text.strip(" \t\n\f\r")) for text in texts)

    if texts and all(text.strip(" ") in {"true", "false"} for text in map(ascii_lower, texts)):
        return "bool"
    if texts and cast("integer") is not None and not matches(r"[.eE]|^ *([+-]?0[0-9]+|\+[0-9]{7,}) *$"):
        return "integer"
    numbers = cast("float") if texts else None
    named = matches(r"^ *([+-]?(0[0-9].*|[0-9]{16,})|\+[0-9]{7,}) *$")
    if numbers is not None and not named and any(map(math.isfinite, numbers.to_pylist())):
        return "float"
    return next((kind for kind in ("date", "timestamp") if texts and cast(kind) is not None), "string")


def ascii_lower(text: str) -> str:
    return re.sub("[A-Z]", lambda letter: letter[0].lower(), text)


@settings(max_examples=scaled(1_000, default=100), deadline=None)
@given(texts(), st.sampled_from(sorted(CASTERS)))
@example(["0001-01-01", "0000-01-01"], "UTC")
@example(["1234567890123456"], "UTC")
@example(["nan"], "UTC")
@example(["1.5", "nan"], "UTC")
@example(["nan"] * 20 + ["1.5"], "UTC")
@example(["1"] * 2_000 + ["x"], "UTC")
def test_a_column_is_what_all_its_values_are_meant_as(values: list[str | None], zone: str) -> None:
    assert inferred(values, zone) == canonical_type(meant(values, zone), 0)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["Terra", "true"], "string"),
        (["true", " FALSE "], "bool"),
        (["t", "f"], "string"),
        (["313", "-5"], "integer"),
        ([" 313"], "integer"),
        (["313.0"], "float"),
        (["313.5", "1e3"], "float"),
        (["nan", "1.5"], "float"),
        (["nan"], "string"),
        (["0056"], "string"),
        (["+4915112345678"], "string"),
        (["1234567890123456"], "integer"),
        (["1234567890123456", "1.5"], "string"),
        (["2022-04-09"], "date"),
        (["2022-04-09", "2022-04-09 10:00"], "timestamp"),
        (["2022-04-09 10:00", "x"], "string"),
        (["", None], "string"),
    ],
)
def test_what_columns_of_text_are_taken_for(values: list[str | None], kind: LogicalType) -> None:
    assert inferred(values, "UTC") == canonical_type(kind, 0)
