"""Inputs: everything that the user names, as chunks of typed rows, and every row that cannot be typed as a reject.

    paths, globs, directories, -, URLs ─► inputs.py ─► a file ─┐
    Arrow, data frames, dicts ─────────────────────────────────┤
                                                               ▼
    reader (csv, json, columnar) ─► pieces ─► cut ─► tabulate ─► cast ─► join ─────────────────────────────► Chunk
                                                                          └─► relation `source` ─► select ─► cast ┘

In parallel mode, workers read the ranges of a file by the same steps (`headrace.reading.ranges`).

This module is the table of contents; each step has its own module. A chunk's boundaries depend only on the input's
content and the options, so that a resumed run finds its earlier chunks. Memory holds a few chunks, whatever the input's
size.

Columns are matched by name, exactly (upper and lower case differ). The ``select`` is applied chunk by chunk: it can
choose, rename, compute and filter, and an aggregate or an ORDER BY sees one chunk only.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from headrace.errors import ConfigurationError
from headrace.partitioning.contract import LogicalType
from headrace.reading.choices import CHUNK_ROWS
from headrace.reading.chunk import Chunk, one_batch
from headrace.reading.columnar import ArrowReader
from headrace.reading.fetch.spool import Spooled
from headrace.reading.files import Located, locate_inputs, locate_spooled
from headrace.reading.formats import reader_of
from headrace.reading.ranges import RangeReading, Ranges, ranges_of
from headrace.reading.reader import Block, RawLine, Reader, cut
from headrace.reading.sampled_blocks import SampledBlocks
from headrace.reading.selection import Select
from headrace.reading.sql import connect
from headrace.reading.typed_blocks import TypedBlock, TypedBlocks, joined
from headrace.storage.records import Address

if TYPE_CHECKING:
    import duckdb

__all__ = ["Input", "ReadOptions", "open_inputs"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How inputs are read.

    `types` overrides what is inferred; `select` is SQL over the relation ``source``; `timezone` (IANA) is that of times
    without a zone; a chunk ends at `chunk_rows` rows (the first one at `first_rows`) or `chunk_bytes` bytes of text,
    whichever comes first; `format` forces one of csv, tsv, json, jsonl, geojson, parquet. With `even` a run's first
    chunk is like the others.
    """

    types: Mapping[str, LogicalType] = field(default_factory=dict)
    select: str | None = None
    timezone: str = "UTC"
    chunk_rows: int = CHUNK_ROWS
    chunk_bytes: int = 64 << 20
    threads: int = 2
    format: str | None = None
    first_rows: int | None = None
    even: bool = False


class Input(Protocol):
    """One input. Its `name` goes into receipts, `fingerprint` identifies the content, `size` is in bytes."""

    @property
    def name(self) -> str:
        """The name that the user knows, without credentials; unique among the inputs opened together."""

    @property
    def fingerprint(self) -> str:
        """Equal exactly when the content is the same, as far as can be told without reading it."""

    @property
    def size(self) -> int | None:
        """The size in bytes, if it is known."""

    @property
    def durable(self) -> bool:
        """Whether a later process can read the same rows again, so that a run can be resumed."""

    @property
    def share_read(self) -> float:
        """The share of the input that was read so far, 0 to 1; 0 if it cannot be known."""

    @property
    def count(self) -> int | None:
        """The number of rows before ``select``, ``None`` if only reading tells."""

    def infer(self, options: ReadOptions) -> pa.Schema:
        """The columns after ``select`` in canonical types, inferred from a sample."""

    def chunks(self, schema: pa.Schema, options: ReadOptions) -> Iterator[Chunk]:
        """The whole input in `schema`: columns that it lacks are null, columns that `schema` lacks are dropped."""

    def ranges(self, schema: pa.Schema, options: ReadOptions) -> Ranges | None:
        """The input in ranges that workers read, in `schema`; ``None`` if it must be read as a whole."""

    def locate(self, rows: Sequence[int]) -> dict[int, RawLine]:
        """The line (1-based) and raw text of rows, if the format has lines."""

    def columns(self) -> list[str]:
        """The names of the columns after ``select``."""

    def is_empty(self) -> bool:
        """Whether there is no row to load and no row to reject: decided by the sample, so ``False`` when in doubt."""


def open_inputs(inputs: Sequence[object], options: ReadOptions, spool: Path | None) -> list[Input]:
    """Open `inputs` in the order given: paths, globs, directories, ``-``, URLs; Arrow tables, batches and readers,
    pandas and polars frames, iterables of dicts. What can be read only once is copied to the folder `spool`.

    Raises `InputError` or `ConfigurationError`, which name the input and what to do.
    """
    if not inputs:
        raise ConfigurationError("there is no input", hint="name a file, a pattern, a directory, a URL, or - for stdin")
    names = _UniqueNames()
    opened: list[Input] = []
    for item in inputs:
        if isinstance(item, str | Path):
            located = locate_inputs(str(item), options.format, spool)
            opened += [_open_file(replace(one, name=names.unique(one.name)), options) for one in located]
        elif isinstance(item, Spooled):
            one = locate_spooled(item, options.format)
            opened.append(_open_file(replace(one, name=names.unique(one.name)), options))
        else:
            name = names.unique("<arrow>" if hasattr(item, "__arrow_c_stream__") else "<rows>")
            opened.append(_Source(name, uuid.uuid4().hex, None, ArrowReader.of(item, name), options))
    return opened


