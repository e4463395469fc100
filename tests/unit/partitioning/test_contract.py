"""A contract pins what makes an event the same event, and contradictions are refused."""

from __future__ import annotations

import json
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ContractError
from headrace.partitioning.contract import Contract, LogicalType, arrow_type, key_check, logical_type

FIRES = Contract((("latitude", "float"), ("acquired", "timestamp")), time="acquired")
NAMES = st.text(min_size=1, max_size=6)


@given(
    st.dictionaries(NAMES, st.sampled_from([kind for kind in get_args(LogicalType) if kind != "bool"]), min_size=1),
    st.none() | NAMES,
    st.sampled_from(["provider", "global"]),
)
def test_json_brings_back_the_same_contract(identity: dict[str, Any], time: str | None, scope: Any) -> None:
    if identity.get(time or "") not in {None, "timestamp", "date"}:
        time = None
    contract = Contract(tuple(identity.items()), time=time, scope=scope)
    text = contract.to_json()
    assert Contract.from_json(text) == contract
    assert Contract.from_json(text).to_json() == text


def test_json_is_canonical() -> None:
    assert FIRES.to_json() == (
        '{"hash":"xxh3_128","identity":[["latitude","float"],["acquired","timestamp"]],"key_check":null,'
        '"scope":"provider","time":"acquired","timezone":"UTC","version":1}'
    )


def test_layout_is_time_only_if_the_time_column_is_part_of_the_identity() -> None:
    assert FIRES.layout == "time"
    assert Contract((("latitude", "float"),), time="acquired").layout == "hash"
    assert Contract((("latitude", "float"),)).layout == "hash"


def test_differences_show_both_sides() -> None:
    other = Contract((("latitude", "string"),), hash="blake2b", key_check="00c0ffee", timezone="Europe/Helsinki")
    assert FIRES.differences(other) == [
        "identity: stored latitude:float, acquired:timestamp — this run latitude:string",
        "time: stored acquired — this run none",
        "hash: stored xxh3_128 — this run blake2b",
        "timezone: stored UTC — this run Europe/Helsinki",
        "key: stored none — this run 00c0ffee",
    ]
    assert FIRES.differences(FIRES) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"identity": ()}, "no column"),
        ({"identity": (("a", "float"), ("a", "string"))}, "a twice"),
        ({"identity": (("a", "text"),)}, "'text'"),
        ({"identity": (("acquired", "string"),)}, "not timestamp or date"),
        ({"hash": "md5"}, "'md5'"),
        ({"scope": "planet"}, "'planet'"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"timezone": "../etc/passwd"}, "not known"),
        ({"timezone": ""}, "not known"),
        ({"key_check": "00c0ffee"}, "takes no key"),
        ({"version": 2}, "version 2"),
    ],
)
def test_contradictions_are_refused_with_a_hint(change: dict[str, Any], said: str) -> None:
    fields = {"identity": FIRES.identity, "time": "acquired", **change}
    with pytest.raises(ContractError, match=said) as caught:
        Contract(**fields)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"version":1}', '{"identity":[["a","float"]]}', '{"a":1,"version":1}']
)
def test_a_damaged_contract_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        Contract.from_json(text)


def test_a_contract_of_a_newer_version_is_refused_as_such() -> None:
    newer = {**json.loads(FIRES.to_json()), "version": 2, "salt": "x"}
    with pytest.raises(ContractError, match="version 2"):
        Contract.from_json(json.dumps(newer))


def test_key_check_tells_keys_apart_and_is_stable() -> None:
    assert key_check(b"key") == "d0ade5a7"  # docs/identity.md: it is stored with the contract, and must not change
    assert key_check(b"key") != key_check(b"kez")
    assert len(bytes.fromhex(key_check(b"key"))) == 4
    for unusable in (b"", bytes(65)):
        with pytest.raises(ContractError, match="64 bytes"):
            key_check(unusable)


@pytest.mark.parametrize("name", get_args(LogicalType))
def test_types_have_one_canonical_arrow_type(name: LogicalType) -> None:
    assert logical_type(arrow_type(name)) == name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.int8(), "integer"),
        (pa.uint64(), "integer"),
        (pa.float32(), "float"),
        (pa.timestamp("ns"), "timestamp"),
        (pa.date64(), "date"),
        (pa.decimal128(5, 2), "decimal"),
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.binary(16), "bytes"),
        (pa.dictionary(pa.int8(), pa.string()), "string"),
    ],
)
def test_related_arrow_types_count_as_their_logical_type(kind: pa.DataType, name: str) -> None:
    assert logical_type(kind) == name


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.time64("us"), pa.null()])
def test_types_without_identity_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(ContractError, match="cannot be part of an identity"):
        logical_type(kind)
