"""Event IDs: a digest of the encoded row in the form of a UUIDv8.

    columns ──encode──► bytes per row ──hash──► 16 bytes ──layout, version, variant──► event ID

    byte     0 1 2 3 4 5      6        7      8        9 … 15
    time     milliseconds     8d       dd     10dddddd dd … dd     d: the digest's own bits, in place
    hash     dd … dd          8d       dd     10dddddd dd … dd

With layout ``time`` the first 48 bits are the milliseconds since 0001-01-01T00:00Z, so that IDs sort by event time and
a time window is a range of the primary key. An event without a time (null) has 48 zero bits there.

The hash call is the only Python that runs per row: 90 ns for XXH3, of which the call itself is the greater part.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_128_digest, xxh3_128_hexdigest

from headrace.errors import ContractError, UsageError
from headrace.partitioning.contract import Contract, arrow_type, key_check
from headrace.partitioning.encoding import encode, encode_named

__all__ = [
    "ID_BYTES",
    "NULL_TIME_US",
    "digest_of",
    "event_ids",
    "id_text",
    "ids_from_arrow",
    "ids_from_packed",
    "ids_to_arrow",
    "low_bound",
    "parse_id",
    "times_us",
    "unplaceable",
    "whole_row_ids",
]

ID_BYTES = 16
NULL_TIME_US = -62_135_596_800_000_000
"""0001-01-01T00:00Z in microseconds since 1970: where layout ``time`` begins and keeps events without a time."""

_TIME_BITS = 48
_US_PER_MS = 1000
_US_PER_DAY = 86_400_000_000
_EPOCH_MS = -NULL_TIME_US // _US_PER_MS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS_AT_A_TIME = 16_384  # the rows' bytes objects stay in the processor's cache


def event_ids(
    contract: Contract, columns: Sequence[pa.Array], times: pa.Array | None, provider: str, key: bytes | None = None
) -> NDArray[np.uint8]:
    """The event ID of each row, shape (rows, 16).

    `columns` are the identity columns in the contract's order and types; `times` is the time column, needed by layout
    ``time`` only. Raises `ContractError` if `key` is not the contract's, `ValueError` for values that should have been
    rejected (`headrace.partitioning.encoding.unencodable`, `unplaceable`).
    """
    _check_key(contract, key)
    encoded = encode(columns, provider if contract.scope == "provider" else None)
    return _in_layout(contract, encoded, times, key)


def _in_layout(contract: Contract, encoded: pa.Array, times: pa.Array | None, key: bytes | None) -> NDArray[np.uint8]:
    """The digests of the encoded rows as event IDs."""
    ids = np.frombuffer(bytearray(_digests(contract, encoded, key)), dtype=np.uint8).reshape(-1, ID_BYTES)
    if contract.layout == "time":
        ids[:, :6] = _time_prefix(times)
    ids[:, 6] = ids[:, 6] & 0x0F | 0x80
    ids[:, 8] = ids[:, 8] & 0x3F | 0x80
    return ids


def whole_row_ids(
    contract: Contract, others: Sequence[tuple[str, pa.Array]], provider: str, key: bytes | None = None
) -> NDArray[np.uint8]:
    """The ID of each row that has no identity, from its `others`: names and columns in the contract's types.

    The identity's fields are nulls, and at least one other field follows, so that no row with an identity has this ID.
    """
    _check_key(contract, key)
    rows = len(others[0][1])
    nothing = [pa.nulls(rows, arrow_type(kind)) for _, kind in contract.identity]
    encoded, told = encode(nothing, provider if contract.scope == "provider" else None), encode_named(others)
    binary = pa.large_binary() if pa.large_binary() in (encoded.type, told.type) else pa.binary()
    whole = pc.binary_join_element_wise(encoded.cast(binary), told.cast(binary), pa.scalar(b"", binary))
    return _in_layout(contract, whole, None, key)


def times_us(times: pa.Array) -> NDArray[np.int64]:
    """Event times in microseconds since 1970 UTC, shape (rows,); a date is its midnight, a null `NULL_TIME_US`."""
    if pa.types.is_date(times.type):
        filled = times.cast(pa.date32()).view(pa.int32()).cast(pa.int64()).fill_null(NULL_TIME_US // _US_PER_DAY)
        return np.asarray(filled.to_numpy(), dtype=np.int64) * _US_PER_DAY
    filled = times.cast(pa.timestamp("us", tz="UTC")).view(pa.int64()).fill_null(NULL_TIME_US)
    return np.asarray(filled.to_numpy(), dtype=np.int64)


def unplaceable(times: pa.Array) -> NDArray[np.bool_]:
    """Which times do not fit layout ``time`` and must be rejected: before the year 1 or after about 8920."""
    since_epoch = _milliseconds(times)
    outside: NDArray[np.bool_] = since_epoch >> _TIME_BITS != 0  # the shift keeps the sign
    return outside


def low_bound(time: datetime | int) -> bytes:
    """The smallest ID of a millisecond in layout ``time``; `time` is aware, or microseconds since 1970 UTC.

    Times outside the layout give a bound below or above every ID. For range scans: the events with
    ``low <= time < high`` are those with ``low_bound(low) <= event_id < low_bound(high)``, if both are whole
    milliseconds.
    """
    us = time if isinstance(time, int) else _microseconds(time)
    since_epoch = us // _US_PER_MS + _EPOCH_MS
    if since_epoch < 0:
        return bytes(ID_BYTES)
    if since_epoch >> _TIME_BITS:
        return b"\xff" * ID_BYTES
    return since_epoch.to_bytes(6, "big") + b"\x80\x00\x80" + bytes(7)


def ids_to_arrow(ids: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """The IDs (rows, 16) as a column."""
    packed = pa.py_buffer(np.ascontiguousarray(ids).reshape(-1))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), len(ids), [None, packed])


def ids_from_arrow(column: pa.FixedSizeBinaryArray) -> NDArray[np.uint8]:
    """The IDs of a column that `ids_to_arrow` made, as (rows, 16): a read-only view."""
    packed = np.frombuffer(column.buffers()[1], dtype=np.uint8)[column.offset * ID_BYTES :]
    return packed[: len(column) * ID_BYTES].reshape(-1, ID_BYTES)


def ids_from_packed(packed: bytes) -> NDArray[np.uint8]:
    """IDs packed one after the other as (rows, 16), read-only. Raises `ValueError` if one is cut off."""
    return np.frombuffer(packed, dtype=np.uint8).reshape(-1, ID_BYTES)


def id_text(event_id: bytes) -> str:
    """An ID as people and databases write it: ``01234567-89ab-8def-8123-456789abcdef``."""
    return str(UUID(bytes=event_id))


def parse_id(text: str) -> bytes:
    """The ID that `id_text` wrote, with or without hyphens. Raises `UsageError` for anything else."""
    try:
        return UUID(text).bytes
    except ValueError as error:
        raise UsageError(f"{text!r} is not an event ID", hint="an event ID has 32 hex digits, as in a UUID") from error


def digest_of(ids: NDArray[np.uint8]) -> str:
    """What identifies a chunk's content in its receipt: XXH3-128, in hex, over its IDs in input order."""
    return xxh3_128_hexdigest(np.ascontiguousarray(ids).reshape(-1).data)


