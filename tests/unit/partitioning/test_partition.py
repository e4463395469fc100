"""Partitions are the published formula, and even."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.partitioning.partition import partition_of, rows_by_partition

SEED = 11


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(1, 2**32))
def test_partition_is_the_published_formula(ids: list[bytes], partitions: int) -> None:
    found = partition_of(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16), partitions)
    assert found.dtype == np.uint32
    assert found.tolist() == [int.from_bytes(event_id[-4:], "big") * partitions >> 32 for event_id in ids]


@pytest.mark.parametrize("partitions", [2, 7, 8, 64])
def test_partitions_are_even(partitions: int) -> None:
    rows = 100_000
    ids = np.random.default_rng(SEED).integers(0, 256, (rows, 16), dtype=np.uint8)
    counts = np.bincount(partition_of(ids, partitions), minlength=partitions)
    assert len(counts) == partitions
    # six standard deviations of a binomial count
    assert np.abs(counts - rows / partitions).max() < 6 * (rows / partitions) ** 0.5, f"seed {SEED}"


@pytest.mark.parametrize("partitions", [0, -1, 2**32 + 1])
def test_impossible_numbers_of_partitions_are_refused(partitions: int) -> None:
    with pytest.raises(ValueError, match="partitions"):
        partition_of(np.zeros((1, 16), np.uint8), partitions)


def test_slices_of_ids_keep_their_partitions() -> None:
    ids = np.random.default_rng(SEED).integers(0, 256, (100, 16), dtype=np.uint8)
    assert partition_of(ids[::3], 8).tolist() == partition_of(ids, 8)[::3].tolist(), f"seed {SEED}"


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=50), st.sampled_from([1, 2, 7, 64, 2**16 + 1]))
def test_rows_by_partition_are_each_partitions_rows_in_input_order(ids: list[bytes], partitions: int) -> None:
    packed = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)
    rows = rows_by_partition(packed, partitions)
    numbers = partition_of(packed, partitions).tolist()
    assert len(rows) == partitions
    for partition in {*numbers, 0, partitions - 1}:
        expected = [row for row, number in enumerate(numbers) if number == partition]
        assert rows[partition].tolist() == expected
    assert sum(map(len, rows)) == len(ids)
