"""IDs with a number each, more than memory holds: kept in a file by hash, and returned a bucket at a time.

    add(ids, tags) ──gathered──► sorted by bucket ──► one block of the file      block 0   ▁▁▂▂▂▃▃▄ …
                                                                                 block 1   ▁▂▂▃▃▃▃▄ …
    bucket(2) ◄── its stretch of every block, in the order of adding                         ‾‾

Two such sets are compared bucket by bucket: equal IDs lie in buckets of equal number, each a 256th of its set. For 50
million IDs a bucket is 4.7 MB. A file is written in large blocks and never mapped, so that nothing but the bucket in
hand counts as memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headrace.errors import HeadraceError

__all__ = ["BUCKETS", "TaggedIds", "buckets_of"]

BUCKETS = 256
_BLOCK = 6 << 20  # bytes

Ids = NDArray[np.uint8]
Tags = NDArray[np.int64]


def buckets_of(ids: Ids) -> Ids:
    """The bucket, 0 to 255, of each of `ids` (rows, 16). Shape (rows,)."""
    return ids[:, 12]


class TaggedIds:
    """IDs with tags in a file of its own inside `folder`, 24 bytes each. For one thread.

    Each may have something `more`, of a NumPy type of fixed size. Raises `HeadraceError` if the file cannot be written.
    """

    def __init__(self, folder: Path, name: str, more: np.dtype[Any] | None = None) -> None:
        fields = [("id", np.uint8, 16), ("tag", np.int64)]
        self._record = np.dtype(fields if more is None else [*fields, ("more", more)])
        self._path = folder / f"{name}.ids"
        self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b", buffering=0)
        self._gathered: list[tuple[Ids, Tags, NDArray[Any] | None]] = []
        self._waiting = 0
        self._written = 0
        self._edges: list[NDArray[np.int64]] = []

    def __len__(self) -> int:
        return self._written + self._waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, ids: Ids, tags: Tags, more: NDArray[Any] | None = None) -> None:
        """Add `ids` (rows, 16), repeated or not, with the number in `tags` (rows,) for each, and `more` (rows,)."""
        self._gathered.append((ids, tags, more))
        self._waiting += len(ids)
        if self._waiting * self._record.itemsize >= _BLOCK:
            self._write()

    def bucket(self, number: int) -> tuple[Ids, Tags]:
        """The IDs (rows, 16) of bucket 0 to 255 and their tags (rows,), in the order in which they were added."""
        records = self.records(number)
        return np.ascontiguousarray(records["id"]), np.ascontiguousarray(records["tag"])

    def records(self, number: int) -> NDArray[Any]:
        """The additions to bucket 0 to 255, in that order, as records of ``id``, ``tag`` and ``more``, if any."""
        self._write()
        parts = [self._stretch(edges[number], edges[number + 1]) for edges in self._edges]
        return np.concatenate([np.empty(0, self._record), *parts])

    def close(self) -> None:
        """Remove the file. Idempotent."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _stretch(self, start: int, stop: int) -> NDArray[Any]:
        self._file.seek(int(start) * self._record.itemsize)
        return np.fromfile(self._file, dtype=self._record, count=int(stop - start))

    def _write(self) -> None:
        """Write what was gathered as one block."""
        if not self._waiting:
            return
        ids = np.concatenate([part for part, _, _ in self._gathered])
        bucket = buckets_of(ids)
        order = np.argsort(bucket, kind="stable")  # of bytes: a radix sort
        records = np.empty(len(ids), dtype=self._record)
        records["id"] = np.take(ids, order, axis=0)
        records["tag"] = np.concatenate([tags for _, tags, _ in self._gathered])[order]
        if "more" in (self._record.names or ()):
            records["more"] = np.concatenate([more for _, _, more in self._gathered if more is not None])[order]
        self._edges.append(self._written + np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=BUCKETS))]))
        try:
            self._file.seek(0, os.SEEK_END)
            records.tofile(self._file)
        except OSError as error:
            raise HeadraceError(
                f"cannot keep {len(self):,} event IDs in temporary files ({error})",
                where=str(self._path.parent),
                hint="free some space there, or set TMPDIR to a folder with more; then run again",
            ) from error
        self._written += len(ids)
        self._gathered, self._waiting = [], 0
