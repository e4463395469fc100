"""Sorted runs: parts of a set of IDs, in memory while small, in memory-mapped files when they have grown.

    low  ▁▂▃▄▅▆▇█   8 bytes per ID, ascending        every search reads this
    high ▅▁▇▂█▃▆▄   8 bytes per ID, beside its low   read only where the low halves agree

The two halves lie in separate files, so that a search that finds nothing touches half of the set. Touched pages of a
mapped file count as the process's memory until they are given back; so a search goes through a file in slices of
bounded size, each released before the next is touched. The pages stay in the system's cache: touching them again
costs a minor fault per 64 KiB or more. A merge reads instead of mapping: Linux maps whole large folios, 2 MiB each and
backwards too, and sixteen half-read files at once held 80 MiB more than they read.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["FileRun", "MemoryRun", "Run", "found_in", "merged"]

_SLICE = 1 << 19  # IDs that a search maps between two releases: 4 MiB of each file
_PART = 1 << 17  # IDs that a merge holds at once: some 6 MiB with the sort's own
_FEWEST_READ = 1 << 10
_WORD = 8

Words = NDArray[np.uint64]


class MemoryRun:
    """IDs by their halves, ascending by `low`, on the heap."""

    def __init__(self, low: Words, high: Words) -> None:
        self.low = low
        self.high = high

    def __len__(self) -> int:
        return len(self.low)

    def read(self, start: int, stop: int) -> tuple[Words, Words]:
        """The halves of IDs `start` to `stop`."""
        return self.low[start:stop], self.high[start:stop]

    def release(self, start: int, stop: int) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to remove."""


class FileRun:
    """IDs by their halves, ascending by `low`, in two memory-mapped files that only the owner can read."""

    def __init__(self, folder: Path, name: str, parts: Iterator[tuple[Words, Words]]) -> None:
        self._paths = (folder / f"{name}.low", folder / f"{name}.high")
        # they stay open: what is removed while it is in use can still be read
        self._files = tuple(_create(path) for path in self._paths)
        for part in parts:
            for file, half in zip(self._files, part, strict=True):
                file.write(half.data)
        self._maps = tuple(_mapped(file) for file in self._files)
        self.low, self.high = (np.frombuffer(area, dtype=np.uint64) for area in self._maps)

    def __len__(self) -> int:
        return len(self.low)

    def read(self, start: int, stop: int) -> tuple[Words, Words]:
        """The halves of IDs `start` to `stop`, copied without mapping them."""
        size, offset = (stop - start) * _WORD, start * _WORD
        low, high = (np.frombuffer(_read(file, size, offset), dtype=np.uint64) for file in self._files)
        return low, high

    def release(self, start: int, stop: int) -> None:
        """Give back the pages of IDs `start` to `stop`; what is read again is mapped again."""
        first = start * _WORD // mmap.PAGESIZE * mmap.PAGESIZE
        length = min(stop, len(self)) * _WORD - first
        for area in self._maps:
            area.madvise(mmap.MADV_DONTNEED, first, length)

    def close(self) -> None:
        """Remove the files; the mapping goes with the last array that views it."""
        for path, file in zip(self._paths, self._files, strict=True):
            path.unlink(missing_ok=True)
            file.close()


Run = MemoryRun | FileRun


def found_in(run: Run, low: Words, high: Words) -> NDArray[np.bool_]:
    """Which of the IDs, ascending by `low`, are in `run`. Shape (rows,)."""
    found = np.zeros(len(low), dtype=np.bool_)
    starts = [*range(0, len(run), _SLICE), len(run)]
    # An ID is looked for in the slice where its low half would be inserted leftmost: up to the slice's last low.
    edges = [0, *np.searchsorted(low, run.low[_SLICE - 1 :: _SLICE], side="right").tolist(), len(low)]
    for (start, stop), (first, last) in zip(pairwise(starts), pairwise(edges), strict=False):
        if first < last:
            places = np.searchsorted(run.low[start:stop], low[first:last]) + start
            found[first:last] = _confirmed(run, places, low[first:last], high[first:last])
            run.release(start, stop)
    return found


def merged(runs: Sequence[Run]) -> Iterator[tuple[Words, Words]]:
    """The IDs of all `runs` in ascending order, as parts (low, high) of at most about 131,072 IDs.

    A little of each run is held at a time, in proportion to its length. What lies up to the least of their last low
    halves cannot be preceded by anything that is still to be read; so it can go out.
    """
    total = sum(map(len, runs))
    heads = [_Head(run, max(_FEWEST_READ, _PART * len(run) // total)) for run in runs]
    while heads:
        for head in heads:
            head.fill()
        limit = min((head.low[-1] for head in heads if not head.at_end), default=None)
        yield _sorted_together([head.take(limit) for head in heads])
        heads = [head for head in heads if not head.at_end or len(head.low)]


def _confirmed(run: Run, places: NDArray[np.int64], low: Words, high: Words) -> NDArray[np.bool_]:
    """Which IDs stand in `run` at their place or, where several low halves tie, at one of the next."""
    found = np.zeros(len(low), dtype=np.bool_)
    unsure = np.flatnonzero(places < len(run))
    while len(unsure):
        unsure = unsure[run.low[places[unsure]] == low[unsure]]
        same = run.high[places[unsure]] == high[unsure]
        found[unsure[same]] = True
        unsure = unsure[~same]
        places[unsure] += 1
        unsure = unsure[places[unsure] < len(run)]
    return found


class _Head:
    """The part of a run that a merge holds: `low` and `high` of the next IDs, `size` of them after `fill`."""

    def __init__(self, run: Run, size: int) -> None:
        self._run = run
        self._size = size
        self._next = 0
        self.low, self.high = run.read(0, 0)

    @property
    def at_end(self) -> bool:
        return self._next == len(self._run)

    def fill(self) -> None:
        stop = min(self._next + self._size - len(self.low), len(self._run))
        low, high = self._run.read(self._next, stop)
        self.low, self.high = np.concatenate([self.low, low]), np.concatenate([self.high, high])
        self._next = stop

    def take(self, limit: np.uint64 | None) -> tuple[Words, Words]:
        """The IDs whose low half is at most `limit`, which then are no longer held."""
        count = len(self.low) if limit is None else int(np.searchsorted(self.low, limit, side="right"))
        taken = self.low[:count], self.high[:count]
        self.low, self.high = self.low[count:], self.high[count:]
        return taken


def _sorted_together(parts: Sequence[tuple[Words, Words]]) -> tuple[Words, Words]:
    """Ascending parts as one. NumPy's stable sort finds stretches that ascend and merges them in linear time."""
    low, high = np.concatenate([low for low, _ in parts]), np.concatenate([high for _, high in parts])
    order = np.argsort(low, kind="stable")
    return low[order], high[order]


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")


def _mapped(file: BinaryIO) -> mmap.mmap:
    file.flush()
    return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def _read(file: BinaryIO, size: int, offset: int) -> bytes:
    blocks: list[bytes] = []
    while size and (block := os.pread(file.fileno(), size, offset)):
        blocks.append(block)
        size, offset = size - len(block), offset + len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)
