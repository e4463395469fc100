"""The first occurrence in input order wins, however the halves of the IDs collide."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.partitioning.dedup import ascending, first_occurrences, id_order

# Few different halves: IDs that agree in one half only are as common as equal ones.
HALVES = st.sampled_from([bytes(8), b"\x00" * 7 + b"\x01", b"\x01" + b"\x00" * 7, b"\xff" * 8, b"\x80" + b"\xff" * 7])
COLLIDING = st.lists(st.builds(bytes.__add__, HALVES, HALVES), max_size=40)
ANY = st.lists(st.binary(min_size=16, max_size=16), max_size=20)


def array(ids: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)


@given(COLLIDING | ANY)
def test_the_first_occurrence_of_each_id_is_kept_and_no_other(ids: list[bytes]) -> None:
    seen: set[bytes] = set()
    expected = [not (event_id in seen or seen.add(event_id)) for event_id in ids]
    assert first_occurrences(array(ids)).tolist() == expected


@given(COLLIDING | ANY)
def test_id_order_is_that_of_the_bytes_and_stable(ids: list[bytes]) -> None:
    assert id_order(array(ids)).tolist() == sorted(range(len(ids)), key=ids.__getitem__)


@given(st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**16, 2**32, 2**48, 2**64 - 1]), max_size=40))
def test_ascending_is_a_stable_sort_of_any_numbers(numbers: list[int]) -> None:
    assert ascending(np.array(numbers, np.uint64)).tolist() == sorted(range(len(numbers)), key=numbers.__getitem__)


def test_a_large_batch_with_every_id_twice_keeps_the_first_half() -> None:
    ids = np.random.default_rng(5).integers(0, 256, (70_000, 16), dtype=np.uint8)
    first = first_occurrences(np.concatenate([ids, ids]))
    assert first[:70_000].all(), "seed 5"
    assert not first[70_000:].any(), "seed 5"
