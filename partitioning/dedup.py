"""Duplicates inside one batch: the first row of each ID, in input order.

    ids (n, 16) ──► low, high (n,) ──argsort by low──► neighbours with equal low bits ──► confirmed by the high bits

The low half is nearly random whatever the layout, so equal low bits nearly always mean equal IDs; the high half of
layout ``time`` is a millisecond that many events share. Sorting one 64-bit number is several times cheaper than sorting
16-byte strings, and only the rows whose low bits tie are looked at again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ascending", "first_occurrences", "halves", "id_order"]


def halves(ids: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The low (bytes 8-15) and high (bytes 0-7) 64 bits of each ID of shape (rows, 16), for sorting and comparing.

    Both are read little-endian: any fixed order will do, and this one needs no byte swap and puts random bits on top,
    where big-endian would put the constant variant bits.
    """
    words = np.ascontiguousarray(ids).view("<u8").reshape(-1, 2)
    return np.ascontiguousarray(words[:, 1]), np.ascontiguousarray(words[:, 0])


def ascending(low: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The stable order that sorts low halves: indices, shape (rows,).

    Two passes over 16 bits each, for which NumPy's stable sort is a radix sort, leave nearly random numbers all but
    sorted; the last sort then takes linear time, and makes the order right for any numbers. For 131,072 rows this takes
    5 ms where NumPy's stable sort alone takes 11 ms and its default sort, without SIMD, 9 ms.
    """
    words = low.view("<u2").reshape(-1, 4)
    order = np.argsort(words[:, 2], kind="stable")
    order = order[np.argsort(words[order, 3], kind="stable")]
    return order[np.argsort(low[order], kind="stable")]


def first_occurrences(ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True where an ID stands for the first time in `ids` (rows, 16), in input order. Shape (rows,)."""
    low, high = halves(ids)
    rows = ascending(low)
    tied = _tied(low[rows])
    rows = rows[tied]
    # lexsort is stable: among equal IDs the rows stay in input order.
    rows = rows[np.lexsort((high[rows], low[rows]))]
    again = (low[rows][1:] == low[rows][:-1]) & (high[rows][1:] == high[rows][:-1])
    first = np.ones(len(ids), dtype=np.bool_)
    first[rows[1:][again]] = False
    return first


def id_order(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The stable order that sorts IDs (rows, 16) as the databases do, byte by byte: indices, shape (rows,).

    Input in event-time order, the common backfill, is sorted in linear time.
    """
    low, high = (half.byteswap() for half in halves(ids))
    rows = np.argsort(high, kind="stable")
    tied = np.flatnonzero(_tied(high[rows]))
    among = rows[tied]
    rows[tied] = among[np.lexsort((low[among], high[among]))]
    return rows


def _tied(ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which entries of a sorted array equal a neighbour."""
    tied = np.zeros(len(ordered), dtype=np.bool_)
    equal = ordered[1:] == ordered[:-1]
    tied[1:] |= equal
    tied[:-1] |= equal
    return tied
