"""Inputs whose columns have types: Parquet files, Arrow streams (pandas and polars frames are such), dicts in Python.

Parquet is read row group by row group and can be read again. A stream or a generator is consumed as it is read, so the
sample for inference is kept and delivered again, before the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import ConfigurationError, InputError
from headrace.reading.dicts import batches_of_dicts, hint_of
from headrace.reading.reader import Block, Hint, RawLine
from headrace.reading.steady_files import Pass, Steady
from headrace.reading.text_stream import readable
from headrace.reading.types.arrow_types import is_text
from headrace.reading.types.value_text import as_text
from headrace.storage.rejects import Reject

__all__ = ["ArrowReader", "ParquetReader", "RowGroupReader"]

_BATCH_ROWS = 16_384


class _TypedReader:
    """What typed readers share: rows have numbers and no lines."""

    declared = False

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: int | None = None
        self._read = 0
        self._sampled: set[str] = set()

    @property
    def share(self) -> float:
        """The share of the rows that was read, 0 to 1; 0 where their number is not known."""
        return 0.0 if not self._rows else min(1.0, self._read / self._rows)

    @property
    def count(self) -> int | None:
        """The number of rows, if the file records it."""
        return self._rows

    def _count(self, pieces: Iterator[Block]) -> Iterator[Block]:
        self._read = 0
        for piece in pieces:
            self._read += piece.span
            yield piece

    def hints(self, sample: Sequence[Block]) -> dict[str, Hint]:
        """Every column has a type of its own, except text made of several types. Dicts may bring columns at any
        time.
        """
        fields: dict[str, list[pa.Field]] = {name: [] for name in self._schema.names}
        for piece in sample:
            for field in piece.table.schema:
                fields.setdefault(field.name, []).append(field)
        self._sampled = set(fields)
        return {name: hint_of(found) for name, found in fields.items()}

    def tabulate(
        self,
        piece: Block,
        names: Sequence[str],
        *,
        late: bool = False,
        wanted: pa.Schema | None = None,  # noqa: ARG002 the protocol's signature
    ) -> Block:
        """Only the requested columns, and with `late` the columns that dicts bring after the sample."""
        asked, left = set(names), self._sampled if late else set(piece.table.column_names)
        kept = [name for name in piece.table.column_names if name in asked or name not in left]
        return replace(piece, table=piece.table.select(kept))

    def locate(self, rows: Sequence[int]) -> dict[int, RawLine]:  # noqa: ARG002 the protocol's signature
        """Nothing: these formats have no lines."""
        return {}


class ParquetReader(_TypedReader):
    """Reads one Parquet file, a batch at a time."""

    declared = True

    def __init__(self, file: Steady, name: str) -> None:
        self._file = file
        self._name = name
        with readable(name), file.opened() as source, _parquet(source) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
            source.check()
        super().__init__(_distinct(schema, name))
        self._rows = rows

    def ranges(self, most: int, first: int) -> Iterator[tuple[int, int, int, int]]:
        """The file cut into at most `most` rows of one row group each, the first of `first` rows: the group, its rows
        as a half-open interval, and their bytes.
        """
        with readable(self._name), self._file.opened() as source, _parquet(source) as parquet:
            for group in range(parquet.num_row_groups):
                facts, low = parquet.metadata.row_group(group), 0
                rows = facts.num_rows
                while low < rows:
                    high = min(rows, low + first)
                    yield group, low, high, facts.total_byte_size * (high - low) // rows
                    low, first = high, most

    def pieces(self) -> Iterator[Block]:
        """The rows in the file's order."""
        with readable(self._name), self._file.opened() as source, _parquet(source) as parquet:
            last: Block | None = None
            for piece in self._count(numbered(parquet.iter_batches(batch_size=_BATCH_ROWS), self._name)):
                if last is not None:
                    source.check()
                    yield last
                last = piece
            source.check(last=True)
            if last is not None:
                yield last


class RowGroupReader(_TypedReader):
    """Reads the rows `low` up to `high` of one row group of a Parquet file."""

    declared = True

    def __init__(self, source: Pass, name: str, group: int, low: int, high: int) -> None:
        with readable(name):
            self._parquet = _parquet(source)
        super().__init__(_distinct(self._parquet.schema_arrow, name))
        self._sampled = set(self._schema.names)
        self._name = name
        self._group = group
        self._low = low
        self._high = high

    @property
    def extent(self) -> tuple[int, int]:
        """The bytes of the row group in the file, as a half-open interval."""
        group = self._parquet.metadata.row_group(self._group)
        columns = [group.column(number) for number in range(group.num_columns)]
        starts = [min(filter(None, (one.dictionary_page_offset, one.data_page_offset))) for one in columns]
        ends = [start + one.total_compressed_size for start, one in zip(starts, columns, strict=True)]
        return min(starts), max(ends)

    def pieces(self) -> Iterator[Block]:
        """The rows in the file's order, counted from 0."""
        with readable(self._name):
            batches = self._parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=[self._group])
            yield from numbered(_between(batches, self._low, self._high), self._name)


