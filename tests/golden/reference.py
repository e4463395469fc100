"""A second, slow implementation of event IDs, written from the specification alone (docs/identity.md).

It imports nothing of Headrace and handles one value at a time, so that it can be checked by eye. Values are plain
Python: None, bool, int, float, datetime (aware) or int microseconds, date, Decimal, str, bytes.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b

import xxhash

YEAR_ONE_US = -62_135_596_800_000_000


def microseconds(value: datetime | int) -> int:
    if isinstance(value, int):
        return value
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def decimal_text(value: Decimal) -> str:
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", "0", ""} else text


def sized(tag: int, payload: bytes) -> bytes:
    return bytes([tag]) + struct.pack(">I", len(payload)) + payload


def field(kind: str, value: object) -> bytes:  # noqa: PLR0911 - one return for each row of the specification's table
    if value is None:
        return b"\x00"
    match kind:
        case "bool":
            return b"\x01" + (b"\x01" if value else b"\x00")
        case "integer":
            return b"\x02" + struct.pack(">q", value)
        case "float":
            return b"\x03" + struct.pack(">d", 0.0 if value == 0 else value)
        case "timestamp":
            return b"\x04" + struct.pack(">q", microseconds(value))
        case "date":
            return b"\x05" + struct.pack(">i", (value - date(1970, 1, 1)).days)
        case "decimal":
            return sized(6, decimal_text(value).encode("ascii"))
        case "string":
            return sized(7, unicodedata.normalize("NFC", value).encode("utf-8"))
        case "bytes":
            return sized(8, value)
    raise ValueError(kind)


def encoding(kinds: Sequence[str], values: Sequence[object], provider: str | None) -> bytes:
    first = b"" if provider is None else field("string", provider)
    return first + b"".join(field(kind, value) for kind, value in zip(kinds, values, strict=True))


def milliseconds(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return (microseconds(value) - YEAR_ONE_US) // 1000


def event_id(encoded: bytes, hash_name: str, key: bytes | None, time: tuple[object] | None) -> bytes:
    """`time` is None for layout hash, and the time in a tuple for layout time."""
    if hash_name == "xxh3_128":
        digest = xxhash.xxh3_128(encoded, seed=0).digest()
    else:
        digest = blake2b(encoded, digest_size=16, key=key or b"").digest()
    number = int.from_bytes(digest, "big")
    if time is not None:
        number = milliseconds(time[0]) << 80 | number & (1 << 80) - 1
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0b11 << 62) | 0b10 << 62
    return number.to_bytes(16, "big")


def partition(identifier: bytes, partitions: int) -> int:
    return int.from_bytes(identifier[12:], "big") * partitions >> 32
