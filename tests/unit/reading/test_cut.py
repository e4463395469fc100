"""Where chunks end: every row is in one chunk, in order, and none is longer than it may be, the first one included."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from headrace.reading.reader import Block, cut


def _piece(start: int, length: int) -> Block:
    rows = np.arange(start, start + length)
    return Block(start, length, pa.table({"v": rows}), rows)


@given(
    lengths=st.lists(st.integers(1, 40), max_size=12),
    most=st.integers(1, 30),
    first=st.none() | st.integers(1, 30),
)
def test_each_chunk_is_full_but_the_last(lengths: list[int], most: int, first: int | None) -> None:
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    pieces = [_piece(start, length) for start, length in zip(starts, lengths, strict=True)]
    chunks: list[list[int]] = [[]]
    for part in cut(iter(pieces), most, 1 << 40, first):
        if part is None:
            chunks.append([])
        else:
            chunks[-1] += part.table.column("v").to_pylist()
    assert chunks.pop() == [], "what comes last is the end of a chunk"
    rows = sum(lengths)
    assert [row for chunk in chunks for row in chunk] == list(range(rows))
    limits = [first or most, *[most] * len(chunks)]
    assert all(len(chunk) == limit for chunk, limit in zip(chunks[:-1], limits, strict=False))
    assert not chunks or 0 < len(chunks[-1]) <= limits[len(chunks) - 1]
