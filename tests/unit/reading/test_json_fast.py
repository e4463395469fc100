"""Plain JSON goes through Arrow's parser: table, types and rejects are what DuckDB alone makes of the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.program import scaled

from headrace.errors import HeadraceError
from headrace.reading import json_fast, json_reader
from headrace.reading.chunk import Chunk
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.reading.json_fast import plain_objects

TEXTS = pa.schema([("a", pa.string())])
STRINGS = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1) | st.integers(-99, 99),
    "float": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-99, 99),
    "small": st.floats(-1000, 1000).map(lambda value: round(value, 5)),
    "text": STRINGS,
    "time": st.datetimes().map(lambda value: value.isoformat()),
    "bool": st.booleans(),
}
ODD = st.sampled_from(
    [
        *(
            "1.0",
            "-0",
            "-0.0",
            "1e2",
            "1E400",
            "-1e-400",
            "12345678901234567",
            "9223372036854775808",
            "1.0000000000000001",
        ),
        *("NaN", "Infinity", "01", "+1", "1.", ".5", "0x1", "true", "false", "null", '"7"', '"007"', '""', '" "'),
        *(
            '"\\u0000"',
            '"\\ud800"',
            '"\\ud83d\\ude00"',
            '"\\x"',
            '"\u2028"',
            '"}"',
            '"{"',
            "{}",
            "[]",
            '{"b":1}',
            "[1]",
        ),
    ]
)
ODD_LINES = st.sampled_from(
    [
        *("null", "1", "[]", "{}", "", "  ", "{", "}", "}{", '{"a":1}{"a":2}', '{"a":1} null {"a":2}', '{"a":1},'),
        *('{"a":1,"a":2}', '{"a":"x}', '{y"}', '{"late":1}', "{'a':1}", '{"a":1,}', ' {"a":1}\t', '{"a":1}//'),
    ]
)


def read(path: Path, options: ReadOptions) -> tuple[object, ...]:
    """The schema, the rows, and the rejects of a file; or the error that it is."""
    try:
        (source,) = open_inputs([path], options, None)
        schema = source.infer(options)
        chunks: list[Chunk] = list(source.chunks(schema, options))
    except HeadraceError as error:
        return type(error), str(error)
    rows = [row for chunk in chunks for row in chunk.batch.to_pylist()]
    numbers = [number for chunk in chunks for number in (chunk.rows if chunk.rows is not None else []).tolist()]
    return schema, repr(rows), numbers, [reject for chunk in chunks for reject in chunk.rejects]


def without_arrow(path: Path, options: ReadOptions) -> tuple[object, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reader, "plain_objects", lambda *_: None)
        return read(path, options)


@st.composite
def files(draw: st.DrawFn) -> str:
    """Lines of objects whose members are of a kind each, with more or less that is not."""
    members = draw(
        st.dictionaries(st.sampled_from(["a", "b", "", "é", 'q"']), st.sampled_from(sorted(KINDS)), min_size=1)
    )
    odd, absent = draw(st.sampled_from([0.0, 0.0, 0.05])), draw(st.sampled_from([0.0, 0.2]))
    chance = draw(st.randoms(use_true_random=False))
    lines = []
    for _ in range(draw(st.integers(1, 30))):
        if chance.random() < odd:
            lines.append(draw(ODD_LINES))
            continue
        values = {
            name: json.dumps(draw(KINDS[kind]), ensure_ascii=chance.random() < 0.5) for name, kind in members.items()
        }
        values = {name: draw(ODD) if chance.random() < odd else value for name, value in values.items()}
        kept = {name: value for name, value in values.items() if chance.random() >= absent}
        lines.append("{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in kept.items()) + "}")
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n"]))


@settings(
    max_examples=scaled(500, default=8), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=files(), first=st.integers(1, 12), block=st.integers(16, 400))
def test_a_file_reads_the_same_with_and_without_arrows_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, first: int, block: int
) -> None:
    monkeypatch.setattr(json_reader, "_FIRST_ROWS", first)
    monkeypatch.setattr(json_reader, "_BLOCK", block)
    path = tmp_path / "x.jsonl"
    path.write_text(text, newline="")
    assert read(path, ReadOptions()) == without_arrow(path, ReadOptions())


@settings(
    max_examples=scaled(300, default=5), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=files(),
    kinds=st.lists(st.sampled_from(["integer", "float", "string", "timestamp", "bool", "decimal"]), min_size=5),
)
def test_so_it_does_into_any_types(tmp_path: Path, text: str, kinds: Sequence[Any]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text, newline="")
    (source,) = open_inputs([path], ReadOptions(), None)
    try:
        names = source.infer(ReadOptions()).names
    except HeadraceError:
        return
    options = ReadOptions(types=dict(zip(names, kinds, strict=False)))
    assert read(path, options) == without_arrow(path, options)


@pytest.mark.parametrize(
    "lines",
    [
        ["null"],
        ['{"a":"x"}', "null"],
        ['{"a":"1"}{"a":"2"}'],
        ['{"a":"1"}{"a":"2"}', '{"a":"x}', '{y"}'],
        ['{"a":"1"}null{"a":"2"}'],
        ['{"a":"1","a":"2"}'],
        ['{"a":null,"a":"2"}'],
        ['{"a":"1","late":"2"}'],
        ['{"a":"1","late":null}'],
        ['{"a":1}'],
        ['{"a":{"b":"c"}}'],
        ['{"a":"\\ud800"}'],
        ["{"],
        ["{}}"],
        ["{{}"],
        [],
    ],
)
def test_what_is_not_one_plain_object_each_is_left_to_duckdb(lines: list[str]) -> None:
    assert plain_objects(pa.chunked_array([lines], pa.string()), {"a": pa.string()}) is None


def test_a_reject_of_a_plain_piece_shows_its_numbers_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        "".join(f'{{"n":{number},"f":1.00e-7,"t":"{number}"}}\n' for number in range(50)) + '{"n":1,"f":2e-7,"t":"x"}\n'
    )
    options = ReadOptions(types={"t": "integer"})
    *_, (reject,) = read(path, options)
    assert reject.line == 51
    assert read(path, options) == without_arrow(path, options)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e15", "1e400", "123456789012345678"])
def test_a_float_whose_text_matters_is_left_to_duckdb(number: str) -> None:
    texts = pa.chunked_array([[f'{{"a":{number}}}', '{"a":1.5}']], pa.string())
    assert plain_objects(texts, {"a": pa.float64()}) is None
    assert plain_objects(texts.slice(1), {"a": pa.float64()}) is not None


def test_a_plain_file_is_read_by_arrow_and_one_that_is_not_gives_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this, all the others would hold where nothing is ever plain."""
    tried: list[bool] = []

    def counted(*given: Any) -> pa.Table | None:
        table = json_fast.plain_objects(*given)
        tried.append(table is not None)
        return table

    monkeypatch.setattr(json_reader, "plain_objects", counted)
    monkeypatch.setattr(json_reader, "_BLOCK", 1 << 10)
    path = tmp_path / "x.jsonl"
    rows = [{"a": number, "f": number / 4, "s": str(number), "b": number % 2 == 0, "t": None} for number in range(1000)]
    plain = [{key: value for key, value in row.items() if value is not None} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in plain))
    read(path, ReadOptions())
    assert all(tried)
    assert len(tried) > 50
    tried.clear()
    sample = path.read_text()
    monkeypatch.setattr("headrace.reading.sampled_blocks._SAMPLE_ROWS", 100)
    monkeypatch.setattr("headrace.reading.sampled_blocks._SAMPLE_BYTES", 1000)
    path.write_text(sample + sample.replace('"a": ', '"a": 0.5, "x": '))
    read(path, ReadOptions())
    assert tried.count(False) == 3
