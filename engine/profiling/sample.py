"""The first rows of some inputs, as inputs themselves: whole chunks, until the sample is full.

    Sample(items, rows) ──inputs()──► the same inputs, which end with the chunk that makes the sample full
                        ──total───► how many rows all inputs have, told from the share of their bytes that was read

Chunks are not cut: the sample's are those that the whole load would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from math import inf

import pyarrow as pa

from headrace.reading.chunk import Chunk
from headrace.reading.inputs import Input, ReadOptions
from headrace.reading.ranges import Ranges
from headrace.reading.reader import RawLine

__all__ = ["Sample"]


class Sample:
    """The first `rows` rows of `items` (0: all of them), as often as they are wanted."""

    def __init__(self, items: Sequence[Input], rows: int) -> None:
        self._items = items
        self._rows = rows
        self._seen: dict[str, tuple[int, float]] = {}

    def inputs(self) -> list[Input]:
        """The inputs, fresh; only one such list may be read at a time."""
        self._left = self._rows or inf
        return [_Part(item, self) for item in self._items]

    @property
    def total(self) -> int | None:
        """The rows of all inputs, estimated; ``None`` before anything was read, or where nothing can be told."""
        rows = sum(self._seen[item.name][0] for item in self._items if item.name in self._seen)
        if self.is_everything:
            return rows
        sizes = [item.size or 0 for item in self._items]
        read = sum(size * self._share(item) for size, item in zip(sizes, self._items, strict=True))
        counts = [item.count for item in self._items]
        if all(count is not None for count in counts):
            return sum(count or 0 for count in counts)
        return round(rows * sum(sizes) / read) if rows and read else None

    def has_ranges(self, options: ReadOptions) -> bool:
        """Whether the sample is a part of inputs which, in a load of all, workers read."""
        return not self.is_everything and all(item.ranges(pa.schema([]), options) for item in self._items)

    def _share(self, item: Input) -> float:
        return self._seen[item.name][1] if item.name in self._seen else 0.0

    def take(self, item: Input, rows: int) -> None:
        """A chunk of `item` has been read."""
        self._left -= rows
        before, _ = self._seen.get(item.name, (0, 0.0))
        self._seen[item.name] = (before + rows, item.share_read)

    def begin(self, item: Input) -> bool:
        """Whether anything of `item` is wanted."""
        if self.full:
            return False
        self._seen[item.name] = (0, 0.0)
        return True

    @property
    def is_everything(self) -> bool:
        """Whether all rows are wanted."""
        return self._rows == 0

    @property
    def full(self) -> bool:
        """Whether the sample is full."""
        return self._left <= 0


class _Part:
    """An input up to the chunk that makes the sample full."""

    durable = False

    def __init__(self, item: Input, sample: Sample) -> None:
        self._item = item
        self._sample = sample
        self.name = item.name
        self.fingerprint = f"sample of {item.fingerprint}"
        self.size = item.size

    @property
    def share_read(self) -> float:
        return self._item.share_read

    @property
    def count(self) -> int | None:
        return self._item.count

    def infer(self, options: ReadOptions) -> pa.Schema:
        return self._item.infer(options)

    def chunks(self, schema: pa.Schema, options: ReadOptions) -> Iterator[Chunk]:
        if not self._sample.begin(self._item):
            return
        with closing(_generator(self._item.chunks(schema, options))) as chunks:
            for chunk in chunks:
                self._sample.take(self._item, chunk.address.rows)
                yield chunk
                if self._sample.full:
                    return

    def ranges(self, schema: pa.Schema, options: ReadOptions) -> Ranges | None:
        """The whole input's; none of a part, which must end with the same row in both modes."""
        ranges = self._item.ranges(schema, options) if self._sample.is_everything else None
        if ranges is not None and self._sample.begin(self._item):
            ranges.heard = partial(self._sample.take, self._item)
        return ranges

    def locate(self, rows: Sequence[int]) -> dict[int, RawLine]:
        return self._item.locate(rows)

    def columns(self) -> list[str]:
        return self._item.columns()

    def is_empty(self) -> bool:
        return self._item.is_empty()


def _generator(chunks: Iterator[Chunk]):  # type: ignore[no-untyped-def]
    yield from chunks
