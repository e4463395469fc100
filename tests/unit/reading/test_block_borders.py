"""A file's blocks end where they will: what lies across such a border arrives whole, in every format.

The oracle is a plain reader of the standard library: `csv`, `json`, `gzip`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.program import scaled

from headrace.reading import csv_reader, csv_records, json_reader, json_scanner, text_stream
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.storage.rejects import Reject

Rows = list[tuple[str, ...]]
# what is more than one byte and means one thing
MARKS = [
    "\r\n",
    "\r",
    "\n",
    "\r\r\n\n",
    '"',
    '""',
    'x"\r\n"y',
    ",",
    "é",
    "€",
    "😀",
    "é\r\n€",
    "\ufeff",
    "\\",
    '\\"',
    "\u2028",
]
ENDS = ["\n", "\r\n", "\r"]
VALUE = st.text(st.sampled_from('a\r\n",\\é€😀\ufeff\u2028{}[]:/\t'), min_size=1, max_size=9)
PARTS = st.lists(st.floats(0, 1), max_size=3)


def read(path: Path, chunk_rows: int = 1000) -> tuple[Rows, list[Reject]]:
    options = ReadOptions(types={"a": "string", "b": "string"}, chunk_rows=chunk_rows)
    (source,) = open_inputs([path], options, None)
    chunks = list(source.chunks(pa.schema([("a", pa.string()), ("b", pa.string())]), options))
    rows = [
        tuple("" if cell is None else cell for cell in row.values()) for one in chunks for row in one.batch.to_pylist()
    ]
    return rows, [reject for one in chunks for reject in one.rejects]


def written(rows: Rows, end: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([("a", "b"), *rows])
    return text.getvalue().encode()


def packed(data: bytes, suffix: str, cuts: list[float]) -> bytes:
    """`data` compressed in several members, which end anywhere."""
    places = [0, *sorted(round(cut * len(data)) for cut in cuts), len(data)]
    parts = [data[begin:end] for begin, end in pairwise(places)]
    if suffix == ".gz":
        return b"".join(gzip.compress(part) for part in parts)
    if suffix == ".zst":
        return b"".join(pa.compress(part, codec="zstd", asbytes=True) for part in parts)
    return data


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("mark", MARKS)
def test_whatever_lies_at_the_border_of_a_csv_block_arrives_whole(
    tmp_path: Path, mark: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # every offset of the mark meets a border: each block is one byte off the last record
    rows = [("x" * (number % 31), mark) for number in range(70)]
    path = tmp_path / "x.csv"
    path.write_bytes(written(rows, end))
    for block in (96, 97):
        monkeypatch.setattr(csv_reader, "_BLOCK", block)
        assert read(path) == (rows, [])


def test_a_line_end_within_a_value_arrives_whole_at_the_real_border(tmp_path: Path) -> None:
    """As it was found: CRLF in a quoted value of a file of several blocks."""
    rows = [(str(number), "\r\n" * 200) for number in range(11_000)]
    path = tmp_path / "x.csv"
    path.write_bytes(written(rows, "\n"))
    assert path.stat().st_size > csv_reader._BLOCK
    assert read(path, 100_000) == (rows, [])


@settings(max_examples=scaled(120, default=15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=12),
    end=st.sampled_from(ENDS),
    suffix=st.sampled_from(["", ".gz", ".zst"]),
    block=st.integers(40, 90),
    small=st.integers(2, 50),
    cuts=PARTS,
)
def test_csv_is_read_as_the_csv_module_reads_it(
    tmp_path: Path, rows: Rows, end: str, suffix: str, block: int, small: int, cuts: list[float]
) -> None:
    data = written(rows, end)
    path = tmp_path / f"x.csv{suffix}"
    path.write_bytes(packed(data, suffix, cuts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "_BLOCK", block)
        patch.setattr(csv_records, "_BLOCK", small)
        patch.setattr(text_stream, "_BLOCK", small)
        found, refused = read(path, chunk_rows=small)
    theirs = list(csv.reader(io.StringIO(data.decode(), newline="")))[1:]
    too_long = {reject.row for reject in refused}
    assert found == [tuple(row) for number, row in enumerate(theirs) if number not in too_long]
    assert all("longer than" in reject.reason for reject in refused)
    assert all(len(written([rows[row]], end)) - len(written([], end)) > block for row in too_long if row is not None)


@settings(max_examples=scaled(40, default=8), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=8),
    shape=st.sampled_from(["jsonl", "json", "geojson"]),
    suffix=st.sampled_from(["", ".gz", ".zst"]),
    escaped=st.booleans(),
    sizes=st.tuples(st.integers(5, 60), st.integers(2, 40), st.sampled_from([0, 10, 4 << 20]), st.integers(1, 5)),
    cuts=PARTS,
)
def test_json_is_read_as_the_json_module_reads_it(
    tmp_path: Path, rows: Rows, shape: str, suffix: str, escaped: bool, sizes: tuple[int, ...], cuts: list[float]
) -> None:
    objects = [json.dumps({"a": a, "b": b}, ensure_ascii=escaped) for a, b in rows]
    text = {
        "jsonl": "\n".join(objects),
        "json": f"[{', '.join(objects)}]",
        "geojson": '{"name": "\\"\\ud83d\\ude00", "features": ['
        + ",\r\n".join(f'{{"type": "Feature", "properties": {one}}}' for one in objects)
        + "]}",
    }[shape]
    path = tmp_path / f"x.{shape}{suffix}"
    path.write_bytes(packed(text.encode(), suffix, cuts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reader, "_BLOCK", sizes[0])
        patch.setattr(json_scanner, "_BLOCK", sizes[1])
        patch.setattr(json_scanner, "_LONG", sizes[2])
        patch.setattr(json_reader, "_PIECE_ROWS", sizes[3])
        assert read(path, chunk_rows=sizes[3]) == ([tuple(json.loads(one).values()) for one in objects], [])


@pytest.mark.parametrize("block", [48, 4 << 20])
@pytest.mark.parametrize(
    ("text", "whole", "refused"),
    [
        ('1,a\n2,"b', 1, [1]),
        ('1,a\n2,"b\n3,c\n', 1, [1]),
        ('1,a\n2,"', 1, [1]),
        ('1,a\n2,"b""', 1, [1]),
        ('1,a\n2,"b\r', 1, [1]),
        ('1,a\n2,""', 2, []),
        ('1,a\n2,""""', 2, []),
        ('1,a"\n2,"b\n"\n', 2, []),  # a quote within a cell is a character
        ('1,a"\n2,"\n"', 2, []),
        ('1,"a\n"\n2\n3,"', 1, [1, 2]),
        ('1,"\n"\n"open', 1, [1]),  # the good record before it is none the worse
    ],
)
def test_a_quote_that_never_closes_costs_the_record_where_it_opens(
    tmp_path: Path, text: str, whole: int, refused: list[int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_reader, "_BLOCK", block)
    path = tmp_path / "x.csv"
    path.write_bytes(f"a,b\n{text}".encode())
    rows, rejects = read(path)
    assert (len(rows), [reject.row for reject in rejects]) == (whole, refused)
