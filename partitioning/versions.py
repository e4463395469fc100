"""Versions as bytes that sort as the versions do, whatever their type; a null, and a NaN, sorts before all others.

Numbers and times are whole in them. Of a text they are the first 39 bytes: those that differ only behind are alike.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["VERSION", "version_keys"]

VERSION = np.dtype("S40")
_SIGN = np.uint64(1 << 63)
_PRESENT = np.uint8(1)


def version_keys(values: pa.Array) -> NDArray[np.bytes_]:
    """The key of each of `values` (canonical types), shape (rows,)."""
    types, kind = pa.types, values.type
    absent = values.is_null().to_numpy(zero_copy_only=False)
    if types.is_string(kind) or types.is_binary(kind):
        texts = values.cast(pa.binary()).fill_null(b"").to_pylist()
        return np.array(
            [b"" if none else b"\1" + text for text, none in zip(texts, absent, strict=True)], dtype=VERSION
        )
    if types.is_floating(kind):
        absent = absent | np.isnan(np.asarray(values.fill_null(0.0)))
    keys = np.zeros((len(values), VERSION.itemsize), dtype=np.uint8)
    keys[:, 0] = _PRESENT
    words = _words(values)
    for number, word in enumerate(words):
        keys[:, 1 + 8 * number : 9 + 8 * number] = word.astype(">u8").view(np.uint8).reshape(-1, 8)
    keys[:, 1 + 8 * len(words)] = _PRESENT  # so that zeros at the end of a number count
    keys[absent] = 0
    return np.ascontiguousarray(keys).view(VERSION).reshape(-1)


def _words(values: pa.Array) -> list[NDArray[np.uint64]]:
    """The words of a number, the most significant first, so that they sort as unsigned ones."""
    types, kind = pa.types, values.type
    if types.is_decimal(kind):
        both = np.frombuffer(values.buffers()[1], dtype=np.uint64).reshape(-1, 2)
        both = both[values.offset : values.offset + len(values)]
        return [both[:, 1] ^ _SIGN, both[:, 0]]
    if types.is_floating(kind):
        floats = np.asarray(values.fill_null(0.0)) + 0.0  # -0.0 becomes 0.0
        bits = floats.view(np.uint64)
        return [np.where(bits & _SIGN, ~bits, bits | _SIGN)]
    if types.is_timestamp(kind):
        values = values.view(pa.int64())
    elif types.is_date(kind):
        values = values.view(pa.int32())
    elif types.is_boolean(kind):
        values = values.cast(pa.int8())
    return [np.asarray(values.fill_null(0)).astype(np.int64).view(np.uint64) ^ _SIGN]
