"""A filter that says "certainly not in the set" without touching the set.

    low half ─── top bits ──► one 64-bit word         8 to 16 bits of filter for each ID
             └── 3 of 6 bits ► three bits in that word: all set ──► maybe in the set

A Bloom filter whose bits for one ID share a word (Putze, Sanders and Singler 2007), so that a test costs one memory
access. One to four in a hundred IDs that are not in the set pass it, and only those are searched in the runs. The low
half is random already: its own bits serve as the hash functions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Presence"]

_BITS_PER_ID = 8
_WORD_BITS = 64
_FEWEST_WORDS = 1 << 14  # 128 KiB
_CHOICES = (0, 8, 16)  # where the three bit numbers stand in the low half; bits 6 and 7 are the UUID's variant


class Presence:
    """Remembers the low halves of at least `capacity` IDs, in one to two bytes for each."""

    def __init__(self, capacity: int) -> None:
        words = max(_FEWEST_WORDS, 1 << (capacity * _BITS_PER_ID // _WORD_BITS).bit_length())
        self.capacity = words * _WORD_BITS // _BITS_PER_ID
        self._shift = np.uint64(64 - (words.bit_length() - 1))
        self._words = np.zeros(words, dtype=np.uint64)

    def add(self, low: NDArray[np.uint64]) -> None:
        """Remember ascending low halves."""
        if len(low) == 0:
            return
        place = low >> self._shift
        # Ascending input puts what belongs to one word side by side: reduceat is several times faster than ufunc.at.
        starts = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
        self._words[place[starts]] |= np.bitwise_or.reduceat(_bits(low), starts)

    def maybe(self, low: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """False where a low half was certainly never added. Shape (rows,)."""
        bits = _bits(low)
        passed: NDArray[np.bool_] = (self._words[low >> self._shift] & bits) == bits
        return passed


def _bits(low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = np.zeros(len(low), dtype=np.uint64)
    for choice in _CHOICES:
        bits |= np.uint64(1) << (low >> np.uint64(choice) & np.uint64(_WORD_BITS - 1))
    return bits
