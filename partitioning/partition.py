"""Partitions: the owner of an event, decided by its ID alone.

The last four bytes of an ID are digest bits in either layout. Read as a big-endian number *h* they name partition
``(h * partitions) >> 32``: multiplication and shift instead of a remainder (Lemire 2016, arXiv:1805.10941), the same on
every machine and in every language; Python's `hash()` is neither, since it is salted per process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["partition_of", "rows_by_partition"]

_MOST = 2**32
_RADIX = 2**16


def partition_of(ids: NDArray[np.uint8], partitions: int) -> NDArray[np.uint32]:
    """The partition, ``0 <= p < partitions``, of each ID of shape (rows, 16). Raises `ValueError` unless 1 to 2³²."""
    if not 1 <= partitions <= _MOST:
        raise ValueError(f"there are 1 to 2**32 partitions, not {partitions}")
    tails = np.ascontiguousarray(ids).view(">u4").reshape(-1, 4)[:, 3]
    return (tails.astype(np.uint64) * np.uint64(partitions) >> np.uint64(32)).astype(np.uint32)


def rows_by_partition(ids: NDArray[np.uint8], partitions: int) -> list[NDArray[np.int32]]:
    """For each partition the numbers of its rows in `ids` (rows, 16), ascending: disjoint, and together all of them."""
    if partitions == 1:
        return [np.arange(len(ids), dtype=np.int32)]
    numbers = partition_of(ids, partitions)
    # a stable sort keeps the rows of a partition in input order; of 16-bit numbers it is a radix sort
    narrow = numbers.astype(np.uint16) if partitions <= _RADIX else numbers
    order = np.argsort(narrow, kind="stable").astype(np.int32)
    edges = np.cumsum(np.bincount(numbers, minlength=partitions))[:-1]
    return np.split(order, edges)
