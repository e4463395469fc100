"""Writes vectors.json with the reference implementation. They were frozen with version 1: run this to look, not to fix.

python tests/golden/make_vectors.py > somewhere-else.json
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import reference

PARTITIONS = (1, 2, 3, 7, 8, 64, 1000, 2**32)
KEY = bytes(range(32))

VALUES: dict[str, list[object]] = {
    "bool": [True, False],
    "integer": [0, 1, -1, 42, 255, 256, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)],
    "float": [0.0, -0.0, 1.0, -1.0, 0.1, 1 / 3, 1e300, -1e-300, 5e-324, 1.7976931348623157e308, 2.0**53],
    "timestamp": [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 998_999, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 30, 15, 123_000, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 30, 15, 123_001, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 30, 15, 123_999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(1582, 10, 15, tzinfo=UTC),
        datetime(1900, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
        datetime(8000, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
    "date": [
        date(1970, 1, 1), date(1969, 12, 31), date(2024, 2, 29), date(1, 1, 1), date(1900, 3, 1), date(8000, 1, 1),
    ],
    "decimal": [
        Decimal(text)
        for text in [
            "0", "0.000000000", "1", "1.0", "1.50", "-1.5", "-0.5", "10", "100.00", "0.000000001", "-0.000000001",
            "123456789.987654321", "99999999999999999999999999999.999999999",
            "-99999999999999999999999999999.999999999",
        ]
    ],
    "string": [
        "", " ", "1", "1.0", "0", "a", "A", "null", "NaN", "é", "e\u0301", "Å", "A\u030a", "\u212b",
        "\u017f\u0323\u0307", "가", "\u1100\u1161", "q\u0307\u0323", "ﬁ", "日本語", "😀", "a\x00b", "\x00", "x" * 300,
        "\u0344", "\u0958",
    ],
    "bytes": [b"", b"\x00", b"1", b"\xc3\xa9", b"e\xcc\x81", bytes(range(256)), b"\xff" * 17],
}  # fmt: skip


def cases() -> Iterator[dict[str, object]]:
    """The rows, each with the contract that reads it."""
    for kind, values in VALUES.items():
        for value in [*values, None]:
            yield {"kinds": [kind], "values": [value], "scope": "provider", "provider": "usgs"}
            yield {"kinds": [kind], "values": [value], "scope": "global", "provider": "usgs"}
    for kind in ("timestamp", "date"):
        for value in [*VALUES[kind], None]:
            yield {"kinds": [kind], "values": [value], "scope": "provider", "provider": "usgs", "time": 0}
    yield from rows()


def rows() -> Iterator[dict[str, object]]:
    """Several columns, hashes, keys and providers."""
    when = datetime(2024, 2, 29, 12, 30, 15, 123_456, tzinfo=UTC)
    kinds = ["float", "float", "timestamp", "string"]
    options = itertools.product(("xxh3_128", "blake2b", "keyed"), (None, 2), ("firms", "Ünited", "U\u0308nited", ""))
    for hash_name, time, provider in options:
        yield {
            "kinds": kinds,
            "values": [61.5, -149.9, when, "N20"],
            "scope": "provider",
            "provider": provider,
            "time": time,
            "hash": "blake2b" if hash_name == "keyed" else hash_name,
            "key": KEY if hash_name == "keyed" else None,
        }
    every = list(VALUES)
    for turn in range(8):
        values: list[object] = [VALUES[kind][turn % len(VALUES[kind])] for kind in every]
        values[turn] = None
        yield {"kinds": every, "values": values, "scope": "provider", "provider": "all types", "time": 3}
        yield {"kinds": every, "values": values, "scope": "global", "provider": "all types"}
    for left, right in (("a", "b"), ("ab", ""), ("", "ab"), (None, "ab"), ("ab", None), (None, None)):
        yield {"kinds": ["string", "string"], "values": [left, right], "scope": "global", "provider": "x"}


def plain(kind: str, value: object) -> object:
    """A value as JSON holds it: floats as hex, times as microseconds, bytes as hex, decimals and dates as text."""
    if value is None or kind in {"bool", "integer", "string"}:
        return value
    if kind == "float":
        return value.hex()
    if kind == "timestamp":
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return value.hex() if kind == "bytes" else str(value)


def vector(case: dict[str, object]) -> dict[str, object]:
    """A case with what the reference makes of it."""
    kinds, values, time = case["kinds"], case["values"], case.get("time")
    hash_name, key = case.get("hash", "xxh3_128"), case.get("key")
    encoded = reference.encoding(kinds, values, case["provider"] if case["scope"] == "provider" else None)
    identifier = reference.event_id(encoded, hash_name, key, None if time is None else (values[time],))
    return {
        "kinds": kinds,
        "values": [plain(kind, value) for kind, value in zip(kinds, values, strict=True)],
        "scope": case["scope"],
        "provider": case["provider"],
        "hash": hash_name,
        "key": None if key is None else key.hex(),
        "time": time,
        "encoding": encoded.hex(),
        "event_id": identifier.hex(),
        "partitions": {str(count): reference.partition(identifier, count) for count in PARTITIONS},
    }


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(vector(case), ensure_ascii=True) for case in cases())
    print(f"[\n{lines}\n]")
