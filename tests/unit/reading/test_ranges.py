"""Ranges of a file, read each by itself, are the file: whatever quotes, line ends and characters stand at a border."""

from __future__ import annotations

import csv
import io
import pickle
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InputChangedError, InputError
from headrace.reading import files, ranges
from headrace.reading.chunk import Chunk
from headrace.reading.inputs import Input, ReadOptions, open_inputs
from headrace.reading.ranges import RangeEnd, Ranges
from headrace.reading.record_borders import next_line, record_end
from headrace.reading.steady_files import InputUnseen

CELLS = st.text(st.sampled_from('ab",\n\r ;é\N{PILE OF POO}'), max_size=6)
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=30)


def opened(path: Path, **options: Any) -> tuple[Input, pa.Schema, ReadOptions]:
    read = ReadOptions(**{"chunk_rows": 4, "types": {"a": "string", "b": "string"}, **options})
    (item,) = open_inputs([path], read, path.parent)
    return item, item.infer(read), read


def read_in_ranges(ranges: Ranges, order: Sequence[int] | None = None) -> list[Chunk]:
    """The chunks, as the coordinator takes them: guesses first, in any `order`, wrong ones read again."""
    reader = pickle.loads(pickle.dumps(ranges.reader))  # noqa: S301 - as another process has it
    parts, found, chunks = ranges.parts, {}, []
    for number in order or range(len(parts)):
        start = reader.start_of(parts[number])
        try:
            found[number] = (start, list(reader.read(parts[number], start)))
        except InputError as error:
            found[number] = (start, [error])
    for number, part in enumerate(parts):
        wanted, (start, items) = ranges.wanted(part), found[number]
        if wanted is None:
            continue
        if wanted.start not in (None, start):
            items = list(reader.read(wanted, reader.start_of(wanted)))
        *some, end = items
        if isinstance(end, InputError):
            raise end
        rows, lines = ranges.take(part, end)
        for chunk in some:
            address = replace(chunk.address, first_row=chunk.address.first_row + rows)
            rejects = [one.behind(rows, lines) for one in chunk.rejects]
            chunks.append(replace(chunk, address=address, rows=chunk.rows + rows, rejects=rejects))
    return chunks


def content(chunks: Sequence[Chunk]) -> tuple[list[Any], list[Any]]:
    """All rows with their numbers, and all rejects with their places."""
    rows = [
        (int(number), *row.values())
        for chunk in chunks
        for number, row in zip(chunk.rows, chunk.batch.to_pylist(), strict=True)
    ]
    return rows, [(one.row, one.line, one.reason, one.raw) for chunk in chunks for one in chunk.rejects]


def assert_equal_to_the_whole(path: Path, **options: Any) -> int:
    item, schema, read = opened(path, **options)
    whole = content(list(item.chunks(schema, read)))
    item, schema, read = opened(path, **options)
    cut = item.ranges(schema, read)
    assert cut is not None
    rows, rejects = content(read_in_ranges(cut))
    assert rows == whole[0]
    located = item.locate([row for row, line, *_ in rejects if line is None])
    placed = [(row, located[row][0] if line is None else line, why, raw) for row, line, why, raw in rejects]
    assert [one[:3] for one in placed] == [one[:3] for one in whole[1]]
    return len(cut.parts)


@given(rows=ROWS, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), end=st.sampled_from(["\n", "\r\n"]))
def test_ranges_of_csv_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], quoting: Any, end: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator=end).writerows([("a", "b"), *rows])
    path.write_bytes(text.getvalue().encode())
    assert_equal_to_the_whole(path)


