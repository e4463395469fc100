"""Prints of values: 64 bits for each value of a column, so that rows on two sides can be compared without both at hand.

    column ──► its bits, or XXH3 of its bytes ──► mixed with the column's name ──► a print for each value
    prints of several columns ──sum modulo 2⁶⁴──► a print for each row

Equal values have equal prints, and different values have equal prints only by chance, one in 2⁶⁴. As in SQL, all NaN
are equal, and so are 0.0 and -0.0. A null has a print of its own. Like digests of IDs, prints show what happened;
against an attacker who chooses values they prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

__all__ = ["Prints", "prints_of_column", "row_prints"]

Prints = NDArray[np.uint64]
_NULL = np.uint64(0x9E3779B97F4A7C15)
_ODD = np.uint64(0xC2B2AE3D27D4EB4F)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def prints_of_column(name: str, values: pa.Array, odd: pa.Array | None = None) -> Prints:
    """The prints of `values` (canonical types), shape (rows,). Where `odd` has a text, that counts in place of a null;
    it equals no value.
    """
    seed = np.uint64(xxh3_64_intdigest(name.encode()))
    found = _mixed(_bits(values) ^ seed)
    if values.null_count:
        found[_mask(values.is_null())] = _mixed(np.array([seed ^ _NULL]))[0]
    if odd is not None:
        at = np.flatnonzero(_mask(odd.is_valid()))
        found[at] = _mixed(_hashed(odd.take(pa.array(at))) ^ seed ^ _ODD)
    return found


def row_prints(prints: Mapping[str, Prints], names: Iterable[str], rows: int) -> Prints:
    """The prints of rows by the columns `names`, of which `prints` has those that are to be compared."""
    total = np.zeros(rows, dtype=np.uint64)
    for name in names:
        total += prints[name]
    return total


def _bits(values: pa.Array) -> Prints:
    """Numbers that are equal exactly where the values are, in any form; anything for a null."""
    types, kind = pa.types, values.type
    if types.is_string(kind) or types.is_binary(kind):
        return _hashed(values)
    if types.is_decimal(kind):
        low, high = _words(values)
        return _mixed(low) + high
    if types.is_boolean(kind):
        values = values.cast(pa.uint8())
    elif types.is_floating(kind):
        # -0.0 becomes 0.0, and every NaN the same
        floats: NDArray[np.float64] = np.asarray(values.fill_null(0.0)) + 0.0
        floats[np.isnan(floats)] = np.nan
        return floats.view(np.uint64)
    elif types.is_timestamp(kind):
        values = values.view(pa.int64())
    elif types.is_date(kind):
        values = values.view(pa.int32())
    numbers: NDArray[np.int64] = np.asarray(values.fill_null(0)).astype(np.int64)
    return numbers.view(np.uint64)


def _hashed(values: pa.Array) -> Prints:
    """XXH3 of each text's bytes; each distinct one is hashed once."""
    coded = values.dictionary_encode()
    distinct = coded.dictionary.cast(pa.binary()).to_pylist()
    if not distinct:
        return np.zeros(len(values), dtype=np.uint64)
    hashes = np.array([xxh3_64_intdigest(one) for one in distinct], dtype=np.uint64)
    found: Prints = hashes[np.asarray(coded.indices.fill_null(0))]
    return found


def _words(values: pa.Array) -> tuple[Prints, Prints]:
    """The two halves of decimals."""
    words = np.frombuffer(values.buffers()[1], dtype=np.uint64).reshape(-1, 2)
    words = words[values.offset : values.offset + len(values)]
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])


def _mixed(numbers: Prints) -> Prints:
    """The numbers so that each bit depends on all (the last step of SplitMix64)."""
    mixed = numbers ^ numbers >> np.uint64(30)
    mixed *= _FACTORS[0]
    mixed ^= mixed >> np.uint64(27)
    mixed *= _FACTORS[1]
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _mask(array: pa.Array) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = array.to_numpy(zero_copy_only=False)
    return mask
