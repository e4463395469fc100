"""JSON documents cut into their elements: what Python's own parser finds, whatever the size of a value or a block."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InputError
from headrace.reading import json_scanner as module
from headrace.reading.json_brackets import Brackets
from headrace.reading.json_scanner import elements
from headrace.reading.text_stream import Utf8

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


def read(document: str, *, features: bool = False) -> list[Any]:
    stream = Utf8(io.BytesIO(document.encode()))
    return [json.loads(text) for _, text in elements(stream, "x.json", features=features)]


@pytest.fixture(params=["by the scanner", "by brackets"], autouse=True)
def _long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 7)
    if request.param == "by brackets":
        monkeypatch.setattr(module, "_LONG", 0)


@given(values=st.lists(VALUES, max_size=5), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_the_elements_are_those_of_pythons_parser(values: list[Any], indent: int | None, ascii_only: bool) -> None:
    written = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    assert read(written) == values
    feature = f'{{"type": "FeatureCollection", "more": {written}, "features": {written}, "é": {written}}}'
    assert read(feature, features=True) == values


@given(value=st.lists(VALUES) | st.dictionaries(st.text(), VALUES) | st.text(), data=st.data())
def test_brackets_end_a_value_where_it_ends_however_it_is_cut(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value)
    search, follows = Brackets(), ', {"a": "]"}'
    for cut in sorted(data.draw(st.lists(st.integers(0, len(text) - 1), max_size=5))):
        assert search.end(text[:cut], 0) is None
    assert search.end(text + follows, 0) == len(text)


def test_an_integer_of_any_length_is_an_element() -> None:
    """Python converts none of more than 4,300 digits."""
    texts = [text for _, text in elements(Utf8(io.BytesIO(b"[%s]" % (b"7" * 5000))), "x.json", features=False)]
    assert texts == [b"7" * 5000]


@pytest.mark.parametrize("name", [b'"\0\0\0"', b'"\0x\0y"', b'"\x01"', b'"\\ud800"', b'"' + b"x" * 100 + b'"'])
def test_the_name_of_a_member_may_hold_anything(name: bytes) -> None:
    """NULs at its beginning are none of UTF-16 or UTF-32."""
    document = b'{%s: [1], "\\u0066eatures": [2]}' % name
    assert [text for _, text in elements(Utf8(io.BytesIO(document)), "x.json", features=True)] == [b"2"]


@pytest.mark.parametrize("name", [b"7" * 5000, b"[1]", b'{"a":1}', b"null", b'"\\x"', b'"', b""])
def test_what_is_no_name_of_a_member_is_refused(name: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.json, line 1"):
        list(elements(Utf8(io.BytesIO(b'{%s: [1], "features": [2]}' % name)), "x.json", features=True))


def test_a_letter_in_the_wrong_place_is_named_as_it_is() -> None:
    with pytest.raises(InputError, match="there is 'é' where"):
        read("[1 é]")


@pytest.mark.parametrize("filling", ["y", ",1", ",{}", "\\ud83d\\ude00"])
def test_a_value_without_an_end_is_refused_at_the_longest_length(
    filling: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LONGEST", 1000)
    read_so_far = io.BytesIO(('[{"a": ' + ("[1" if filling[0] == "," else '"') + filling * 1000).encode())
    with pytest.raises(InputError, match="no end, or is too long"):
        list(elements(Utf8(read_so_far), "x.json", features=False))
    assert read_so_far.tell() <= 1000 + 2 * 7
