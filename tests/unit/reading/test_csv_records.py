"""Records that are too long for Arrow's parser cost themselves alone, whatever the dialect."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import InputError
from headrace.reading import csv_reader, csv_records, text_stream
from headrace.reading.csv_records import records_of
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.reading.text_stream import Utf8

BLOCK = 600
WORD = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r,;|\t"), max_size=10) | st.just(
    "§\u2028"
)
CELL = WORD | st.builds(lambda word, times: (word or "x") * times, WORD, st.integers(1, 300))
DIALECTS = {
    "delimiter": st.sampled_from(",;\t|"),
    "end": st.sampled_from(["\n", "\r\n"]),
    "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
}


def written(rows: list[tuple[str, ...]], delimiter: str, end: str, quoting: int) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


# a placeholder stands for the delimiter: other candidates in the text would make the dialect a matter of taste
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=25), blank=st.booleans(), **DIALECTS)
def test_a_record_that_is_too_long_costs_itself_alone(
    tmp_path: Path, rows: list[tuple[str, ...]], blank: bool, delimiter: str, end: str, quoting: int
) -> None:
    rows = [tuple(cell.replace("§", delimiter) for cell in row) for row in rows]
    texts = [written([row], delimiter, end, quoting) for row in rows]
    path = tmp_path / ("x.tsv" if delimiter == "\t" else "x.csv")
    head = written([("a", "b", "c")], delimiter, end, quoting)
    path.write_bytes((head + (end if blank else "") + "".join(texts)).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "_BLOCK", BLOCK)
        options = ReadOptions(chunk_rows=7)
        (source,) = open_inputs([path], options, None)
        chunks = list(source.chunks(pa.schema([(name, pa.string()) for name in "abc"]), options))
    good = {
        int(number): tuple(value or "" for value in row.values())
        for chunk in chunks
        if chunk.rows is not None
        for number, row in zip(chunk.rows, chunk.batch.to_pylist(), strict=True)
    }
    refused = {reject.row: reject for chunk in chunks for reject in chunk.rejects}
    assert sorted([*good, *filter(lambda row: row is not None, refused)]) == list(range(len(rows)))
    assert all(good[number] == rows[number] for number in good)
    lengths = [len(text.encode()) for text in texts]
    assert all(lengths[number] > BLOCK for number in refused if number is not None)
    assert all(lengths[number] <= 2 * BLOCK for number in good)
    line = 2 + blank
    for number, text in enumerate(texts):
        if number in refused:
            assert (refused[number].line, refused[number].raw) == (line, text.rstrip("\r\n"))
        line += len(text.encode().splitlines())
    assert sum(chunk.address.rows for chunk in chunks) == len(rows)


@settings(max_examples=100)
@given(st.text(st.sampled_from('a",\n\r é'), max_size=60))
def test_records_end_where_the_csv_module_says(text: str) -> None:
    """Also in text that no writer of CSV would write: stray quotes, quotes that never close, blank lines."""
    ours = [record.decode() for _, record in records_of(Utf8(pa.BufferReader(text.encode())), ",", "x")]
    lines = text.encode().splitlines(keepends=True)
    reader = csv.reader(line.decode() for line in lines)
    theirs, before = [], 0
    for record in reader:
        part = b"".join(lines[before : reader.line_num]).decode()
        before = reader.line_num
        if record:
            theirs.append(part)
    assert ours == theirs


@pytest.mark.parametrize("text", [b"x" * 300, b'a,"' + b"line\n" * 60])
def test_a_line_or_record_without_an_end_does_not_fill_the_memory(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_records, "LONGEST", 100)
    monkeypatch.setattr(csv_records, "_BLOCK", 64)
    with pytest.raises(InputError, match="more than 0 MiB"):
        list(records_of(Utf8(pa.BufferReader(text)), ",", "x"))


def test_the_longest_record_is_longer_than_what_a_reject_must_hold() -> None:
    assert text_stream.LONGEST > 64 << 20
