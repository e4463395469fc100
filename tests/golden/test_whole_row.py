"""The IDs of rows without identity (docs/identity.md), frozen: by the slow implementation, and by what they are."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from headrace.events.prepare import prepare
from headrace.partitioning.contract import Contract, arrow_type
from headrace.reading.chunk import Chunk
from headrace.storage.records import Address

reference = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("reference.py"))))
OTHERS: tuple[tuple[str, Any], ...] = (("é", "string"), ("mag", "float"), ("depth", "integer"), ("z", "decimal"))
ROWS = [
    {"id": None, "mag": 4.5, "depth": 10, "é": "Åland"},
    {"id": "", "mag": -0.0, "depth": None, "é": ""},
    {"id": " ", "mag": None, "depth": 7, "é": None},
    {"id": "x", "mag": 4.5, "depth": 10, "é": "Åland"},
]
FROZEN = {
    "provider": [
        "cd7fd55105a28893af252cdf35ca8e5f",
        "589195d7fb588325ba0058e3c6794e1a",
        "269e7a6c18b5843ca9e79dd5a5310d78",
        "f93e26dfc61d835680adcfd62c364268",
    ],
    "global": [
        "821d2e6bd5328b8c83bcc5c2be7d171a",
        "ba3ab238d87c85aea20d3f12e8a66454",
        "db198a99ce298a048baa0c3376c2997a",
        "0037a6aefe62882f8d763171deb689da",
    ],
}


def told(contract: Contract, names: list[str]) -> list[bytes]:
    kinds = {"id": "string", **dict(OTHERS)}
    columns = {name: pa.array([row.get(name) for row in ROWS], arrow_type(kinds[name])) for name in names}
    batch = pa.RecordBatch.from_pydict(columns)
    ids = prepare(Chunk(Address("in", 0, len(ROWS)), batch, None, []), contract, "p").ids
    return [row.tobytes() for row in ids]


def reckoned(contract: Contract, row: dict[str, Any]) -> bytes:
    provider = "p" if contract.scope == "provider" else None
    if (row["id"] or "").strip():
        return reference.event_id(reference.encoding(["string"], [row["id"]], provider), contract.hash, None, None)
    encoded = reference.encoding(["string"], [None], provider)
    for name, kind in sorted(OTHERS):
        if row.get(name) is not None:
            encoded += reference.field("string", name) + reference.field(kind, row[name])
    return reference.event_id(encoded, contract.hash, None, None)


@pytest.mark.parametrize("scope", ["provider", "global"])
@pytest.mark.parametrize("hash_name", ["xxh3_128", "blake2b"])
def test_a_row_without_identity_has_the_id_that_the_specification_gives(scope: Any, hash_name: Any) -> None:
    contract = Contract((("id", "string"),), scope=scope, hash=hash_name, others=OTHERS)
    expected = [reckoned(contract, row) for row in ROWS]
    # neither the order of the columns nor one without a value matters
    assert told(contract, ["id", "mag", "depth", "é"]) == expected
    assert told(contract, ["z", "é", "depth", "id", "mag"]) == expected
    if hash_name == "xxh3_128":
        assert [one.hex() for one in expected] == FROZEN[scope]
