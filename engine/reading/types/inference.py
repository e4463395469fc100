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
from headrace.reading.types.cast import Caster, canonical_type
from headrace.reading.types.cast_arrow import FALSE_NUMBER, quick_verdict
from headrace.reading.types.cast_sql import is_text, literal, logical_name

__all__ = ["SampledColumn", "infer"]

_FIRST_ROWS = 1_000
_LEAST_SCALE = 9
_MOST_SCALE = 18
# braces are doubled: the tests go through str.format for the column's name
_FALSE_NUMBER = literal(FALSE_NUMBER.replace("{", "{{").replace("}", "}}"))
_NO_INTEGER = literal(r"\s*([+-]?0[0-9]+|\+[0-9]{{7,}})\s*")
_TESTS: dict[LogicalType, str] = {
    "bool": "lower(trim({c})) IN ('true', 'false')",
    "integer": f"NOT (contains({{c}}, '.') OR contains(lower({{c}}), 'e') OR regexp_full_match({{c}}, {_NO_INTEGER}))",
    "float": f"NOT regexp_full_match({{c}}, {_FALSE_NUMBER})",
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
    _try_candidates(caster, [text for text in undecided.values() if len(text.values)])
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

    name: str
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
        return cls(column.name, values, candidates)

    @property
    def type(self) -> pa.DataType:
        return canonical_type(self.candidates[0], 0) if self.candidates else pa.string()


def _try_candidates(caster: Caster, texts: Sequence[_Text]) -> None:
    """Drop candidates from the front of each column's list until the first one holds for all of its values.

    All columns at a time, over the first thousand values, which refute most candidates, then over all.
    """
    for rows in (_FIRST_ROWS, None):
        pending = [text for text in texts if text.candidates]
        while pending:
            holds = _all_hold(caster, pending, rows)
            pending = [text for text, held in zip(pending, holds, strict=True) if not held]
            for text in pending:
                text.candidates = text.candidates[1:]
            pending = [text for text in pending if text.candidates]


def _all_hold(caster: Caster, texts: Sequence[_Text], rows: int | None) -> list[bool]:
    """For each column, whether its first candidate holds for its first `rows` values (``None``: all)."""
    parts = [text.values.slice(0, rows) for text in texts]
    said = [quick_verdict(part, text.candidates[0], caster.timezone) for text, part in zip(texts, parts, strict=True)]
    unclear = [number for number, one in enumerate(said) if one is None]
    looked_at = iter(_looked_at(caster, [texts[number] for number in unclear], [parts[number] for number in unclear]))
    return [next(looked_at) if one is None else one for one in said]


def _looked_at(caster: Caster, texts: Sequence[_Text], parts: Sequence[pa.ChunkedArray]) -> list[bool]:
    """The same by the cast layer, in one query."""
    longest = max((len(part) for part in parts), default=0)
    # blanks were left out, so the columns differ in length: nulls at the end say nothing against a candidate
    padded = [pa.chunked_array([*part.chunks, pa.nulls(longest - len(part), pa.string())]) for part in parts]
    tests = [_test(caster, f"c{number}", text) for number, text in enumerate(texts)]
    return [bool(result[0].as_py()) for result in caster.evaluate(padded, tests)]


def _test(caster: Caster, column: str, text: _Text) -> str:
    kind = text.candidates[0]
    cast = caster.expression(column, pa.string(), canonical_type(kind, 0), text.name)
    test = f"({cast}) IS NOT NULL" + (f" AND {_TESTS[kind].format(c=column)}" if kind in _TESTS else "")
    every = f"bool_and({column} IS NULL OR ({test}))"
    # nan and inf alone are words: a float column has a number in it
    return f"{every} AND bool_or(isfinite(try_cast({column} AS DOUBLE)))" if kind == "float" else every


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
