"""Digests of sets of event IDs that do not depend on order: count, XOR and sum, for each of 16 parts of the hash space.

    IDs ──by the first 4 of their last 32 bits──► part 0 … part 15 ──► count · XOR of the 128 bits · sum modulo 2¹²⁸

Digests of disjoint sets add up to the digest of their union, in any order and any grouping: those in a table's receipts
add up to the digest of what was inserted, however many workers inserted it. The part of an ID is its partition of 16
(`headrace.partitioning.partition`), whatever the load's own number of partitions was.

They show a loss, a repetition or a swap that happened. Against an attacker who chooses IDs that cancel out they prove
nothing, and neither do IDs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTHING", "PARTS", "Digest", "DigestPart", "parts_of"]

PARTS = 16
_BITS = 128
_MASK = (1 << _BITS) - 1
_RECORD = 1 + 8 + 16 + 16  # part, count, XOR, sum


@dataclass(frozen=True, slots=True)
class DigestPart:
    """The count of some IDs, and their XOR and their sum modulo 2¹²⁸ as big-endian numbers."""

    count: int = 0
    xor: int = 0
    sum: int = 0

    def __add__(self, other: DigestPart) -> DigestPart:
        return DigestPart(self.count + other.count, self.xor ^ other.xor, (self.sum + other.sum) & _MASK)

    def __sub__(self, other: DigestPart) -> DigestPart:
        """What `self` has beyond `other`, if `other` is a part of it."""
        return DigestPart(self.count - other.count, self.xor ^ other.xor, (self.sum - other.sum) & _MASK)

    @property
    def only_id(self) -> bytes | None:
        """The only ID in this digest; ``None`` if it cannot be the digest of a single ID."""
        return self.xor.to_bytes(16, "big") if self.count == 1 and self.xor == self.sum else None


_EMPTY = DigestPart()


@dataclass(frozen=True, slots=True)
class Digest:
    """A `DigestPart` for each of the 16."""

    parts: tuple[DigestPart, ...] = (_EMPTY,) * PARTS

    @classmethod
    def of(cls, ids: NDArray[np.uint8]) -> Digest:
        """The digest of `ids` (rows, 16), in any order. A repeated ID counts each time."""
        if len(ids) == 0:
            return NOTHING
        part = parts_of(ids)
        order = np.argsort(part, kind="stable")  # of bytes: a radix sort
        counts = np.bincount(part, minlength=PARTS)
        present = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[present]
        words = np.take(np.ascontiguousarray(ids).view(np.uint64).reshape(-1, 2), order, axis=0)
        high, low = (_reduced(words[:, half], starts) for half in (0, 1))
        parts = [_EMPTY] * PARTS
        for at, number in enumerate(present):
            xor = high.xors[at] << 64 | low.xors[at]
            parts[number] = DigestPart(int(counts[number]), xor, (high.sums[at] << 64) + low.sums[at] & _MASK)
        return cls(tuple(parts))

    @classmethod
    def of_packed(cls, packed: bytes | memoryview) -> Digest:
        """The digest of IDs packed one after the other."""
        return cls.of(np.frombuffer(packed, dtype=np.uint8).reshape(-1, 16))

    def __add__(self, other: Digest) -> Digest:
        return Digest(tuple(one + two for one, two in zip(self.parts, other.parts, strict=True)))

    @property
    def whole(self) -> DigestPart:
        """All parts as one."""
        return sum(self.parts, _EMPTY)

    def differing(self, other: Digest) -> list[int]:
        """The numbers of the parts that differ."""
        return [at for at in range(PARTS) if self.parts[at] != other.parts[at]]

    def to_bytes(self) -> bytes:
        """41 bytes for each part that is not empty, as a receipt keeps them."""
        return b"".join(
            bytes([at]) + part.count.to_bytes(8, "big") + part.xor.to_bytes(16, "big") + part.sum.to_bytes(16, "big")
            for at, part in enumerate(self.parts)
            if part != _EMPTY
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Digest:
        """What `to_bytes` wrote."""
        parts = [_EMPTY] * PARTS
        for start in range(0, len(data), _RECORD):
            count, xor, total = (
                int.from_bytes(data[start + low : start + high], "big") for low, high in ((1, 9), (9, 25), (25, 41))
            )
            parts[data[start]] = DigestPart(count, xor, total)
        return cls(tuple(parts))

    def to_list(self) -> list[dict[str, object]]:
        """Plain data, for JSON: ``{"partition", "count", "xor", "sum"}`` of each part, the numbers in hex."""
        return [
            {"partition": at, "count": part.count, "xor": f"{part.xor:032x}", "sum": f"{part.sum:032x}"}
            for at, part in enumerate(self.parts)
        ]

    @classmethod
    def from_list(cls, data: Iterable[Mapping[str, object]]) -> Digest:
        """What `to_list` gave. Raises `ValueError` or `KeyError` for anything else."""
        parts = tuple(
            DigestPart(int(str(one["count"])), int(str(one["xor"]), 16), int(str(one["sum"]), 16)) for one in data
        )
        if len(parts) != PARTS:
            raise ValueError(f"{len(parts)} parts are not {PARTS}")
        return cls(parts)


NOTHING = Digest()


def parts_of(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The part, 0 to 15, of each of `ids` (rows, 16). Shape (rows,)."""
    return ids[:, 12] >> np.uint8(4)


class _Reduced(NamedTuple):
    xors: list[int]
    sums: list[int]


def _reduced(words: NDArray[np.uint64], starts: NDArray[np.int64]) -> _Reduced:
    """XOR and sum of each stretch of big-endian `words`. Summed by 32 bits, so that 2³² words do not overflow."""
    values = np.ascontiguousarray(words)
    if sys.byteorder == "little":
        values = values.byteswap()
    upper = np.add.reduceat(values >> np.uint64(32), starts).tolist()
    lower = np.add.reduceat(values & np.uint64(0xFFFFFFFF), starts).tolist()
    sums = [(above << 32) + below for above, below in zip(upper, lower, strict=True)]
    return _Reduced(np.bitwise_xor.reduceat(values, starts).tolist(), sums)