def _check_key(contract: Contract, key: bytes | None) -> None:
    found = key_check(key) if key is not None else None
    if found != contract.key_check:
        raise ContractError(
            f"the key is not the contract's: contract {contract.key_check or 'none'}, key {found or 'none'}",
            hint="load with the key with which the table was made",
        )


def _digests(contract: Contract, encoded: pa.Array, key: bytes | None) -> bytes:
    """The packed 16-byte digests of the rows."""
    blocks = (encoded.slice(start, _ROWS_AT_A_TIME).to_pylist() for start in range(0, len(encoded), _ROWS_AT_A_TIME))
    if contract.hash == "xxh3_128":
        return b"".join([b"".join(map(xxh3_128_digest, block)) for block in blocks])
    secret = key or b""
    return b"".join([blake2b(row, digest_size=ID_BYTES, key=secret).digest() for block in blocks for row in block])


def _time_prefix(times: pa.Array | None) -> NDArray[np.uint8]:
    """The 48-bit big-endian milliseconds of each row, shape (rows, 6)."""
    if times is None:
        raise ValueError("layout time needs the time column")
    if unplaceable(times).any():
        raise ValueError("times outside the years 1 to 8920 do not fit layout time; reject them first")
    return _milliseconds(times).astype(">i8").view(np.uint8).reshape(-1, 8)[:, 2:]


def _milliseconds(times: pa.Array) -> NDArray[np.int64]:
    """Whole milliseconds since 0001-01-01T00:00Z, rounded down."""
    return times_us(times) // _US_PER_MS + _EPOCH_MS


def _microseconds(time: datetime) -> int:
    elapsed = time - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
