"""Columns value by value: what a Python function makes of each distinct value, put back in its places."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["by_value", "exact_decimal", "only"]

_DIGITS = 38
_EXACTLY = Context(prec=_DIGITS, traps=[Inexact, InvalidOperation])


def by_value(column: pa.ChunkedArray, function: Callable[[Any], Any], kind: pa.DataType) -> pa.ChunkedArray:
    """`function` of each value as an array of `kind`. It is called once for equal values, and for no null."""
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    encoded = column.combine_chunks().dictionary_encode()
    values = pa.array([function(value) for value in encoded.dictionary.to_pylist()], kind)
    return pa.chunked_array([values.take(encoded.indices)])


def only(mask: pa.ChunkedArray, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column`, null where `mask` is not true."""
    return pc.if_else(mask, column, pa.scalar(None, column.type))


def exact_decimal(value: Decimal, scale: int) -> Decimal | None:
    """`value` with `scale` digits after the point; ``None`` if it has more, or more than 38 in all."""
    try:
        return value.quantize(Decimal(1).scaleb(-scale), context=_EXACTLY)
    except (Inexact, InvalidOperation):
        return None
