"""Duplicates inside one batch: the first row of each ID, in input order.

    ids (n, 16) ──► low, high (n,) ──argsort by low──► neighbours with equal low bits ──► confirmed by the high bits

The low half is nearly random whatever the layout, so equal low bits nearly always mean equal IDs; the high half of
layout ``time`` is a millisecond that many events share. Sorting one 64-bit number is several times cheaper than sorting
16-byte strings, and only the rows whose low bits tie are looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["SortedIds", "among", "ascending", "first_occurrences", "groups", "halves", "id_order"]


@dataclass(frozen=True, slots=True)
class SortedIds:
    """IDs of a batch by their halves, ascending by `low` (stable), and each one's row in the batch.

    Sorted once, so that the searches and the sets that all need this order need not each sort for themselves.
    """

    low: NDArray[np.uint64]
    high: NDArray[np.uint64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, ids: NDArray[np.uint8]) -> Self:
        """`ids` (rows, 16), sorted."""
        low, high = halves(ids)
        rows = ascending(low)
        return cls(low[rows], high[rows], rows)

    def __len__(self) -> int:
        return len(self.low)

    def where(self, mask: NDArray[np.bool_]) -> SortedIds:
        """The IDs for which `mask` holds; it has their order."""
        return SortedIds(self.low[mask], self.high[mask], self.rows[mask])

    def packed(self) -> NDArray[np.uint8]:
        """The IDs themselves in this order, shape (rows, 16)."""
        return np.column_stack([self.high, self.low]).astype("<u8", copy=False).view(np.uint8).reshape(-1, 16)

    def first(self) -> NDArray[np.bool_]:
        """True where an ID stands for the first time in input order; in this order."""
        tied = np.flatnonzero(_tied(self.low))
        # lexsort is stable: among equal IDs the rows stay in input order.
        among = tied[np.lexsort((self.high[tied], self.low[tied]))]
        again = (self.low[among][1:] == self.low[among][:-1]) & (self.high[among][1:] == self.high[among][:-1])
        first = np.ones(len(self), dtype=np.bool_)
        first[among[1:][again]] = False
        return first


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


def among(ids: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of `ids` (rows, 16) are in `others` (rows, 16). Shape (rows,)."""
    group, first = groups(np.concatenate([others, ids]))
    there = np.zeros(len(first), dtype=np.bool_)
    there[group[: len(others)]] = True
    return there[group[len(others) :]]


def first_occurrences(ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True where an ID stands for the first time in `ids` (rows, 16), in input order. Shape (rows,)."""
    ordered = SortedIds.of(ids)
    first = np.empty(len(ids), dtype=np.bool_)
    first[ordered.rows] = ordered.first()
    return first


def groups(ids: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows of `ids` (rows, 16) have the same ID: each row's group, shape (rows,), and each group's first row,
    shape (groups,). Groups are numbered in no particular order.
    """
    low, high = halves(ids)
    rows = ascending(low)
    tied = np.flatnonzero(_tied(low[rows]))
    among = rows[tied]
    rows[tied] = among[np.lexsort((high[among], low[among]))]
    begins = np.ones(len(ids), dtype=np.bool_)
    begins[1:] = (low[rows][1:] != low[rows][:-1]) | (high[rows][1:] != high[rows][:-1])
    group = np.empty(len(ids), dtype=np.int64)
    group[rows] = np.cumsum(begins) - 1
    return group, rows[begins]


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
