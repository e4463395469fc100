"""The address of each row of the inputs as one 64-bit number, and back.

    63           32 31                    0
    ┌──────────────┬───────────────────────┐
    │ chunk number │ row within its span   │     row 2³²-1: unknown, because a select was applied
    └──────────────┴───────────────────────┘

The line in the file is looked up only for the few rows that are shown, because it takes a pass over the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.events.prepare import Prepared
from headrace.reading.inputs import Input
from headrace.storage.records import Address

__all__ = ["Places", "RowAddress"]

_ROW_BITS = 32
_UNKNOWN = (1 << _ROW_BITS) - 1


@dataclass(frozen=True, slots=True)
class RowAddress:
    """The address of one row. `row` is 0-based, the header not counted; ``None`` if only its chunk is known. `line`
    is 1-based, if the input has lines.
    """

    chunk: Address
    row: int | None
    line: int | None = None

    def __str__(self) -> str:
        if self.row is None:
            return str(self.chunk)
        return f"{self.chunk.source}, row {self.row}" + (f", line {self.line}" if self.line is not None else "")

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        first = self.chunk.first_row
        rows = [first, first + self.chunk.rows - 1]
        return {"source": self.chunk.source, "rows": rows, "row": self.row, "line": self.line}


class Places:
    """Numbers for the rows of `inputs`, as they are read."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._inputs = {item.name: item for item in inputs}
        self._chunks: list[Address] = []
        self._numbers: dict[Address, int] = {}

    def tags(self, prepared: Prepared) -> NDArray[np.int64]:
        """A number for each event of the chunk, ascending in input order, and the same in each pass. Shape (rows,)."""
        if prepared.address not in self._numbers:
            self._numbers[prepared.address] = len(self._chunks)
            self._chunks.append(prepared.address)
        chunk = self._numbers[prepared.address] << _ROW_BITS
        if prepared.rows is None:
            return np.full(len(prepared.ids), chunk | _UNKNOWN, dtype=np.int64)
        return prepared.rows - prepared.address.first_row + chunk

    def of(self, tag: int) -> RowAddress:
        """The row that the number stands for, without its line."""
        chunk, row = self._chunks[tag >> _ROW_BITS], tag & _UNKNOWN
        return RowAddress(chunk, None if row == _UNKNOWN else chunk.first_row + row)

    def with_lines(self, places: Iterable[RowAddress]) -> list[RowAddress]:
        """The same addresses with their lines, found in one pass over each input that has any of the rows."""
        rows_by_source: dict[str, set[int]] = {}
        places = list(places)
        for place in places:
            if place.row is not None:
                rows_by_source.setdefault(place.chunk.source, set()).add(place.row)
        located = {source: self._inputs[source].locate(sorted(rows)) for source, rows in rows_by_source.items()}
        return [_with_line(place, located) for place in places]


def _with_line(place: RowAddress, located: dict[str, dict[int, tuple[int | None, str | None]]]) -> RowAddress:
    if place.row is None:
        return place
    line, _ = located[place.chunk.source].get(place.row, (None, None))
    return replace(place, line=line)
