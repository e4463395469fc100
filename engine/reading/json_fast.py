"""Plain JSON objects by Arrow's parser, in half of DuckDB's time: objects in which every value has its column's type.

    texts ──► one object each? ──► Arrow, strictly, into typed columns ──► as many rows as texts? ──► columns
                     └──────────────────────┴──────────────────────────────────────┴──► None: DuckDB looks at each value

Whatever is not plain gives ``None`` for all the texts, and is read as it always was: a value of another kind (``1.0``
among integers, a number in quotes), a member that nobody expects or that occurs twice, text that is no JSON object, a
number of more than 15 digits among floats, which DuckDB's rules read as text. So this module decides nothing, it only
saves time.

Arrow takes several values in one text, and ends the process where the first is ``null``. Each text given to it begins
with ``{`` and ends with ``}``; JSON has no ``}`` directly before a ``{`` but between two values, and no line's end
within a string: so each text is at least one object, and where the rows are as many, exactly one.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

__all__ = ["plain_kind", "plain_objects", "type_within"]

_LARGEST = 1e15  # below it a float's digits are those of its text
_KINDS = {frozenset({"BOOLEAN"}): pa.bool_(), frozenset({"VARCHAR"}): pa.string()}
_INTEGERS = frozenset({"UBIGINT", "BIGINT"})


def plain_kind(kinds: frozenset[str]) -> pa.DataType | None:
    """The type that holds values of these kinds (as DuckDB's ``json_type`` calls them) and no others, if one does."""
    if kinds and kinds <= _INTEGERS:
        return pa.int64()
    if "DOUBLE" in kinds and kinds <= _INTEGERS | {"DOUBLE"}:
        return pa.float64()
    return _KINDS.get(kinds)


def type_within(kind: pa.DataType, wanted: pa.DataType) -> pa.DataType | None:
    """The type to read a member of `kind` with for a column that is `wanted`; ``None`` where its text decides."""
    if kind.equals(wanted) or pa.types.is_string(kind):
        return kind
    return wanted if pa.types.is_integer(kind) and pa.types.is_floating(wanted) else None


def plain_objects(texts: pa.ChunkedArray, types: Mapping[str, pa.DataType]) -> pa.Table | None:
    """The members of JSON objects as columns of `types` (int64, float64, bool, string), one row for each of `texts`.

    ``None`` where one of them is not plain, or has a member that `types` does not.
    """
    if not len(texts) or not types or not _all(pc.starts_with(texts, "{")) or not _all(pc.ends_with(texts, "}")):
        return None
    lines = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts.combine_chunks()), "\n")
    text = lines.buffers()[2]
    try:
        table = pj.read_json(
            pa.BufferReader(text),
            read_options=pj.ReadOptions(use_threads=False, block_size=text.size + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=pa.schema(list(types.items())),
                unexpected_field_behavior="error",
                newlines_in_values=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
    floats = [table.column(name) for name, kind in types.items() if pa.types.is_floating(kind)]
    exact = all(_all(pc.less(pc.abs(column), _LARGEST)) for column in floats)
    return table if exact and table.num_rows == len(texts) else None


def _all(mask: pa.ChunkedArray) -> bool:
    """Whether all are true; nulls aside."""
    return pc.all(mask, min_count=0).as_py() is True
