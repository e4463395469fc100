"""JSON in three shapes: one object a line, an array of objects, the features of a GeoJSON collection.

    file ──► the text of each object, with its line ──► DuckDB takes the members out as text ──► the cast layer
              lines: split at newlines
              array, features, values one after another: cut by Python's JSON scanner, one value at a time

So a file of any size is read in bounded memory, which DuckDB's own reader does not do for one long array. Members are
text from here on, numbers too; DuckDB holds a number as a 64-bit integer or a double, as RFC 8259 advises, so ``1.50``
comes out as ``1.5`` and more than 17 digits do not survive unless they are quoted. Objects and arrays inside come out
as JSON text. If a member occurs twice in an object, the first counts. Names are matched exactly.

The columns of a feature are its properties, and ``geometry`` (JSON text) and ``id`` where no property has that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from headrace.casting import Caster
from headrace.elements import elements
from headrace.expressions import literal
from headrace.locate import text_lines
from headrace.reading import Hint, Piece, Place
from headrace.storage.base import Reject
from headrace.streams import ESCAPED, Utf8, open_bytes, readable, unescape
from numpy.typing import NDArray

__all__ = ["JsonReader"]

_PIECE_ROWS = 16_384
_JSON = "json"
_STRING: Hint = ("date", "timestamp", "string")
_NUMBER: Hint = ("integer", "decimal", "float", "string")
_HINTS: dict[frozenset[str], Hint] = {
    frozenset({"BOOLEAN"}): ("bool",),
    frozenset({"VARCHAR"}): _STRING,
    frozenset({"UBIGINT"}): _NUMBER,
    frozenset({"BIGINT"}): _NUMBER,
    frozenset({"UBIGINT", "BIGINT"}): _NUMBER,
}
_DOUBLES: Hint = ("float", "string")


class JsonReader:
    """Reads one JSON file of the given shape: ``lines``, ``values`` (an array, or one after another), ``features``."""

    def __init__(self, path: Path, name: str, shape: str, caster: Caster) -> None:
        self._path = path
        self._name = name
        self._shape = shape
        self._caster = caster

    def hints(self, sample: Sequence[Piece]) -> dict[str, Hint]:
        """The members that the sample's objects have, in order of appearance, and what their types may be."""
        texts = [self._split(piece)[0].table.column(_JSON) for piece in sample]
        column = pa.chunked_array([chunk for text in texts for chunk in text.chunks], pa.string())
        names = self._names(column)
        seen: list[set[str]] = [set() for _ in names]
        (kinds,) = self._caster.evaluate([column], [f"CAST(json_type(c0, {self._paths(names)}) AS VARCHAR[])"])
        for kind in range(len(names)):
            seen[kind] = (
                set(pc.unique(pc.list_element(kinds, kind)).to_pylist()) - {None, "NULL"} if len(kinds) else set()
            )
        return {name: _hint(frozenset(kinds)) for name, kinds in zip(names, seen, strict=True)}

    def pieces(self) -> Iterator[Piece]:
        """The objects' texts in order, in one column."""
        with open_bytes(self._path) as stream, readable(self._name):
            text = Utf8(stream)
            found = self._texts(text)
            first = 0
            while block := list(islice(found, _PIECE_ROWS)):
                rows = np.arange(first, first + len(block), dtype=np.int64)
                lines = np.fromiter((line for line, _ in block), np.int64, len(block))
                table = pa.table({_JSON: pa.array([value for _, value in block], pa.binary()).cast(pa.string())})
                piece = Piece(first, len(block), table, rows, [], lines)
                yield self._without_escaped(piece) if text.escaped else piece
                first += len(block)

    def tabulate(self, piece: Piece, names: Sequence[str]) -> Piece:
        """The members called `names` as columns of text; what is no JSON object becomes a reject."""
        good, _ = self._split(piece)
        text = good.table.column(_JSON)
        taken = f"json_extract_string(c0, {self._paths(names)})"
        members = self._caster.evaluate([text], [f"{taken}[{number + 1}]" for number in range(len(names))])
        table = pa.table(members, names=list(names)) if names else good.table.select([])
        return Piece(good.first_row, good.span, table, good.rows, good.rejects, good.lines)

    def locate(self, rows: Sequence[int]) -> dict[int, Place]:
        """A second pass over the file."""
        wanted, found = set(rows), dict[int, Place]()
        with open_bytes(self._path) as stream, readable(self._name):
            for row, (line, text) in enumerate(islice(self._texts(Utf8(stream)), max(wanted, default=-1) + 1)):
                if row in wanted:
                    found[row] = (line, unescape(text.decode()))
        return found

    def _texts(self, stream: Utf8) -> Iterator[tuple[int, bytes]]:
        if self._shape != "lines":
            yield from elements(stream, self._name, features=self._shape == "features")
            return
        for number, line in enumerate(text_lines(stream), start=1):
            if text := line.strip():
                yield number, text

    def _names(self, column: pa.ChunkedArray) -> list[str]:
        inside = ", '/properties'" if self._shape == "features" else ""
        (keys,) = self._caster.evaluate([column], [f"json_keys(c0{inside})"])
        names = dict.fromkeys(pc.unique(keys.combine_chunks().flatten()).to_pylist() if len(keys) else [])
        if self._shape == "features" and len(keys):
            names |= dict.fromkeys(name for name in ("geometry", "id") if self._has(column, name))
        return list(names)

    def _has(self, column: pa.ChunkedArray, name: str) -> bool:
        (found,) = self._caster.evaluate([column], [f"json_exists(c0, '/{name}')"])
        return bool(pc.any(found).as_py())

    def _paths(self, names: Sequence[str]) -> str:
        """JSON pointers (RFC 6901) to the members, as an SQL list."""
        paths = [self._pointer(name) for name in names]
        return f"[{', '.join(literal(path) for path in paths)}]" if paths else "CAST([] AS VARCHAR[])"

    def _pointer(self, name: str) -> str:
        inside = "/properties" if self._shape == "features" else ""
        return f"{inside}/" + name.replace("~", "~0").replace("/", "~1")

    def _split(self, piece: Piece) -> tuple[Piece, NDArray[np.bool_]]:
        """`piece` with only JSON objects, the rest moved to its rejects."""
        text = piece.table.column(_JSON)
        (kinds,) = self._caster.evaluate([text], ["CASE WHEN json_valid(c0) THEN json_type(c0) END"])
        bad = np.asarray(pc.fill_null(pc.not_equal(kinds, "OBJECT"), True).to_numpy(), dtype=bool)
        return (self._without(piece, bad, "this is not a JSON object") if bad.any() else piece), bad

    def _without_escaped(self, piece: Piece) -> Piece:
        escaped = pc.match_substring_regex(piece.table.column(_JSON), ESCAPED).to_numpy()
        return self._without(piece, escaped, "the text is not valid UTF-8") if escaped.any() else piece

    def _without(self, piece: Piece, bad: NDArray[np.bool_], why: str) -> Piece:
        lines = piece.lines if piece.lines is not None else np.zeros(len(bad), np.int64)
        texts = piece.table.column(_JSON).filter(pa.array(bad)).to_pylist()
        rejects = [
            Reject(self._name, row, line, None, why, unescape(text))
            for row, line, text in zip(piece.rows[bad].tolist(), lines[bad].tolist(), texts, strict=True)
        ]
        together = sorted([*piece.rejects, *rejects], key=lambda reject: reject.row or 0)
        table = piece.table.filter(pa.array(~bad))
        return Piece(piece.first_row, piece.span, table, piece.rows[~bad], together, lines[~bad])


def _hint(kinds: frozenset[str]) -> Hint:
    if not kinds:
        return ("string",)
    if "DOUBLE" in kinds and kinds <= {"DOUBLE", "UBIGINT", "BIGINT"}:
        return _DOUBLES
    return _HINTS.get(kinds, ("string",))
