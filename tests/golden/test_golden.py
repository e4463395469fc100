"""The formats that never change: product and reference agree with the frozen vectors and with each other."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import unicodedata
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evidence import Record, keep

from headrace.partitioning.contract import Contract, arrow_type, key_check
from headrace.partitioning.encoding import encode
from headrace.partitioning.identity import event_ids, id_text, ids_from_packed
from headrace.partitioning.partition import partition_of

FOLDER = Path(__file__).parent
VECTORS_SHA256 = "1100600833d9bc9e543c4dabdef6c8a7b71c85b65dcb5f5131b555ce2914865c"
VECTORS: list[dict[str, Any]] = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
KINDS = ("bool", "integer", "float", "timestamp", "date", "decimal", "string", "bytes")


def load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_reference", FOLDER / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_reference()


def from_plain(kind: str, value: Any) -> Any:
    if value is None:
        return None
    convert = {
        "float": float.fromhex,
        "timestamp": lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us),
        "date": date.fromisoformat,
        "decimal": Decimal,
        "bytes": bytes.fromhex,
    }
    return convert[kind](value) if kind in convert else value


def contract_of(vector: dict[str, Any]) -> Contract:
    key = vector["key"]
    return Contract(
        identity=tuple((f"c{position}", kind) for position, kind in enumerate(vector["kinds"])),
        time=None if vector["time"] is None else f"c{vector['time']}",
        hash=vector["hash"],
        scope=vector["scope"],
        key_check=None if key is None else key_check(bytes.fromhex(key)),
    )


def row_of(vector: dict[str, Any]) -> list[Any]:
    return [from_plain(kind, value) for kind, value in zip(vector["kinds"], vector["values"], strict=True)]


def name_of(vector: dict[str, Any]) -> str:
    return f"{VECTORS.index(vector)}-{'-'.join(vector['kinds'])}"


def test_vectors_are_the_frozen_ones() -> None:
    assert hashlib.sha256((FOLDER / "vectors.json").read_bytes()).hexdigest() == VECTORS_SHA256
    assert len(VECTORS) >= 240


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_product_reproduces_the_vector(vector: dict[str, Any]) -> None:
    contract = contract_of(vector)
    columns = [pa.array([value], arrow_type(kind)) for kind, value in zip(vector["kinds"], row_of(vector), strict=True)]
    provider = vector["provider"]
    encoding = encode(columns, provider if contract.scope == "provider" else None)[0].as_py().hex()
    times = None if vector["time"] is None else columns[vector["time"]]
    key = None if vector["key"] is None else bytes.fromhex(vector["key"])
    ids = event_ids(contract, columns, times, provider, key)
    same = (encoding, ids.tobytes().hex()) == (vector["encoding"], vector["event_id"])
    keep(Record("golden vectors", "encoding and ID", contract.hash, 1, 0, 0, int(not same), 0, 1))
    assert encoding == vector["encoding"]
    assert ids.tobytes().hex() == vector["event_id"]
    for partitions, partition in vector["partitions"].items():
        assert partition_of(ids, int(partitions)).tolist() == [partition]


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_reference_reproduces_the_vector(vector: dict[str, Any]) -> None:
    row = row_of(vector)
    encoded = reference.encoding(vector["kinds"], row, vector["provider"] if vector["scope"] == "provider" else None)
    assert encoded.hex() == vector["encoding"]
    key = None if vector["key"] is None else bytes.fromhex(vector["key"])
    time = None if vector["time"] is None else (row[vector["time"]],)
    identifier = reference.event_id(encoded, vector["hash"], key, time)
    assert identifier.hex() == vector["event_id"]
    for partitions, partition in vector["partitions"].items():
        assert reference.partition(identifier, int(partitions)) == partition


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_id_is_a_valid_uuid_version_8(vector: dict[str, Any]) -> None:
    identifier = ids_from_packed(bytes.fromhex(vector["event_id"]))[0]
    assert identifier[6] >> 4 == 8
    assert identifier[8] >> 6 == 0b10


# Python and Arrow know different versions of Unicode; a character that is new to one of them is left out.
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn")).filter(lambda c: unicodedata.category(c) != "Cn")
VALUES = {
    "bool": st.booleans(),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "timestamp": st.datetimes(datetime(1, 1, 1), datetime(8000, 12, 31), timezones=st.just(UTC)),
    "date": st.dates(max_value=date(8000, 12, 31)),
    "decimal": st.decimals(-(10**28), 10**28, places=9),
    "string": st.text(ASSIGNED, max_size=8) | st.text("aeoé\u0301\u0308\u030a가ᄀ\u1161", max_size=8),
    "bytes": st.binary(max_size=8),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[Any]]]:
    """Column types, and rows with nulls; some columns have none, so that every way through the encoder is taken."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    cells = [VALUES[kind] if draw(st.booleans()) else st.none() | VALUES[kind] for kind in kinds]
    return kinds, draw(st.lists(st.tuples(*cells).map(list), min_size=1, max_size=8))


