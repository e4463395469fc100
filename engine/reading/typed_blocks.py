"""A chunk's parts: pieces of the input as typed rows, and every row that cannot be typed as a reject with its place.

    piece ─► tabulate ─► cast ─┬─► good rows ──────────────────► Part ─► joined: a chunk
                               └─► bad values ─► rejects, placed ─┘

What a ``select`` makes of a chunk is cast likewise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.reading.reader import Block, RawLine, Reader
from headrace.reading.sql import Connect
from headrace.reading.types.cast import BadValue, Caster
from headrace.reading.types.value_text import kept
from headrace.storage.rejects import Reject

__all__ = ["TypedBlock", "TypedBlocks", "joined"]

_LATE = "the column appears too late for this load: headrace rejects replay adds it to the table"


class TypedBlock(NamedTuple):
    """A part of a chunk, or all of it: `span` rows of the input, the good ones in the schema asked for."""

    first_row: int
    span: int
    table: pa.Table
    rows: NDArray[np.int64]
    rejects: list[Reject]

    def between(self, first: int, end: int) -> TypedBlock:
        """The rows of the input from `first` up to `end`."""
        low, high = np.searchsorted(self.rows, [first, end]).tolist()
        rejects = [reject for reject in self.rejects if first <= (reject.row or 0) < end]
        return TypedBlock(first, end - first, self.table.slice(low, high - low), self.rows[low:high], rejects)


class TypedBlocks:
    """Makes parts of what `reader` reads from the input `name`; `connect` and `timezone` are those of its `Caster`."""

    def __init__(self, reader: Reader, name: str, connect: Connect, timezone: str) -> None:
        self._reader = reader
        self.caster = Caster(connect, timezone, name)
        self._name = name

    def part(self, piece: Block, schema: pa.Schema, *, late: bool = False) -> TypedBlock:
        """The piece's good rows in `schema`, and all its rejects with their places, in row order.

        With `late`, a row with a value in a column that appeared after the sample is a reject, because it would lose
        the value.
        """
        piece, table, bad = self._cast(piece, schema, late=late, wanted=schema)
        if late:
            bad = _with_late(bad, piece.table, schema.names)
        rejects = self._placed([*piece.rejects, *self._refused(piece, bad)])
        good = _good(len(piece.rows), bad)
        rows = piece.rows[good.to_numpy(zero_copy_only=False)]
        return TypedBlock(piece.first_row, piece.span, table.filter(good) if bad else table, rows, rejects)

    def _cast(
        self, piece: Block, schema: pa.Schema, *, late: bool, wanted: pa.Schema | None
    ) -> tuple[Block, pa.Table, list[BadValue]]:
        read = self._reader.tabulate(piece, schema.names, late=late, wanted=wanted)
        table, bad = self.caster.cast(read.table, schema)
        if bad and read.plain:  # a reject shows its values as the input has them
            return self._cast(piece, schema, late=late, wanted=None)
        return read, table, bad

    def _refused(self, piece: Block, bad: list[BadValue]) -> list[Reject]:
        records = _records(piece.table, bad)
        numbers = [int(piece.rows[value.index]) for value in bad]
        lines = [None if piece.lines is None else int(piece.lines[value.index]) for value in bad]
        raw = [None if piece.raw is None else piece.raw[value.index].as_py() for value in bad]
        return [
            Reject(self._name, row, line, value.column, value.reason, text or record, record)
            for value, row, line, text, record in zip(bad, numbers, lines, raw, records, strict=True)
        ]

    def _placed(self, rejects: list[Reject]) -> list[Reject]:
        """The rejects in row order; where a line is not known yet, it and the raw text are looked up in the input."""
        rows = [reject.row for reject in rejects if reject.row is not None and reject.line is None]
        places = self._reader.locate(rows) if rows else {}
        placed = [_at(reject, places) for reject in rejects]
        return sorted(placed, key=lambda reject: reject.row or 0)

    def failed(self, typed: TypedBlock, bad: list[BadValue]) -> list[Reject]:
        """The rows of a chunk on which the select fails."""
        numbers = [int(typed.rows[value.index]) for value in bad]
        return self._placed(
            [
                Reject(self._name, row, None, None, value.reason, record, record)
                for value, row, record in zip(bad, numbers, _records(typed.table, bad), strict=True)
            ]
        )

    def selected(self, table: pa.Table, schema: pa.Schema) -> tuple[pa.Table, list[Reject]]:
        """The select's rows in `schema`. Their rejects have no row number: the select may drop and make rows."""
        cast, bad = self.caster.cast(table, schema)
        rejects = [
            Reject(self._name, None, None, value.column, value.reason, record, record, "prepare")
            for value, record in zip(bad, _records(table, bad), strict=True)
        ]
        return (cast.filter(_good(table.num_rows, bad)) if bad else cast), rejects


def joined(parts: Sequence[TypedBlock]) -> TypedBlock:
    """Consecutive parts joined into one."""
    if len(parts) == 1:
        return parts[0]
    return TypedBlock(
        parts[0].first_row,
        sum(part.span for part in parts),
        pa.concat_tables([part.table for part in parts]),
        np.concatenate([part.rows for part in parts]),
        [reject for part in parts for reject in part.rejects],
    )


def _with_late(bad: list[BadValue], table: pa.Table, names: Sequence[str]) -> list[BadValue]:
    """`bad`, and the first value of each other row in a column that is none of `names`."""
    every = {value.index: value for value in bad}
    for name in table.column_names if set(table.column_names) - set(names) else ():
        if name not in names:
            for index in np.flatnonzero(pc.is_valid(table.column(name)).to_numpy()).tolist():
                every.setdefault(index, BadValue(index, name, _LATE))
    return [every[index] for index in sorted(every)]


def _at(reject: Reject, places: Mapping[int, RawLine]) -> Reject:
    if reject.row is None or reject.row not in places:
        return reject
    line, raw = places[reject.row]
    return replace(reject, line=line, raw=raw or reject.raw)


def _good(rows: int, bad: list[BadValue]) -> pa.Array:
    good = np.ones(rows, dtype=bool)
    good[[value.index for value in bad]] = False
    return pa.array(good)


def _records(table: pa.Table, bad: list[BadValue]) -> list[str]:
    """The bad rows as JSON objects of column to text, null, or bytes that are no text."""
    rows = [{name: kept(table.column(name)[value.index]) for name in table.column_names} for value in bad]
    return [json.dumps(row, ensure_ascii=False) for row in rows]
