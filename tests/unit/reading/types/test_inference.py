"""What a column of text is taken for does not depend on who looked at it: Arrow's quick verdict, or the cast layer."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.program import scaled

from headrace.partitioning.contract import LogicalType
from headrace.reading.csv_reader import _TYPES
from headrace.reading.types import inference
from headrace.reading.types.cast import Caster, connect
from headrace.reading.types.cast_arrow import quick_verdict
from headrace.reading.types.inference import SampledColumn, infer

CASTERS = {zone: Caster(connect(1, zone), zone, "x") for zone in ("UTC", "Europe/Berlin")}
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
    return infer(CASTERS[zone], [column])


@settings(max_examples=scaled(1_000, default=100), deadline=None)
@given(texts(), st.sampled_from(sorted(CASTERS)))
@example(["0001-01-01", "0000-01-01"], "UTC")
@example(["1234567890123456"], "UTC")
@example(["nan"], "UTC")
@example(["1.5", "nan"], "UTC")
def test_a_quick_verdict_is_the_cast_layers(values: list[str | None], zone: str) -> None:
    quick = inferred(values, zone)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inference, "quick_verdict", lambda *_: None)
        assert quick == inferred(values, zone)


@pytest.mark.parametrize(
    ("values", "kind", "verdict"),
    [
        (["Terra", "Aqua"], "float", False),
        (["Terra", "true"], "bool", False),
        (["313", "-5"], "integer", True),
        (["313.5"], "integer", False),
        (["313.5", "1e3"], "float", True),
        (["2022-04-09"], "float", False),
        (["1234567890123456"], "float", False),
        (["2022-04-09"], "date", True),
        (["2022-04-09 10:00"], "date", False),
        (["2022-04-09 10:00"], "timestamp", True),
        (["2022-04-09 10:00", "x"], "timestamp", False),
        ([" 313"], "integer", None),
        (["nan", "1.5"], "float", None),
        (["313"], "decimal", None),
    ],
)
def test_what_is_plain_needs_no_closer_look(values: list[str], kind: LogicalType, verdict: bool | None) -> None:
    assert quick_verdict(pa.chunked_array([pa.array(values)]), kind, "UTC") is verdict
