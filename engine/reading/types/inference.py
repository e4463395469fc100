"""Inferring the type of a text column from a sample: the first candidate that every value satisfies.

Inference is narrower than the casts, which know what the column is meant to be: here ``1`` and ``t`` are no
booleans (only ``true`` and ``false`` are), and text that would not survive (``0056``, a 20-digit number, a telephone
number's ``+``) stays string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from headrace.partitioning.contract import LogicalType
from headrace.reading.reader import Hint
from headrace.reading.types.arrow_types import canonical_type, is_text, logical_name
from headrace.reading.types.cast import Caster

__all__ = ["SampledColumn", "infer"]

# rows that are looked at before all are: a few refute most candidates
_A_FEW, _FIRST_ROWS = 10, 1_000
_LEAST_SCALE = 9
_MOST_SCALE = 18
_BOOL = "^ *(true|false) *$"
# texts that a cast would take, and that are left as they are: digits that name something (an account, a telephone)
_NOT_MEANT: dict[LogicalType, str] = {
    "integer": r"[.eE]|^\s*([+-]?0[0-9]+|\+[0-9]{7,})\s*$",
    "float": r"^\s*([+-]?(0[0-9].*|[0-9]{16,})|\+[0-9]{7,})\s*$",
}


@dataclass(frozen=True, slots=True)
class SampledColumn:
    """One column of a sample: its parts, the types it may be inferred as, the type that the user asks for, if any."""

    name: str
    parts: list[pa.ChunkedArray]
    hint: Hint
    wanted: LogicalType | None = None


def infer(caster: Caster, columns: Sequence[SampledColumn]) -> list[pa.DataType]:
    """The canonical type of each column."""
    undecided = {number: _Text.of(column) for number, column in enumerate(columns) if _must_be_tried(column)}
    for text in undecided.values():
        _decide(caster, text)
    return [undecided[number].type if number in undecided else _said(column) for number, column in enumerate(columns)]


def _must_be_tried(column: SampledColumn) -> bool:
    kinds = {part.type for part in column.parts}
    if column.wanted is not None or (len(kinds) == 1 and not any(map(_is_open, kinds))):
        return False
    return column.hint is not None or all(map(pa.types.is_null, kinds))


def _is_open(kind: pa.DataType) -> bool:
    """Whether a column of this type may be meant as another."""
    return bool(is_text(kind) or pa.types.is_null(kind))


def _said(column: SampledColumn) -> pa.DataType:
    """The type that the user says, or the column itself."""
    kinds = [part.type for part in column.parts]
    if column.wanted is not None:
        scale = _scale(column.parts, kinds) if column.wanted == "decimal" else 0
        return canonical_type(column.wanted, scale)
    return _of_typed([kind for kind in kinds if not pa.types.is_null(kind)])


@dataclass(slots=True)
class _Text:
    """A text column whose type is sought: its values that are not blank, and the candidates not yet refuted."""

    values: pa.ChunkedArray
    candidates: Sequence[LogicalType]

    @classmethod
    def of(cls, column: SampledColumn) -> _Text:
        chunks = [chunk for part in column.parts for chunk in part.cast(pa.string()).chunks]
        values = pa.chunked_array(chunks, pa.string())
        blank = pc.or_(pc.equal(values, ""), pc.utf8_is_space(values))
        if pc.any(blank).as_py() or values.null_count:
            values = values.filter(pc.invert(blank))
        hint: Sequence[LogicalType] = column.hint or ()
        candidates = [kind for kind in hint if kind != "string"] if len(values) else []
        return cls(values, candidates)

    @property
    def type(self) -> pa.DataType:
        return canonical_type(self.candidates[0], 0) if self.candidates else pa.string()


def _decide(caster: Caster, text: _Text) -> None:
    """Drop candidates from the front of the list until the first one holds for all values."""
    for rows in (_A_FEW, _FIRST_ROWS, len(text.values)):
        values = text.values.slice(0, rows)
        few = len(values) == _A_FEW < len(text.values)
        while text.candidates and not _holds(caster, text.candidates[0], values, few=few):
            text.candidates = text.candidates[1:]


def _holds(caster: Caster, kind: LogicalType, values: pa.ChunkedArray, *, few: bool) -> bool:
    """Whether `values`, texts that are not blank, are all meant as `kind`."""
    if kind == "bool":
        return pc.all(pc.match_substring_regex(pc.ascii_lower(values), _BOOL)).as_py() is True
    cast = caster.column(values, canonical_type(kind, 0), "")
    if cast.null_count or (kind in _NOT_MEANT and pc.any(pc.match_substring_regex(values, _NOT_MEANT[kind])).as_py()):
        return False
    # nan and inf alone are words: a float column has a number in it
    return kind != "float" or few or pc.any(pc.is_finite(cast)).as_py() is True


def _of_typed(kinds: list[pa.DataType]) -> pa.DataType:
    """The type that holds all of `kinds`: their own if they agree, float for numbers, else string."""
    names = {logical_name(kind) for kind in kinds}
    if len(names) > 1:
        return canonical_type("float" if names == {"integer", "float"} else "string")
    (name,) = names
    scales = [kind.scale for kind in kinds if pa.types.is_decimal(kind)]
    return canonical_type(name, max(scales, default=0))


def _scale(columns: list[pa.ChunkedArray], kinds: list[pa.DataType]) -> int:
    """The digits after the point that a column read as decimal gets: its own, at least 9 where the sample is text."""
    scales = [kind.scale for kind in kinds if pa.types.is_decimal(kind)]
    if scales:
        return int(max(scales))
    if not any(is_text(kind) for kind in kinds):
        return 0 if all(pa.types.is_integer(kind) for kind in kinds) and kinds else _LEAST_SCALE
    lengths = [
        pc.max(pc.utf8_length(pc.struct_field(pc.extract_regex(column, r"\.(?P<digits>[0-9]*)\s*$"), "digits"))).as_py()
        for column in columns
    ]
    return min(_MOST_SCALE, max([_LEAST_SCALE, *(length or 0 for length in lengths)]))
