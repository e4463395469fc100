"""Which type a column of text is, told from a sample: the first candidate that every value of it satisfies.

Inference is narrower than the casts, which know what the column is meant to be: here ``1`` and ``t`` are no
booleans (only ``true`` and ``false`` are), and text whose digits would not survive (``0056``, a 20-digit number) stays
string.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from headrace.casting import Caster, canonical_type
from headrace.expressions import is_text, literal, logical_name
from headrace.partitioning.contract import LogicalType
from headrace.reading import Hint

__all__ = ["infer_column"]

_FIRST_ROWS = 1_000
_LEAST_SCALE = 9
_MOST_SCALE = 18
_FALSE_NUMBER = literal(r"\s*[+-]?(0[0-9].*|[0-9]{16,})\s*")
_ZERO_FIRST = literal(r"\s*[+-]?0[0-9]+\s*")
_TESTS: dict[LogicalType, str] = {
    "bool": "lower(trim(c0)) IN ('true', 'false')",
    "integer": f"NOT (contains(c0, '.') OR contains(lower(c0), 'e') OR regexp_full_match(c0, {_ZERO_FIRST}))",
    "float": f"NOT regexp_full_match(c0, {_FALSE_NUMBER})",
}


def infer_column(
    caster: Caster, name: str, columns: list[pa.ChunkedArray], hint: Hint, wanted: LogicalType | None
) -> pa.DataType:
    """The canonical type of a column whose sample is `columns`; `wanted` is what the user says, if anything."""
    kinds = [column.type for column in columns]
    if wanted is not None:
        return canonical_type(wanted, _scale(columns, kinds)) if wanted == "decimal" else canonical_type(wanted)
    if hint is None and not all(pa.types.is_null(kind) for kind in kinds):
        return _of_typed([kind for kind in kinds if not pa.types.is_null(kind)])
    text = pa.chunked_array([chunk for column in columns for chunk in column.cast(pa.string()).chunks], pa.string())
    text = text.filter(pc.not_equal(pc.utf8_trim_whitespace(text), "")) if len(text) else text
    if not len(text):
        return pa.string()
    return next(
        (canonical_type(kind, 0) for kind in hint or () if kind != "string" and _all_are(caster, text, kind, name)),
        pa.string(),
    )


def _of_typed(kinds: list[pa.DataType]) -> pa.DataType:
    """The type that holds all of `kinds`: their own if they agree, float for numbers, else string."""
    names = {logical_name(kind) for kind in kinds}
    if len(names) > 1:
        return canonical_type("float" if names == {"integer", "float"} else "string")
    (name,) = names
    scales = [kind.scale for kind in kinds if pa.types.is_decimal(kind)]
    return canonical_type(name, max(scales, default=0))


def _all_are(caster: Caster, text: pa.ChunkedArray, kind: LogicalType, name: str) -> bool:
    """Whether every value of `text` is of the kind; the first thousand decide most cases."""
    expression = caster.expression("c0", pa.string(), canonical_type(kind, 0), name)
    test = f"({expression}) IS NOT NULL" + (f" AND {_TESTS[kind]}" if kind in _TESTS else "")
    for part in (text.slice(0, _FIRST_ROWS), text.slice(_FIRST_ROWS)):
        (holds,) = caster.evaluate([part], [test])
        if not pc.all(holds, min_count=0).as_py():
            return False
    return kind != "float" or _some_finite(caster, text)


def _some_finite(caster: Caster, text: pa.ChunkedArray) -> bool:
    """Whether a number is among them: ``nan`` and ``inf`` alone are words."""
    (finite,) = caster.evaluate([text], ["isfinite(try_cast(c0 AS DOUBLE))"])
    return bool(pc.any(finite).as_py())


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
