"""Encoding v1 beyond the golden vectors: equivalent Arrow types, unencodable values, texts of decimals, sizes."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.partitioning import encoding
from headrace.partitioning.encoding import decimal_text, encode, unencodable

CELLS = st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=10)


@given(CELLS, st.sampled_from([pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]))
def test_a_text_has_one_encoding_whatever_arrow_type_holds_it(cells: list[str | None], kind: pa.DataType) -> None:
    assert encode([pa.array(cells, pa.string()).cast(kind)], None).equals(encode([pa.array(cells, pa.string())], None))


@given(st.lists(st.tuples(st.none() | st.text(max_size=3), st.none() | st.text(max_size=3)), min_size=2, unique=True))
def test_different_ascii_rows_have_different_encodings(rows: list[tuple[str | None, str | None]]) -> None:
    ascii_rows = sorted({tuple(None if cell is None else ascii(cell) for cell in row) for row in rows}, key=repr)
    columns = [pa.array(cells, pa.string()) for cells in zip(*ascii_rows, strict=True)]
    assert len(set(encode(columns, "p").to_pylist())) == len(ascii_rows)


def test_unencodable_marks_nan_and_infinities_only() -> None:
    column = pa.array([1.0, float("nan"), None, float("inf"), float("-inf"), -0.0])
    assert unencodable(column).tolist() == [False, True, False, True, True, False]
    assert unencodable(pa.array(["nan", None])).tolist() == [False, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_encode_refuses_what_has_no_encoding(bad: float) -> None:
    with pytest.raises(ValueError, match="reject them first"):
        encode([pa.array([1.0, None, bad])], None)


def test_encode_refuses_an_empty_identity() -> None:
    with pytest.raises(ValueError, match="no identity columns"):
        encode([], "p")


def test_no_rows_encode_to_no_rows() -> None:
    columns = [pa.array([], pa.float64()), pa.array([], pa.string()), pa.array([], pa.decimal128(38, 9))]
    assert encode(columns, "p").to_pylist() == []


@given(st.integers(-(10**20), 10**20), st.integers(-3, 15))
def test_decimal_text_is_the_shortest_plain_text_of_the_number(unscaled: int, scale: int) -> None:
    number = Decimal(unscaled).scaleb(-scale)
    text = decimal_text(pa.array([number, None], pa.decimal128(38, scale)))
    assert text[1].as_py() is None
    plain = text[0].as_py()
    assert Decimal(plain) == number
    whole, _, fraction = plain.removeprefix("-").partition(".")
    assert "E" not in plain
    assert whole == "0" or not whole.startswith("0")
    assert not fraction.endswith("0")
    assert not plain.endswith(".")
    assert plain.startswith("-") == (number < 0)


@given(st.integers(0, 37))
def test_scale_does_not_change_the_encoding_of_a_decimal(scale: int) -> None:
    here, there = (pa.array([Decimal(7), None], pa.decimal128(38, to)) for to in (scale, 0))
    assert encode([here], None).equals(encode([there], None))


def test_more_than_two_gibibytes_go_into_large_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [
        pa.array(["é", None, "x" * 50]),
        pa.array([1.5, None, 2.5]),
        pa.array([Decimal(1), None, Decimal(2)], pa.decimal128(38, 9)),
        pa.array(["a", "b", None]).dictionary_encode(),
        pa.array([b"", None, b"x"]),
    ]
    small = encode(columns, "p")
    monkeypatch.setattr(encoding, "_INT32_OFFSETS", 10)
    large = encode(columns, "p")
    assert large.type == pa.large_binary()
    assert large.to_pylist() == small.to_pylist()


def test_two_gibibytes_are_foreseen_before_they_overflow() -> None:
    rows = 131_072
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 20_000]))
    assert encoding._binary_type([long], None) == pa.large_binary()
    assert encoding._binary_type([pa.array(["x"] * rows)], None) == pa.binary()
