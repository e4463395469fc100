"""Ranges of an input, which workers read by themselves: the coordinator sees where they lie, and none of their rows.

    file ──► ranges ──► a worker: records that begin in it ──► typed chunks, counted from 0
                        the coordinator: does it begin where the one before it ended? ──► rows and lines counted on
                                                                       └─ no ──► read again from there

Uncompressed CSV and JSON lines are cut at bytes, Parquet into rows of one row group. The cuts depend on the file's
content and the options alone, so that a resumed run finds its earlier chunks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import xxhash

from headrace.reading.chunk import Chunk, one_batch, without_absent
from headrace.reading.columnar import ParquetReader, RowGroupReader
from headrace.reading.csv_reader import CsvReader, Dialect
from headrace.reading.json_reader import JsonReader, Members
from headrace.reading.reader import Reader, cut
from headrace.reading.record_borders import count_lines, next_line, record_end
from headrace.reading.sql import connect
from headrace.reading.steady_files import FileFacts, Pass, RangesRead, Steady
from headrace.reading.text_stream import Excerpt, is_compressed, readable
from headrace.reading.typed_blocks import TypedBlock, TypedBlocks, joined
from headrace.storage.records import Address

if TYPE_CHECKING:
    import duckdb

__all__ = ["FIRST_ROWS", "Range", "RangeEnd", "RangeReader", "RangeReading", "Ranges", "ranges_of"]

SMALLEST = 4 << 20  # bytes of a file that is cut: a smaller one is read before workers have started
LARGEST = 32 << 20  # bytes of text that a worker holds at once, beside what it makes of them
_HEAD = 1 << 18  # bytes, from which the length of a row is told
_TYPED = 3  # times the bytes of a text are those of the text and of its typed rows
_FULL = 0.9  # of a chunk's rows: ranges of text are cut by the mean length of a row
# of a first range or a sequential run's first chunk, at most: nothing is written while it is read (decision 28)
FIRST_ROWS = 32_768
GROUP_CHUNKS = 8  # of a row group that are read at once: whoever reads its second half decodes the first one too


class Range(NamedTuple):
    """A part of a file: the records that begin in the bytes `low` to `high`; or, with `group`, those rows of a Parquet
    file's row group. Its rows take about `size` bytes of memory. `start` is where the first record begins, ``None``
    where that must be found.
    """

    low: int
    high: int
    size: int
    group: int | None = None
    start: int | None = None


class RangeEnd(NamedTuple):
    """What is known of a range once it was read: the bytes that its records take, with their digest, how many rows and
    lines they are, and the file's facts afterwards.
    """

    start: int
    stop: int
    digest: bytes
    rows: int
    lines: int
    facts: FileFacts


@dataclass(frozen=True, slots=True)
class RangeReading:
    """How the ranges of the input `name` are read: `own` are its columns, `schema` the table's; a chunk has
    `chunk_rows` rows at most.
    """

    name: str
    schema: pa.Schema
    own: frozenset[str]
    chunk_rows: int
    timezone: str
    threads: int


@dataclass(frozen=True, slots=True)
class RangeReader:
    """Reads ranges of one file, in whatever process of this machine. `known` is the dialect of CSV, what is known of
    JSON's members, or nothing for Parquet.
    """

    file: Steady
    how: RangeReading
    known: Dialect | Members | None

    @property
    def name(self) -> str:
        """The input's name."""
        return self.how.name

    def start_of(self, part: Range) -> int:
        """Where the first record of a range begins. Raises `InputUnseen` where this process cannot open the file."""
        if part.start is not None or not part.low or part.group is not None:
            return part.start or part.low
        with readable(self.name), self.file.opened_for_range() as source:
            return next_line(source.read_at, part.low, self.file.size)

    def read(self, part: Range, start: int) -> Generator[Chunk | RangeEnd, None, None]:
        """The chunks of a range that begins at `start`, rows and lines counted from there, and at last its end.

        Raises `InputError`, and `InputUnseen` where this process cannot open the file.
        """
        with readable(self.name), self.file.opened_for_range() as source:
            if part.group is not None:
                yield from self._read_group(source, part, part.group)
            elif start < part.high:
                yield from self._read_text(source, part, start)
            else:
                yield RangeEnd(start, start, xxhash.xxh3_128_digest(b""), 0, 0, source.facts)

    def _read_text(self, source: Pass, part: Range, start: int) -> Iterator[Chunk | RangeEnd]:
        delimiter = self.known.delimiter if isinstance(self.known, Dialect) else None
        text = record_end(source.read_at, start, part.high, self.file.size, delimiter, self.name)
        end = RangeEnd(
            start,
            start + len(text),
            xxhash.xxh3_128_digest(text),
            0,
            count_lines(text, carriage_returns=delimiter is not None),
            source.facts,
        )
        reader = self._text_reader(Excerpt(text, self.name, at_start=not start))
        blocks = self._typed(reader)
        parts = [blocks.part(block, self.how.schema, late=True) for block in reader.pieces()]
        yield from self._chunks(parts)
        yield end._replace(rows=sum(one.span for one in parts))

    def _text_reader(self, excerpt: Excerpt) -> Reader:
        if isinstance(self.known, Dialect):
            dialect = self.known if excerpt.at_start else replace(self.known, header=False)
            return CsvReader(excerpt, self.name, dialect.delimiter, dialect)
        return JsonReader(excerpt, self.name, "lines", self._connect, self.known)

    def _read_group(self, source: Pass, part: Range, group: int) -> Iterator[Chunk | RangeEnd]:
        reader = RowGroupReader(source, self.name, group, part.low, part.high)
        blocks, rows = self._typed(reader), part.high - part.low
        parts: list[TypedBlock] = []
        for block in cut(reader.pieces(), -(-rows // _chunks_in(rows, self.how.chunk_rows)), sys.maxsize):
            if block is not None:
                parts.append(blocks.part(block, self.how.schema, late=True))
                continue
            yield from self._chunks(parts)
            parts = []
        start, stop = reader.extent
        yield RangeEnd(start, stop, source.digest_of(start, stop), rows, 0, source.facts)

    def _typed(self, reader: Reader) -> TypedBlocks:
        return TypedBlocks(reader, self.name, self._connect, self.how.timezone)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        return _connection(self.how.threads, self.how.timezone)

    def _chunks(self, parts: Sequence[TypedBlock]) -> Iterator[Chunk]:
        """The rows in chunks of equal size."""
        if not parts:
            return
        whole = joined(parts)
        count = _chunks_in(whole.span, self.how.chunk_rows)
        for number in range(count):
            first, end = (whole.first_row + whole.span * at // count for at in (number, number + 1))
            some = whole if count == 1 else whole.between(first, end)
            chunk = Chunk(Address(self.name, first, end - first), one_batch(some.table), some.rows, some.rejects)
            yield without_absent(chunk, self.how.own)


@cache
def _connection(threads: int, timezone: str) -> duckdb.DuckDBPyConnection:
    """One for each process: the columns that need it are few."""
    return connect(threads, timezone)


def _chunks_in(rows: int, chunk_rows: int) -> int:
    return max(1, -(-rows // chunk_rows))


class Ranges:
    """The ranges of an input, in order, and how far they were read."""

    def __init__(self, reader: RangeReader, parts: Sequence[Range]) -> None:
        self.reader = reader
        self.parts = parts
        self.share = 0.0
        self.heard: Callable[[int], None] = lambda _: None
        """Called with the rows of each range that was read."""
        self._read = RangesRead(reader.file)
        self._next = self._rows = self._lines = self._taken = 0

    def wanted(self, part: Range) -> Range | None:
        """The range as it must be read: from where the last one ended; ``None`` if no record begins in it."""
        if part.group is not None:
            return part
        return None if self._next >= part.high else part._replace(start=self._next)

    def take(self, part: Range, end: RangeEnd) -> tuple[int, int]:
        """Note that `part` was read as `wanted`; returns the rows and the lines before it. Raises `InputChangedError`,
        or `InputError` for a last line that may be cut.
        """
        before, text = (self._rows, self._lines), part.group is None
        self._rows, self._lines = self._rows + end.rows, self._lines + end.lines
        self._next = end.stop
        with readable(self.reader.name):
            self._read.take(end.start, end.stop, end.digest, end.facts)
            if end.stop >= self.reader.file.size if text else part == self.parts[-1]:
                self._read.finish(lines=text)
        self._taken = self.parts.index(part, self._taken) + 1
        self.share = self._taken / len(self.parts)
        self.heard(end.rows)
        return before


def ranges_of(reader: Reader, file: Steady, how: RangeReading) -> Ranges | None:
    """The ranges of the file that `reader` reads; ``None`` if it cannot be cut, or is not worth it."""
    if file.size < SMALLEST:
        return None
    known: Dialect | Members | None = None
    match reader:
        case CsvReader(dialect=known) | JsonReader(shape="lines", members=known):
            parts = _text_ranges(file, how.chunk_rows)
        case ParquetReader() as parquet:
            parts = _group_ranges(parquet, how.chunk_rows)
        case _:
            parts = []
    return Ranges(RangeReader(file, how, known), parts) if parts else None


def _text_ranges(file: Steady, chunk_rows: int) -> list[Range]:
    """Ranges of about `chunk_rows` rows of a text file, the first one smaller; none if it cannot be cut: it is
    compressed, or its beginning has no line feed.
    """
    with readable(file.name), file.opened() as source:
        head = source.read_at(0, min(file.size, _HEAD))
    lines = head.count(b"\n")
    if not lines or is_compressed(head):
        return []
    length = len(head) / lines
    most = max(1, min(LARGEST, round(_FULL * chunk_rows * length)))
    first = min(most, max(1, round(FIRST_ROWS * length)))
    edges = [0, *range(first, file.size, most), file.size]
    return [Range(low, high, _TYPED * (high - low)) for low, high in pairwise(edges)]


def _group_ranges(reader: ParquetReader, chunk_rows: int) -> list[Range]:
    """Ranges of a few chunks of one row group each, the first one smaller."""
    first = min(chunk_rows, FIRST_ROWS)
    found = reader.ranges(GROUP_CHUNKS * chunk_rows, first)
    return [Range(low, high, size, group) for group, low, high, size in found]
