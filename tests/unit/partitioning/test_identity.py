"""Event IDs: order, bounds, keys and texts. (That they never change is in tests/golden.)"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ContractError, UsageError
from headrace.partitioning import identity
from headrace.partitioning.contract import Contract, key_check
from headrace.partitioning.identity import (
    NULL_TIME_US,
    digest_of,
    event_ids,
    id_text,
    ids_from_packed,
    ids_to_arrow,
    low_bound,
    parse_id,
    times_us,
    unplaceable,
)

STAMP = pa.timestamp("us", tz="UTC")
LAST_US = NULL_TIME_US + (2**48) * 1000 - 1
TIMED = Contract((("at", "timestamp"), ("n", "integer")), time="at")
PLACEABLE = st.integers(NULL_TIME_US, LAST_US)


def timed_ids(times: list[int | None]) -> np.ndarray:
    at = pa.array(times, pa.int64()).cast(STAMP)
    return event_ids(TIMED, [at, pa.array(range(len(times)), pa.int64())], at, "p")


@given(st.lists(PLACEABLE, min_size=2, max_size=20))
def test_ids_sort_by_event_time_to_the_millisecond(times: list[int]) -> None:
    ids = [row.tobytes() for row in timed_ids(times)]
    milliseconds = [time // 1000 for _, time in sorted(zip(ids, times, strict=True))]
    assert milliseconds == sorted(milliseconds)


@given(st.lists(PLACEABLE, min_size=1, max_size=10), PLACEABLE)
def test_low_bound_separates_earlier_from_later_times(times: list[int], moment: int) -> None:
    moment = moment // 1000 * 1000
    for time, event_id in zip(times, timed_ids(times), strict=True):
        assert (event_id.tobytes() >= low_bound(moment)) == (time >= moment)


def test_low_bound_reaches_past_both_ends_of_the_layout() -> None:
    ends = [row.tobytes() for row in timed_ids([NULL_TIME_US, LAST_US])]
    assert low_bound(NULL_TIME_US - 1) < low_bound(NULL_TIME_US) <= ends[0]
    assert ends[1] < low_bound(LAST_US + 1)
    assert low_bound(datetime(2024, 1, 1, tzinfo=UTC)) == low_bound(1_704_067_200_000_000)
    assert low_bound(datetime(1950, 1, 1, tzinfo=UTC)) == low_bound(
        datetime(1950, 1, 1, tzinfo=UTC) + timedelta(0, 0, 999)
    )


def test_an_event_without_a_time_stands_at_the_beginning() -> None:
    ids = timed_ids([None, None])
    assert ids[:, :6].tolist() == [[0] * 6, [0] * 6]
    assert ids[0].tobytes() != ids[1].tobytes()
    assert times_us(pa.array([None], STAMP)).tolist() == [NULL_TIME_US]
    assert times_us(pa.array([None, 1], pa.date32())).tolist() == [NULL_TIME_US, 86_400_000_000]


def test_times_without_a_place_are_marked_and_refused() -> None:
    times = pa.array([NULL_TIME_US - 1, NULL_TIME_US, None, LAST_US, LAST_US + 1], pa.int64()).cast(STAMP)
    assert unplaceable(times).tolist() == [True, False, False, False, True]
    for bad in (NULL_TIME_US - 1, LAST_US + 1):
        with pytest.raises(ValueError, match="reject them first"):
            timed_ids([bad])


def test_layout_time_needs_the_times() -> None:
    with pytest.raises(ValueError, match="needs the time column"):
        event_ids(TIMED, [pa.array([0], STAMP), pa.array([1])], None, "p")


def test_a_key_other_than_the_contracts_is_refused() -> None:
    columns = [pa.array([1])]
    keyed = Contract((("n", "integer"),), hash="blake2b", key_check=key_check(b"right"))
    plain = Contract((("n", "integer"),), hash="blake2b")
    assert event_ids(keyed, columns, None, "p", b"right").tobytes() != event_ids(plain, columns, None, "p").tobytes()
    for contract, key in ((keyed, b"wrong"), (keyed, None), (plain, b"right")):
        with pytest.raises(ContractError, match="key") as caught:
            event_ids(contract, columns, None, "p", key)
        assert "right" not in str(caught.value)
        assert "wrong" not in str(caught.value)


def test_scope_decides_whether_the_provider_is_part_of_the_identity() -> None:
    columns = [pa.array([1])]
    for scope, same in (("provider", False), ("global", True)):
        contract = Contract((("n", "integer"),), scope=scope)
        one, other = (event_ids(contract, columns, None, name).tobytes() for name in ("usgs", "firms"))
        assert (one == other) is same


def test_ids_do_not_depend_on_how_many_rows_are_hashed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timed_ids(list(range(10)))
    monkeypatch.setattr(identity, "_ROWS_AT_A_TIME", 3)
    assert timed_ids(list(range(10))).tobytes() == whole.tobytes()
    assert timed_ids([]).shape == (0, 16)


@given(st.binary(min_size=16, max_size=16))
def test_text_and_bytes_of_an_id_are_each_others_inverse(event_id: bytes) -> None:
    assert parse_id(id_text(event_id)) == event_id
    assert parse_id(id_text(event_id).replace("-", "").upper()) == event_id
    assert id_text(event_id) == str(UUID(bytes=event_id))


@pytest.mark.parametrize("text", ["", "xyz", "0123", "0" * 33])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an event ID"):
        parse_id(text)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=5))
def test_ids_keep_their_bytes_as_a_column_and_packed(event_ids_: list[bytes]) -> None:
    ids = ids_from_packed(b"".join(event_ids_))
    assert ids_to_arrow(ids).to_pylist() == event_ids_
    assert ids_to_arrow(ids[::2]).to_pylist() == event_ids_[::2]
    assert ids_to_arrow(ids).type == pa.binary(16)


def test_digest_names_content_and_order() -> None:
    ids = timed_ids([1, 2, 3])
    assert digest_of(ids) == digest_of(ids.copy())
    assert len({digest_of(part) for part in (ids, ids[::-1], ids[:2], ids[:0])}) == 4