class _UniqueNames:
    """Names that differ, because a receipt tells inputs apart by name: the second of a kind is ``… (2)``."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def unique(self, name: str) -> str:
        self._seen[name] = self._seen.get(name, 0) + 1
        return name if self._seen[name] == 1 else f"{name} ({self._seen[name]})"


def _open_file(located: Located, options: ReadOptions) -> Input:
    reader = reader_of(located, cache(partial(connect, options.threads, options.timezone)))
    return _Source(located.name, located.fingerprint, located.size, reader, options, located)


class _Source:
    """An `Input`: a reader whose first blocks decide the types, a connection that casts, and a select."""

    def __init__(
        self,
        name: str,
        fingerprint: str,
        size: int | None,
        reader: Reader,
        options: ReadOptions,
        located: Located | None = None,
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.size = size
        self.durable = not isinstance(reader, ArrowReader)
        self._located = located
        self._reader = reader
        self._options = options
        if options.timezone != "UTC":
            self._connection  # noqa: B018 - whether there is such a zone is said now
        self._parts = TypedBlocks(reader, name, lambda: self._connection, options.timezone)
        self._select = Select(lambda: self._connection, name)
        self._blocks = SampledBlocks(reader, self._parts.caster, name, take_one=not options.types)
        self._inferred: dict[tuple[object, ...], pa.Schema] = {}
        self._ranges: Ranges | None = None

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """Opened when first needed: that takes 10 ms, a fifth of a small batch's time, and plain columns need none."""
        return connect(self._options.threads, self._options.timezone)

    @property
    def share_read(self) -> float:
        """By the rows of the chunks that were given (pieces are larger, and read ahead), or by the ranges."""
        return max(self._blocks.share.given, 0.0 if self._ranges is None else self._ranges.share)

    @property
    def count(self) -> int | None:
        """As the reader knows it."""
        return self._reader.count

    def columns(self) -> list[str]:
        """The names after ``select``."""
        if self._options.select is None:
            return list(self._blocks.hints())
        return list(self.infer(self._options).names)

    def is_empty(self) -> bool:
        """Whether the sample is the whole input, and nothing of it is left after ``select``."""
        pieces = self._blocks.sample()
        if not self._blocks.all_sampled or not any(piece.span for piece in pieces):
            return self._blocks.all_sampled
        if self._options.select is None:
            return False
        own = self._blocks.schema(self._options.types, selected=True)
        chunks = self._typed_chunks(iter(pieces), own, self._options)
        return not any(one.rejects or self._select.leaves(one.table, self._options.select) for one in chunks)

    def infer(self, options: ReadOptions) -> pa.Schema:
        """The schema after ``select``, from the sample."""
        asked = (options.select, tuple(options.types.items()))
        if asked not in self._inferred:
            self._inferred[asked] = self._infer(options)
        return self._inferred[asked]

    def _infer(self, options: ReadOptions) -> pa.Schema:
        schema = self._blocks.schema(options.types, selected=options.select is not None)
        if options.select is None:
            return schema
        first = takewhile(_is_piece, cut(iter(self._blocks.sample()), options.chunk_rows, options.chunk_bytes))
        parts = [self._parts.part(piece, schema) for piece in first if piece is not None]
        table = joined(parts).table if parts else schema.empty_table()
        return self._select.canonical(table, options.select)

    def chunks(self, schema: pa.Schema, options: ReadOptions) -> Iterator[Chunk]:
        """The whole input."""
        own = None if options.select is None else self._blocks.schema(options.types, selected=True)
        self._blocks.hints()
        late = own is None or options.select is None or self._takes_all(own, options.select)
        for typed in self._typed_chunks(self._blocks.all(), schema if own is None else own, options, late=late):
            self._blocks.share.give(typed.first_row + typed.span)
            yield self._chunk(typed, schema, options.select)

    def ranges(self, schema: pa.Schema, options: ReadOptions) -> Ranges | None:
        """Of an uncompressed file that is not too small, and is not selected from."""
        if self._located is None or options.select is not None:
            return None
        how = RangeReading(
            name=self.name,
            schema=schema,
            own=frozenset(self.columns()),
            chunk_rows=options.chunk_rows,
            timezone=self._options.timezone,
            threads=self._options.threads,
        )
        self._ranges = ranges_of(self._reader, self._located.file, how)
        if self._ranges is not None:
            self._blocks.forget()
        return self._ranges

    def _takes_all(self, own: pa.Schema, select: str) -> bool:
        """Whether `select` passes on columns that it does not name, as ``SELECT *`` does."""
        table = own.empty_table()
        more = table.append_column("headrace_late", pa.array([], pa.string()))
        return bool(self._select.columns(more, select) != self._select.columns(table, select))

    def _typed_chunks(
        self, pieces: Iterator[Block], schema: pa.Schema, options: ReadOptions, *, late: bool = False
    ) -> Iterator[TypedBlock]:
        """`pieces` as chunks, each typed part by part."""
        parts: list[TypedBlock] = []
        for piece in cut(pieces, options.chunk_rows, options.chunk_bytes, options.first_rows):
            if piece is not None:
                parts.append(self._parts.part(piece, schema, late=late))
            else:
                yield joined(parts)
                parts = []

    def locate(self, rows: Sequence[int]) -> dict[int, RawLine]:
        """As the reader knows it."""
        return self._reader.locate(rows)

    def _chunk(self, typed: TypedBlock, schema: pa.Schema, select: str | None) -> Chunk:
        address = Address(self.name, typed.first_row, typed.span)
        if select is None:
            return Chunk(address, one_batch(typed.table), typed.rows, typed.rejects)
        selected, failing = self._select.over(typed.table, select)
        table, refused = self._parts.selected(selected, schema)
        failed = self._parts.failed(typed, failing)
        return Chunk(address, one_batch(table), None, [*typed.rejects, *failed, *refused])


def _is_piece(piece: Block | None) -> bool:
    return piece is not None
