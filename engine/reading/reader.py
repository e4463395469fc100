"""Readers: the blocks that every reader delivers, and how they become chunks of one size.

    reader ──► pieces: columns as found, their row numbers, the rows the reader refused ──► cut ──► parts of chunks

A piece is the unit of a reader: a block of CSV, a batch of Parquet. The boundaries of pieces depend only on the input's
content and on constants, never on timing, because a resumed run must find its earlier chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.errors import InputError
from headrace.partitioning.contract import LogicalType
from headrace.storage.rejects import Reject

__all__ = ["MOST_COLUMNS", "Block", "Hint", "RawLine", "Reader", "cut", "require_few"]

MOST_COLUMNS = 10_000
"""What an input may have before any select."""

RawLine = tuple[int | None, str | None]
"""The physical line (1-based) where a row starts and its raw text, each ``None`` where it is not known."""

Hint = tuple[LogicalType, ...] | None
"""The types that a text column may be inferred as, tried in order; ``None``: the column says itself."""


@dataclass(frozen=True, slots=True)
class Block:
    """`span` rows of the input from row `first_row`: the good ones in `table`, the others in `rejects`.

    `rows` is each table row's 0-based number in the input. `lines` is where each starts (1-based), if the reader knows
    it for free, and `raw` its text; `Reader.tabulate` adds that. `plain` says that numbers came typed out of a text,
    and no longer as it has them.
    """

    first_row: int
    span: int
    table: pa.Table
    rows: NDArray[np.int64]
    rejects: list[Reject] = field(default_factory=list)
    lines: NDArray[np.int64] | None = None
    raw: pa.ChunkedArray | None = None
    plain: bool = False

    def split(self, span: int) -> tuple[Block, Block | None]:
        """The first `span` rows, and the rest if there is one."""
        if span >= self.span:
            return self, None
        border = self.first_row + span
        cut = int(np.searchsorted(self.rows, border))
        return self._part(self.first_row, span, 0, cut), self._part(border, self.span - span, cut, len(self.rows))

    def _part(self, first_row: int, span: int, start: int, end: int) -> Block:
        return Block(
            first_row,
            span,
            self.table.slice(start, end - start),
            self.rows[start:end],
            [reject for reject in self.rejects if first_row <= (reject.row or 0) < first_row + span],
            None if self.lines is None else self.lines[start:end],
        )


class Reader(Protocol):
    """One input of one format. Reading it again starts at its first row, unless it can be read only once.

    `declared` says that the columns and their types are known without looking at rows.
    """

    @property
    def declared(self) -> bool:
        """Whether the columns and their types are known without reading rows."""

    @property
    def share(self) -> float:
        """The share of the input in the pieces so far, 0 to 1; 0 if it cannot be known."""

    @property
    def count(self) -> int | None:
        """The number of rows, ``None`` if only reading tells."""

    def hints(self, sample: Sequence[Block]) -> dict[str, Hint]:
        """The columns in order, as far as the first pieces show them, and what their types may be."""

    def pieces(self) -> Iterator[Block]:
        """The whole input. Raises `InputError` where it cannot be read further."""

    def tabulate(
        self, piece: Block, names: Sequence[str], *, late: bool = False, wanted: pa.Schema | None = None
    ) -> Block:
        """`piece` with the columns of `names` that the input has; a row that has no columns becomes a reject.

        `wanted` are the types that they will be cast to, as far as that is decided; without it, what is written as text
        comes as text.

        With `late`, also with the columns that neither `names` nor the sample of `hints` has.
        """

    def locate(self, rows: Sequence[int]) -> dict[int, RawLine]:
        """The lines and texts of rows, if the format has lines."""


def cut(
    pieces: Iterator[Block], max_rows: int, max_bytes: int, first_rows: int | None = None
) -> Iterator[Block | None]:
    """Pieces cut so that each lies in one chunk, and ``None`` where a chunk ends.

    A chunk has `max_rows` rows, the first `first_rows`, or fewer where `max_bytes` or a change of types says so. Parts
    come as soon as they are read, so that each can be cast and its text let go before the next is read.
    """
    rows = size = 0
    most = first_rows or max_rows
    types: pa.Schema | None = None
    for piece in pieces:
        rest: Block | None = piece
        while rest is not None:
            if rows and rest.table.schema != types:
                yield None
                rows, size, most = 0, 0, max_rows
            types = rest.table.schema
            part, rest = rest.split(min(most - rows, _rows_within(rest, max_bytes - size)))
            rows, size = rows + part.span, size + part.table.nbytes
            yield part
            if rows >= most or size >= max_bytes:
                yield None
                rows, size, most = 0, 0, max_rows
    if rows:
        yield None


def _rows_within(piece: Block, size: int) -> int:
    """How many of the piece's rows make `size` bytes, by their mean; at least one."""
    return max(1, -(-size * piece.span // max(1, int(piece.table.nbytes))))


def require_few(columns: int, name: str) -> None:
    """Raise `InputError` for an input of too many columns: each column costs memory and an expression."""
    if columns > MOST_COLUMNS:
        raise InputError(
            f"the input has {columns:,} columns; at most {MOST_COLUMNS:,} are allowed",
            where=name,
            hint="databases allow even fewer: is this the right file, and does its header show the right delimiter?",
        )
