"""Lock keys: who shares IDs shares a key, whatever its number of partitions; who shares no stripe shares none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.partitioning.partition import partition_of
from headrace.storage.locks import LOCK_PARTITIONS, lock_keys, stripes_of

MOST = 2**32
COUNTS = st.one_of(st.integers(1, 200), st.integers(1, MOST))
PARTITIONS = COUNTS.flatmap(lambda count: st.tuples(st.integers(0, count - 1), st.just(count)))
TABLES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def hashes_of(partition: int, partitions: int) -> tuple[int, int]:
    """The first and the last hash of a partition, found by bisection of the published formula itself."""

    def first_at_least(wanted: int) -> int:
        low, high = 0, MOST
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if middle * partitions >> 32 >= wanted else (middle + 1, high)
        return low

    return first_at_least(partition), first_at_least(partition + 1) - 1


def event_ids(hashes: list[int]) -> NDArray[np.uint8]:
    tails = np.array(hashes, ">u4").view(np.uint8).reshape(-1, 4)
    return np.hstack([np.zeros((len(hashes), 12), np.uint8), tails])


@given(PARTITIONS)
def test_a_partition_touches_exactly_the_stripes_of_its_hashes(chosen: tuple[int, int]) -> None:
    first, last = hashes_of(*chosen)
    assert stripes_of(*chosen) == range(first >> 26, (last >> 26) + 1)


@given(st.integers(0, MOST - 1), COUNTS)
def test_an_event_is_always_under_its_own_stripes_lock(hashed: int, partitions: int) -> None:
    ids = event_ids([hashed])
    own, stripe = int(partition_of(ids, partitions)[0]), int(partition_of(ids, LOCK_PARTITIONS)[0])
    assert stripe in stripes_of(own, partitions)
    assert set(lock_keys("t", stripe, LOCK_PARTITIONS)) <= set(lock_keys("t", own, partitions))


@given(PARTITIONS, PARTITIONS)
def test_two_partitions_share_a_key_exactly_if_they_share_a_stripe(one: tuple[int, int], two: tuple[int, int]) -> None:
    (first, last), (start, end) = hashes_of(*one), hashes_of(*two)
    meet = first >> 26 <= end >> 26 and start >> 26 <= last >> 26
    assert meet == bool(set(lock_keys("events", *one)) & set(lock_keys("events", *two)))
    assert meet or not (first <= end and start <= last), "partitions that share a hash exclude each other"


@given(TABLES, TABLES, PARTITIONS, PARTITIONS)
def test_two_tables_share_no_key(one: str, two: str, mine: tuple[int, int], yours: tuple[int, int]) -> None:
    assert one == two or not set(lock_keys(one, *mine)) & set(lock_keys(two, *yours))


@given(TABLES, PARTITIONS)
def test_keys_are_signed_64_bit_distinct_and_ascending(table: str, chosen: tuple[int, int]) -> None:
    keys = lock_keys(table, *chosen)
    assert keys == sorted(set(keys))
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert len(keys) == len(stripes_of(*chosen)) >= 1


@pytest.mark.parametrize("partitions", [1, 2, 4, 8, 16, 32, 64])
def test_partition_counts_that_divide_the_stripes_have_no_stripe_in_common(partitions: int) -> None:
    keys = [key for partition in range(partitions) for key in lock_keys("events", partition, partitions)]
    assert len(keys) == len(set(keys)) == LOCK_PARTITIONS


@pytest.mark.parametrize(("partition", "partitions"), [(0, 0), (-1, 4), (4, 4), (0, MOST + 1), (0, -1)])
def test_a_partition_that_does_not_exist_has_no_keys(partition: int, partitions: int) -> None:
    with pytest.raises(ValueError, match="no partition"):
        lock_keys("events", partition, partitions)


def test_the_keys_never_change() -> None:
    """Loaders of different versions exclude each other only as long as they derive the same keys."""
    assert lock_keys("events", 3, 64) == [5756779219563118313]
    assert lock_keys("naïve", 63, 64) == [-1552287107604735008]