def _between(batches: Iterator[pa.RecordBatch], low: int, high: int) -> Iterator[pa.RecordBatch]:
    at = 0
    for batch in batches:
        first, end = max(low - at, 0), min(high - at, batch.num_rows)
        if first < end:
            yield batch.slice(first, end - first)
        at += batch.num_rows
        if at >= high:
            return


def _parquet(source: Pass) -> pq.ParquetFile:
    return pq.ParquetFile(pa.PythonFile(source, mode="r"), pre_buffer=False)


class ArrowReader(_TypedReader):
    """Reads a stream of record batches, which can be done once; `again` opens it anew where that is possible."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema, name: str) -> None:
        super().__init__(_distinct(schema, name))
        self._batches: Iterator[pa.RecordBatch] | None = batches
        self._name = name

    @classmethod
    def of(cls, source: object, name: str) -> ArrowReader:
        """A reader of any object with the Arrow stream interface, or of an iterable of dicts."""
        if isinstance(source, pa.RecordBatch):
            source = pa.table(source)
        if hasattr(source, "__arrow_c_stream__"):
            with _understood(name):
                stream = pa.RecordBatchReader.from_stream(source)
            return cls(_received(stream, name), stream.schema, name)
        if isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping):
            batches = batches_of_dicts(source, name)
            first = next(batches, pa.record_batch({}))
            return cls(chain([first], batches), first.schema, name)
        raise ConfigurationError(
            f"{type(source).__name__} is not an input",
            hint="give a path, a URL, an Arrow table, a data frame or an iterable of dicts",
        )

    def pieces(self) -> Iterator[Block]:
        """The rows, once."""
        if self._batches is None:
            raise InputError("this stream was already read", where=self._name, hint="give each load a new stream")
        batches, self._batches = self._batches, None
        return numbered(batches, self._name)


@contextmanager
def _understood(name: str) -> Iterator[None]:
    """Turns what Arrow cannot make of a frame or a stream into an `InputError`: it names the column, if it knows it."""
    try:
        yield
    except pa.ArrowException as error:
        said = "; ".join(str(part) for part in error.args).splitlines()[0].partition(" Detail:")[0]
        raise InputError(
            f"Arrow cannot read it ({said})",
            where=name,
            hint="give each column values of one type that Arrow has (such as text), or give the rows as dicts",
        ) from error


def _received(stream: pa.RecordBatchReader, name: str) -> Iterator[pa.RecordBatch]:
    with _understood(name):
        yield from stream


def numbered(batches: Iterable[pa.RecordBatch], name: str) -> Iterator[Block]:
    """Record batches as pieces, their rows counted from 0. A row whose text is not valid UTF-8 becomes a reject."""
    first = 0
    for batch in batches:
        rows = np.arange(first, first + batch.num_rows, dtype=np.int64)
        if batch.num_rows:
            yield _valid(Block(first, batch.num_rows, pa.table(batch), rows), name)
        first += batch.num_rows


def _valid(piece: Block, name: str) -> Block:
    """`piece` without the rows that Arrow's own check finds fault with: whoever wrote them may not have looked."""
    try:
        piece.table.validate(full=True)
    except pa.ArrowInvalid as error:
        columns = {column: _bytes(piece.table.column(column)) for column in piece.table.column_names}
        bad = np.zeros(len(piece.rows), dtype=bool)
        for column in columns.values():
            if pa.types.is_large_binary(column.type):
                bad |= np.array([not _is_utf8(value) for value in column.to_pylist()])
        if not bad.any():
            raise InputError(
                f"its data is damaged ({str(error).splitlines()[0]})", where=name, hint="write the file again"
            ) from error
        shown = pa.table(columns)
        rejects = [
            Reject(name, int(piece.rows[at]), None, None, "the text is not valid UTF-8", _shown(shown.slice(at, 1)))
            for at in np.flatnonzero(bad).tolist()
        ]
        return replace(piece, table=piece.table.filter(pa.array(~bad)), rows=piece.rows[~bad], rejects=rejects)
    return piece


def _bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text as the bytes it is made of; another as it is."""
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
    return column.cast(pa.large_binary()) if is_text(column.type) else column


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or isinstance(value.decode(), str)
    except UnicodeDecodeError:
        return False


def _shown(row: pa.Table) -> str:
    return json.dumps({name: as_text(row.column(name)[0]) for name in row.column_names}, ensure_ascii=False)


def _distinct(schema: pa.Schema, name: str) -> pa.Schema:
    twice = sorted({column for column in schema.names if schema.names.count(column) > 1})
    if twice:
        raise InputError(f"the column {twice[0]!r} occurs twice", where=name, hint="rename one of the two")
    return schema