@given(tables(), st.none() | st.text(ASSIGNED, max_size=4), st.data())
def test_product_and_reference_agree_whatever_the_batch(
    table: tuple[list[str], list[list[Any]]], provider: str | None, data: st.DataObject
) -> None:
    kinds, rows = table
    expected = [reference.encoding(kinds, row, provider) for row in rows]
    columns = [pa.array(values, arrow_type(kind)) for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)]
    assert encode(columns, provider).to_pylist() == expected
    start = data.draw(st.integers(0, len(rows) - 1))
    rows_taken = data.draw(st.integers(1, len(rows) - start))
    part = [column.slice(start, rows_taken) for column in columns]
    assert encode(part, provider).to_pylist() == expected[start : start + rows_taken]


@given(tables(), st.sampled_from(["xxh3_128", "blake2b"]), st.none() | st.binary(min_size=1, max_size=64))
def test_ids_and_partitions_agree_with_the_reference(
    table: tuple[list[str], list[list[Any]]], hash_name: Any, key: bytes | None
) -> None:
    kinds, rows = table
    key = key if hash_name == "blake2b" else None
    time = next((position for position, kind in enumerate(kinds) if kind in {"timestamp", "date"}), None)
    columns = [pa.array(values, arrow_type(kind)) for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)]
    contract = Contract(
        tuple((f"c{position}", kind) for position, kind in enumerate(kinds)),
        time=None if time is None else f"c{time}",
        hash=hash_name,
        key_check=None if key is None else key_check(key),
    )
    ids = event_ids(contract, columns, None if time is None else columns[time], "p", key)
    expected = [
        reference.event_id(reference.encoding(kinds, row, "p"), hash_name, key, None if time is None else (row[time],))
        for row in rows
    ]
    assert [row.tobytes() for row in ids] == expected
    assert partition_of(ids, 7).tolist() == [reference.partition(identifier, 7) for identifier in expected]


def test_the_worked_example_of_the_specification_is_true() -> None:
    page = (FOLDER.parent.parent / "docs" / "identity.md").read_text(encoding="utf-8")
    when = datetime(2024, 2, 29, 12, 30, 15, 123_456, tzinfo=UTC)
    columns = [pa.array([61.5]), pa.array([-149.9]), pa.array([when], arrow_type("timestamp")), pa.array(["N20"])]
    identity = (("latitude", "float"), ("longitude", "float"), ("acquired", "timestamp"), ("satellite", "string"))
    for time in (None, "acquired"):
        ids = event_ids(Contract(identity, time=time), columns, columns[2], "firms")
        assert f"`{id_text(ids[0].tobytes())}`" in page
        assert partition_of(ids, 8).tolist() == [7]
    shown = "".join(line.split("   ")[0] for line in page.splitlines() if line[:3] in {"03 ", "04 ", "07 "})
    assert bytes.fromhex(shown) == encode(columns, "firms")[0].as_py()
    assert f"{len(VECTORS)} worked" in page
