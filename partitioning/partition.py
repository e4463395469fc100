"""Partitions: which owner an event has, decided by its ID alone.

The last four bytes of an ID are digest bits in either layout. Read as a big-endian number *h* they name partition
``(h * partitions) >> 32``: multiplication and shift instead of a remainder (Lemire 2016, arXiv:1805.10941), the same on
every machine and in every language; Python's `hash()` is neither, since it is salted per process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["partition_of"]

_MOST = 2**32


def partition_of(ids: NDArray[np.uint8], partitions: int) -> NDArray[np.uint32]:
    """The partition, ``0 <= p < partitions``, of each ID of shape (rows, 16). Raises `ValueError` unless 1 to 2³²."""
    if not 1 <= partitions <= _MOST:
        raise ValueError(f"there are 1 to 2**32 partitions, not {partitions}")
    tails = np.ascontiguousarray(ids).view(">u4").reshape(-1, 4)[:, 3]
    return (tails.astype(np.uint64) * np.uint64(partitions) >> np.uint64(32)).astype(np.uint32)
