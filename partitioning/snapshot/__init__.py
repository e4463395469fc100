"""Sets of IDs outside the Python heap, and the snapshot: the existing IDs with the times they cover.

                     ┌─ presence ──► "no": most new events end here, at 15 ns
    contains(ids) ───┤
                     └─ runs ──────► searched by the low 64 bits, confirmed with the high 64 bits

    add(ids) ──sort──► a new run ──8 of a size──► merged into one of the next size; from 4 MiB on, in files

A snapshot only saves work: the unique key in the database decides. But a snapshot that claims to cover times it has not
fetched sends every old event down the fast path to be refused there; so coverage is claimed only after the last block.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from headrace.errors import HeadraceError
from headrace.partitioning.dedup import SortedIds
from headrace.partitioning.folders import private_folder
from headrace.partitioning.snapshot.bloom import Presence
from headrace.partitioning.snapshot.coverage import BLOCK_US, EVERYTHING, Coverage, Segment
from headrace.partitioning.snapshot.runs import FileRun, MemoryRun, Run, found_in, merged

__all__ = ["BLOCK_US", "EVERYTHING", "IdRuns", "Segment", "Snapshot", "gathered"]

_FAN_OUT = 8  # runs of one size that are merged into one of the next
_IN_MEMORY = 1 << 18  # runs of fewer IDs than this (4 MiB) stay on the heap
_GATHERED = 1 << 18  # IDs of a fetch that are added at once


class IdRuns:
    """A set of IDs, 16 bytes each, in sorted runs under a folder of its own inside `folder`. For one thread.

    About one to two bytes per ID and the small runs (at most 30 MiB) are on the heap. Every method raises
    `HeadraceError` if the files cannot be written and `ValueError` after `close`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ids-", dir=private_folder(folder)))
        self._runs: list[Run] = []
        self._presence = Presence(0)
        self._length = 0
        self._made = 0
        self._closed = False

    def __len__(self) -> int:
        return self._length

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def contains(self, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of `ids` (rows, 16), in any order and repeated or not, are in the set. Shape (rows,)."""
        ordered = SortedIds.of(ids)
        found = np.empty(len(ids), dtype=np.bool_)
        found[ordered.rows] = self.contains_sorted(ordered)
        return found

    def contains_sorted(self, ids: SortedIds) -> NDArray[np.bool_]:
        """Which of `ids` are in the set, in their order. Shape (rows,)."""
        self._check_open()
        found = np.zeros(len(ids), dtype=np.bool_)
        places = np.flatnonzero(self._presence.maybe(ids.low))
        for run in sorted(self._runs, key=len, reverse=True):
            if len(places) == 0:
                break
            here = found_in(run, ids.low[places], ids.high[places])
            found[places[here]] = True
            places = places[~here]
        return found

    def add(self, ids: NDArray[np.uint8]) -> None:
        """Add `ids` (rows, 16): distinct, and none of them in the set yet (`contains` and `first_occurrences` say)."""
        self.add_sorted(SortedIds.of(ids))

    def add_sorted(self, ids: SortedIds) -> None:
        """The same for IDs in order."""
        self._check_open()
        if len(ids) == 0:
            return
        run = MemoryRun(ids.low, ids.high)
        self._runs.append(self._settled([run]))
        self._length += len(run)
        self._remember(run)
        self._merge_equals()

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """All IDs, some of them at a time, each block of shape (rows, 16). Nothing may be added meanwhile."""
        self._check_open()
        for low, high in merged(self._runs) if self._runs else ():
            yield SortedIds(low, high, np.arange(len(low))).packed()

    def sample(self, most: int) -> NDArray[np.uint8]:
        """All IDs, or `most` of them, evenly by their low halves: as good as drawn by lot. Shape (rows, 16)."""
        self._check_open()
        step = max(1, -(-self._length // most))
        block = step * max(1, _IN_MEMORY // step)
        parts = [np.empty((0, 16), dtype=np.uint8)]
        for run in self._runs:
            for start in range(0, len(run), block):
                low, high = run.read(start, min(len(run), start + block))
                parts.append(np.column_stack([high[::step], low[::step]]).view(np.uint8).reshape(-1, 16))
        return np.concatenate(parts)

    def close(self) -> None:
        """Remove the set and its files. Idempotent."""
        self._closed = True
        for run in self._runs:
            run.close()
        self._runs = []
        self._presence = Presence(0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _remember(self, run: Run) -> None:
        """Enter a run in the filter, or every run in a larger filter when this one is full."""
        if self._length <= self._presence.capacity:
            self._presence.add(run.low)
            return
        self._presence = Presence(self._length)
        for known in self._runs:
            for low, _ in merged([known]):
                self._presence.add(low)

    def _merge_equals(self) -> None:
        """Merge runs of one size, so that their number grows with the logarithm of the set."""
        tier = 0
        while tier <= max(map(_tier, self._runs)):
            equals = [run for run in self._runs if _tier(run) == tier]
            if len(equals) >= _FAN_OUT:
                together = self._settled(equals)
                self._runs = [*(run for run in self._runs if _tier(run) != tier), together]
                for run in equals:
                    run.close()
            tier += 1

    def _settled(self, runs: list[Run] | list[MemoryRun]) -> Run:
        """The IDs of `runs` as one run, on the heap or in files as its size demands."""
        length = sum(map(len, runs))
        if length < _IN_MEMORY:
            return runs[0] if len(runs) == 1 else MemoryRun(*_joined(list(merged(runs))))
        self._made += 1
        try:
            return FileRun(private_folder(self._folder), str(self._made), merged(runs))
        except OSError as error:
            raise HeadraceError(
                f"cannot keep {length:,} event IDs in temporary files ({error})",
                where=str(self._folder),
                hint="free some space there, or set TMPDIR to a folder with more; then run again to resume",
            ) from error

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this set of IDs is closed")


class Snapshot:
    """The existing IDs, fetched from the store, and which part of the time axis they cover."""

    def __init__(self, folder: Path) -> None:
        self._ids = IdRuns(folder)
        self._coverage = Coverage()

    def __len__(self) -> int:
        return len(self._ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def complete(self) -> bool:
        """Whether every time is covered, those before the year 1 included."""
        return self._coverage.complete

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The covered times: disjoint, ascending."""
        return self._coverage.segments

    def extend(self, blocks: Iterator[bytes], covers: Segment | None) -> None:
        """Add the packed IDs of all events whose time lies in `covers`; others, and known ones, do no harm.

        `None` claims no times: a limit cut the fetch short.

        `blocks` is read to its end; if it fails, its error is passed on and nothing is claimed to be covered.
        """
        for packed in gathered(blocks):
            self.add(np.frombuffer(packed, dtype=np.uint8).reshape(-1, 16))
        if covers is not None:
            self._coverage.add(covers)

    def add(self, ids: NDArray[np.uint8]) -> None:
        """Add `ids` (rows, 16) that are in the store, repeated or known already or not."""
        ordered = SortedIds.of(ids)
        self._ids.add_sorted(ordered.where(ordered.first() & ~self._ids.contains_sorted(ordered)))

    def known(self, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of `ids` (rows, 16) are in the snapshot: these are in the store, whatever their time."""
        return self._ids.contains(ids)

    def known_sorted(self, ids: SortedIds) -> NDArray[np.bool_]:
        """The same for IDs in order, in their order."""
        return self._ids.contains_sorted(ids)

    def covers(self, times_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where absence from the snapshot means absence from the store as of the fetch. Shape (rows,)."""
        return self._coverage.covers(times_us)

    def missing_segments(self, times_us: NDArray[np.int64]) -> list[Segment]:
        """What must still be fetched to cover these times: whole 30-day blocks counted from 1970, ascending.

        Less what is covered already; neighbours are one segment, and so are scattered ones beyond the 16th.
        """
        return self._coverage.missing(times_us)

    def close(self) -> None:
        """Remove the IDs and their files. Idempotent."""
        self._ids.close()


def _tier(run: Run) -> int:
    """The order of magnitude of a run's length, to the base of the fan-out."""
    return (len(run).bit_length() - 1) // (_FAN_OUT.bit_length() - 1)


def _joined(
    parts: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return np.concatenate([low for low, _ in parts]), np.concatenate([high for _, high in parts])


def gathered(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces: one large sort costs less for each ID than many small sorts and their merges."""
    pieces: list[bytes] = []
    for block in blocks:
        pieces.append(block)
        if sum(map(len, pieces)) >= _GATHERED * 16:
            yield b"".join(pieces)
            pieces = []
    yield b"".join(pieces)
