"""A sum over event IDs that PostgreSQL computes itself: equal sums and counts mean the same IDs, and nothing is sent.

    Σ uuid_hash_extended(event_id, 0)   on the server: any plan, in parallel, one number comes back
    Σ hashed(ids)                       here: the same function over whole columns

PostgreSQL's hash is Bob Jenkins' lookup3, 64 bits of it, and has not changed since PostgreSQL 11; since hash partitions
rest on it, it will not. A server whose function gives something else for `PROBE` is not believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

__all__ = ["HASH_OF_PROBE", "PROBE", "IdSum", "hashed"]

Words = NDArray[np.uint32]
PROBE = UUID("00112233-4455-8677-8899-aabbccddeeff")
_START = np.uint32((0x9E3779B9 + 16 + 3923095) & 0xFFFFFFFF)
_MIX = (4, 6, 8, 16, 19, 4)
_FINAL = (14, 11, 25, 16, 4, 14, 24)


@dataclass(frozen=True, slots=True)
class IdSum:
    """How many IDs there are, and the sum of their hashes as signed numbers."""

    count: int = 0
    total: int = 0

    @classmethod
    def of(cls, ids: NDArray[np.uint8]) -> IdSum:
        """The sum of `ids` (rows, 16)."""
        hashes = hashed(ids)
        # by halves, so that nothing overflows
        total = (int((hashes >> 32).sum()) << 32) + int((hashes & 0xFFFFFFFF).sum())
        return cls(len(ids), total)

    def __add__(self, other: IdSum) -> IdSum:
        return IdSum(self.count + other.count, self.total + other.total)


def hashed(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """``uuid_hash_extended(id, 0)`` of each of `ids` (rows, 16). Shape (rows,)."""
    words = np.ascontiguousarray(ids).view("<u4").reshape(-1, 4)
    a, b, c = (np.full(len(words), _START, dtype=np.uint32) for _ in range(3))
    a += words[:, 0]
    b += words[:, 1]
    c += words[:, 2]
    for bits in _MIX:
        a -= c
        a ^= _turned(c, bits)
        c += b
        a, b, c = b, c, a
    a += words[:, 3]
    for bits in _FINAL:
        c ^= b
        c -= _turned(b, bits)
        a, b, c = b, c, a
    # the turns above have left them one place on
    a, b, c = c, a, b
    found: NDArray[np.int64] = (b.astype(np.uint64) << np.uint64(32) | c).view(np.int64)
    return found


def _turned(word: Words, bits: int) -> Words:
    turned: Words = word << np.uint32(bits) | word >> np.uint32(32 - bits)
    return turned


HASH_OF_PROBE = int(hashed(np.frombuffer(PROBE.bytes, dtype=np.uint8).reshape(1, 16))[0])