@given(lines=st.lists(st.text(st.sampled_from('ab",;\r'), max_size=12), min_size=1, max_size=30))
def test_ranges_of_broken_csv_are_the_file(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    """Stray quotes, lone carriage returns, too many and too few fields."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes("".join(f"{line}\n" for line in ["a,b", *lines]).encode())
    assert_equal_to_the_whole(path)


@given(lines=st.lists(st.sampled_from(['{"a": "x", "b": "é"}', '{"a": "\\n", "b": 1}', "", "no", "[]", '{"b": null}'])))
def test_ranges_of_json_lines_are_the_file(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    path.write_bytes("".join(f"{line}\n" for line in ['{"a": "1", "b": "2"}', *lines]).encode())
    assert_equal_to_the_whole(path)


@pytest.mark.parametrize("group", [1, 7, 100])
def test_ranges_of_parquet_are_the_file(tmp_path: Path, group: int) -> None:
    path = tmp_path / "a.parquet"
    rows = [str(number) for number in range(50)]
    pq.write_table(pa.table({"a": rows, "b": rows[::-1]}), path, row_group_size=group)
    assert assert_equal_to_the_whole(path) >= 3


def test_control_a_guess_inside_quotes_is_wrong_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "".join(f'{n},"x\ny,z\n"\n' for n in range(40)))
    item, schema, read = opened(path)
    cut = item.ranges(schema, read)
    assert cut is not None
    right, wrong = {0}, 0
    for part in cut.parts:
        start = cut.reader.start_of(part)
        wrong += start not in right
        right.add(next(one for one in cut.reader.read(part, start) if isinstance(one, RangeEnd)).stop)
    assert wrong > 5
    assert_equal_to_the_whole(path)


def test_a_quote_that_never_closes_ends_the_ranges_as_it_ends_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 30 + '3,"4\n' + "5,6\n" * 30)
    assert_equal_to_the_whole(path)


def test_bytes_that_are_no_text_and_marks_cost_their_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\n" + b"1,2\n\xef\xbb\xbf3,4\n5,\xff\n\n\n7,8\n" * 12)
    assert_equal_to_the_whole(path)


def test_a_range_read_from_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 100)
    item, schema, read = opened(path)
    cut = item.ranges(schema, read)
    assert cut is not None
    ends = []
    for part in cut.parts[:2]:
        ends.append([*cut.reader.read(part, cut.reader.start_of(part))][-1])
        if len(ends) == 1:
            text = path.read_bytes()
            with path.open("r+b") as file:
                file.write(text.replace(b"1,2", b"8,9"))
    cut.take(cut.parts[0], ends[0])
    with pytest.raises(InputChangedError):
        cut.take(cut.parts[1], ends[1])


def test_a_file_that_was_replaced_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 100)
    item, schema, read = opened(path)
    cut = item.ranges(schema, read)
    assert cut is not None
    other = tmp_path / "other.csv"
    other.write_text("a,b\n" + "8,9\n" * 100)
    other.replace(path)
    assert {row[1:] for row in content(read_in_ranges(cut))[0]} == {("1", "2")}


@pytest.mark.parametrize("fate", ["removed", "replaced"])
def test_a_file_that_is_not_held_and_is_gone_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """So many files are not held open: neither a worker nor this process can read them."""
    monkeypatch.setattr(files, "_MOST_HELD", 0)
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("a,b\n" + "1,2\n" * 100)
    other.write_text("a,b\n" + "8,9\n" * 100)
    item, schema, read = opened(path)
    cut = item.ranges(schema, read)
    assert cut is not None
    part = cut.parts[1]
    if fate == "removed":
        path.unlink()
    else:
        other.replace(path)
    with pytest.raises(InputUnseen):
        pickle.loads(pickle.dumps(cut.reader)).start_of(part)  # noqa: S301 - as another process has it
    with pytest.raises(InputError, match="no such file" if fate == "removed" else "was replaced"):
        cut.reader.start_of(part)


def test_what_cannot_be_cut_is_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cr.csv").write_bytes(b"a,b\r1,2\r3,4\r")
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n")
    item, schema, read = opened(tmp_path / "cr.csv")
    assert item.ranges(schema, read) is None
    item, schema, read = opened(tmp_path / "a.csv")
    assert item.ranges(schema, replace(read, select="SELECT * FROM source")) is None
    assert item.ranges(schema, read) is not None
    monkeypatch.setattr(ranges, "SMALLEST", 1 << 20)
    assert item.ranges(schema, read) is None


def test_borders_are_found_however_far_they_are() -> None:
    text = b"a,b\n" + b'1,"' + b"x" * 200_000 + b'\n"\n2,3\n'

    def read(start: int, stop: int) -> bytes:
        return text[start:stop]

    assert next_line(read, 2, len(text)) == 4
    assert next_line(read, 5, len(text)) == text.index(b"\n", 5) + 1
    record = record_end(read, 4, 10, len(text), ",", "a.csv")
    assert bytes(record) == text[4:-4]
    assert bytes(record_end(read, 4, 10, len(text), None, "a.jsonl")) == text[4 : text.index(b"\n", 5) + 1]


def test_ranges_may_be_read_in_any_order(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "".join(f'{n},"{n}\n"\n' for n in range(60)))
    item, schema, read = opened(path)
    cut = item.ranges(schema, read)
    assert cut is not None
    order = random.Random(seed).sample(range(len(cut.parts)), len(cut.parts))
    assert [row[1] for row in content(read_in_ranges(cut, order))[0]] == [str(n) for n in range(60)]
