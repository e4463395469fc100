"""Digests and matching of ID sets, against plain Python over integers and sets."""

from __future__ import annotations

import operator
from collections import Counter
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.partitioning.dedup import groups
from headrace.partitioning.id_buckets import BUCKETS, TaggedIds
from headrace.partitioning.partition import partition_of
from headrace.storage.digest import NOTHING, PARTS, Digest, parts_of

# few distinct low halves, so that IDs which tie in one half only are common
ONE_ID = st.builds(
    lambda high, low, last: high.to_bytes(8, "big") + low.to_bytes(4, "big") + last.to_bytes(4, "big"),
    st.integers(0, 2**64 - 1) | st.integers(0, 2),
    st.integers(0, 2**32 - 1) | st.just(7),
    st.integers(0, 2**32 - 1) | st.sampled_from([0, 2**28 - 1, 2**28, 2**32 - 1]),
)
IDS = st.lists(ONE_ID, max_size=60)


def array(ids: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 16)


@given(IDS)
def test_a_digest_is_count_xor_and_sum_of_each_sixteenth(ids: list[bytes]) -> None:
    digest = Digest.of(array(ids))
    numbers = [int.from_bytes(one, "big") for one in ids]
    for part in range(PARTS):
        here = [one for one in numbers if (one & 0xFFFFFFFF) * PARTS >> 32 == part]
        assert digest.parts[part].count == len(here)
        assert digest.parts[part].xor == reduce(operator.xor, here, 0)
        assert digest.parts[part].sum == sum(here) % 2**128
    assert (parts_of(array(ids)) == partition_of(array(ids), PARTS)).all()


@given(IDS, st.randoms(use_true_random=False), st.integers(0, 60))
def test_a_digest_depends_neither_on_order_nor_on_grouping(ids: list[bytes], chance: object, cut: int) -> None:
    shuffled = list(ids)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    digest = Digest.of(array(ids))
    assert Digest.of(array(shuffled[:cut])) + Digest.of(array(shuffled[cut:])) == digest
    assert Digest.from_bytes(digest.to_bytes()) == digest
    assert Digest.from_list(digest.to_list()) == digest


@given(st.lists(ONE_ID, min_size=1, max_size=60, unique=True), st.data())
def test_a_digest_changes_with_any_event_lost_repeated_or_swapped(ids: list[bytes], data: st.DataObject) -> None:
    digest = Digest.of(array(ids))
    at = data.draw(st.integers(0, len(ids) - 1))
    stranger = data.draw(ONE_ID.filter(lambda one: one not in ids))
    lost, repeated, swapped = [*ids[:at], *ids[at + 1 :]], [*ids, ids[at]], [*ids[:at], stranger, *ids[at + 1 :]]
    for wrong in (lost, repeated, swapped):
        assert digest.differing(Digest.of(array(wrong)))
    part = int(parts_of(array([ids[at]]))[0])
    assert (digest.parts[part] - Digest.of(array(lost)).parts[part]).only_id == ids[at]


def test_two_events_are_never_taken_for_one() -> None:
    one, other = bytes(15) + b"\1", bytes(15) + b"\2"
    assert Digest.of(array([one, other])).whole.only_id is None
    assert (Digest.of(array([one, other, other])).whole - Digest.of(array([one])).whole).only_id is None


@given(IDS)
def test_groups_are_the_rows_of_equal_ids(ids: list[bytes]) -> None:
    ids = ids + ids[::2]
    group, first = groups(array(ids))
    assert len(first) == len(set(ids))
    for row, one in enumerate(ids):
        assert ids.index(one) == first[group[row]]


@given(st.lists(st.lists(ONE_ID, max_size=30), max_size=4))
def test_what_goes_into_the_buckets_comes_out_in_order(tmp_path_factory: pytest.TempPathFactory, parts: list) -> None:
    every = [one for part in parts for one in part]
    with TaggedIds(tmp_path_factory.mktemp("tagged"), "x") as kept:
        number = 0
        for part in parts:
            kept.add(array(part), np.arange(number, number + len(part)))
            kept.bucket(0)  # reading writes what is waiting: the blocks are then of any size
            number += len(part)
        assert len(kept) == len(every)
        for bucket in range(BUCKETS):
            ids, tags = kept.bucket(bucket)
            expected = [(one, at) for at, one in enumerate(every) if one[12] == bucket]
            assert [(one.tobytes(), int(tag)) for one, tag in zip(ids, tags, strict=True)] == expected


def test_the_file_of_ids_is_private_and_gone_when_closed(tmp_path: Path) -> None:
    with TaggedIds(tmp_path, "x") as kept:
        kept.add(array([bytes(16)]), np.zeros(1, dtype=np.int64))
        assert Counter(oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()) == {"0o600": 1}
    assert list(tmp_path.iterdir()) == []
    assert Digest.of(array([])) == NOTHING
