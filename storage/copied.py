"""Rows of a table as PostgreSQL copies them out in binary, taken apart in whole columns.

    COPY (SELECT event_id, headrace_receipt, …) TO STDOUT (FORMAT binary)
        row   ── fields ── length ─ event_id ── length ─ … ──►  one message each
        rows  ── all lengths of a column, then all its values, by numpy ──►  HeldRows

Values travel in binary and so depend on no setting of session, role or server: a time is microseconds, whatever the
zone; a float is its bits. Numbers of any length travel as text, which has no settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import sql

from headrace.errors import StoreError
from headrace.storage.base import EVENT_ID, RECEIPT
from headrace.storage.held import HeldColumn, HeldRows, decimals
from headrace.storage.holdings import NO_RECEIPT

__all__ = ["copied_rows", "copy_out"]

ROWS_AT_ONCE = 16_384
BYTES_AT_ONCE = 8 << 20
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8  # flags, and the length of an extension
_TRAILER = b"\xff\xff"
_LONG = 64  # bytes of a text from which on it is cut out by itself
_FIRST_DAY = 10_957  # PostgreSQL's days and microseconds begin in the year 2000
_FIRST_US = _FIRST_DAY * 86_400_000_000


def copy_out(table: str, columns: pa.Schema, ids: Sequence[bytes] | None) -> sql.Composed:
    """The statement for `columns` of all rows of `table`, or of those with `ids`."""
    fields = [sql.Identifier(EVENT_ID), sql.SQL("{}::bigint").format(sql.Identifier(RECEIPT))]
    fields += [_selected(column) for column in columns]
    where: sql.Composable = sql.SQL("")
    if ids is not None:
        listed = sql.Literal([UUID(bytes=one) for one in ids])
        where = sql.SQL(" WHERE {} = ANY({}::uuid[])").format(sql.Identifier(EVENT_ID), listed)
    rows = sql.SQL("SELECT {} FROM {}{}").format(sql.SQL(", ").join(fields), sql.Identifier(table), where)
    return sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(rows)


def copied_rows(messages: Iterable[bytes | bytearray | memoryview], columns: pa.Schema) -> Iterator[HeldRows]:
    """What `copy_out` gave, in blocks of bounded size. Raises `StoreError` for anything else."""
    gathered: list[bytes | bytearray | memoryview] = []
    size = 0
    for number, message in enumerate(messages):
        row = _without_header(message) if number == 0 else message
        if len(row) <= len(_TRAILER):
            continue
        gathered.append(row)
        size += len(row)
        if len(gathered) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield _held(gathered, columns)
            gathered, size = [], 0
    if gathered:
        yield _held(gathered, columns)


def _selected(column: pa.Field) -> sql.Composable:
    name = sql.Identifier(column.name)
    for cast, is_kind in (
        ("bigint", pa.types.is_integer),
        ("double precision", pa.types.is_floating),
        ("text", pa.types.is_decimal),
        ("text", pa.types.is_string),
    ):
        if is_kind(column.type):
            return sql.SQL("{}::{}").format(name, sql.SQL(cast))
    return name


def _without_header(message: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    if bytes(message[: len(_SIGNATURE)]) != _SIGNATURE:
        raise StoreError("the server's COPY does not begin as binary ones do")
    return message[_HEADER + int.from_bytes(message[_HEADER - 4 : _HEADER], "big") :]


def _held(rows: Sequence[bytes | bytearray | memoryview], columns: pa.Schema) -> HeldRows:
    fields = _Fields(rows, 2 + len(columns))
    ids, receipts = fields.fixed(16)[0], fields.integers()
    held = {column.name: _column(fields, column.type) for column in columns}
    fields.require_end()
    return HeldRows(ids, np.where(receipts.absent, NO_RECEIPT, receipts.values), held)


def _column(fields: _Fields, kind: pa.DataType) -> HeldColumn:
    types = pa.types
    if types.is_string(kind) or types.is_binary(kind):
        return HeldColumn(fields.texts(kind))
    if types.is_decimal(kind):
        return decimals(fields.texts(pa.string()), kind)
    if types.is_timestamp(kind) or types.is_date(kind):
        return _times(fields, kind)
    if types.is_boolean(kind):
        letters, absent = fields.fixed(1)
        return HeldColumn(pa.array(letters[:, 0] != 0, kind, mask=absent))
    found = fields.integers()
    return HeldColumn(
        pa.array(found.values.view(np.float64 if types.is_floating(kind) else np.int64), kind, mask=found.absent)
    )


def _times(fields: _Fields, kind: pa.DataType) -> HeldColumn:
    is_date = pa.types.is_date(kind)
    found = fields.days() if is_date else fields.integers()
    limits = np.iinfo(found.values.dtype)
    endless = ((found.values == limits.max) | (found.values == limits.min)) & ~found.absent
    whole = found.values + found.values.dtype.type(_FIRST_DAY if is_date else _FIRST_US)
    values = pa.array(whole, mask=found.absent | endless).view(kind)
    if not endless.any():
        return HeldColumn(values)
    texts = np.where(found.values > 0, "infinity", "-infinity")
    return HeldColumn(values, pa.array(texts, pa.string(), mask=~endless))


class _Numbers:
    """A column of integers, or of floats by their bits, and where there is none."""

    def __init__(self, values: NDArray[np.int64] | NDArray[np.int32], absent: NDArray[np.bool_]) -> None:
        self.values = values
        self.absent = absent


class _Fields:
    """The fields of some rows, taken column after column. Raises `StoreError` where rows are not as they should be."""

    def __init__(self, rows: Sequence[bytes | bytearray | memoryview], fields: int) -> None:
        self._data = b"".join([*rows, bytes(16)])  # what is read behind a null lies inside
        self._bytes = np.frombuffer(self._data, np.uint8)
        self._ends = np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)))
        self._at = self._ends - np.fromiter(map(len, rows), np.int64, len(rows))
        if (self._words(">i2")[self._at] != fields).any():
            raise _misread()
        self._at += 2

    def require_end(self) -> None:
        """Every row must end where its last field does."""
        if (self._at != self._ends).any():
            raise _misread()

    def fixed(self, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Fields of `width` bytes, shape (rows, width), and where there is none."""
        starts, absent = self._starts(width)
        return self._bytes[starts[:, None] + np.arange(width)], absent

    def integers(self) -> _Numbers:
        """Fields of 8 bytes."""
        starts, absent = self._starts(8)
        return _Numbers(self._words(">i8")[starts].astype(np.int64), absent)

    def days(self) -> _Numbers:
        """Fields of 4 bytes."""
        starts, absent = self._starts(4)
        return _Numbers(self._words(">i4")[starts].astype(np.int32), absent)

    def texts(self, kind: pa.DataType) -> pa.Array:
        """Fields of any length as texts or bytes."""
        starts, lengths = self._field()
        absent = lengths < 0
        lengths = np.maximum(lengths, 0)
        offsets = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        total = int(offsets[-1])
        if total > _LONG * len(lengths):
            view = memoryview(self._data)
            packed = b"".join(
                [view[start : start + size] for start, size in zip(starts.tolist(), lengths.tolist(), strict=True)]
            )
        else:
            packed = self._bytes[np.repeat(starts - offsets[:-1], lengths) + np.arange(total)].tobytes()
        valid = pa.py_buffer(np.packbits(~absent, bitorder="little").tobytes()) if absent.any() else None
        return pa.Array.from_buffers(kind, len(lengths), [valid, pa.py_buffer(offsets), pa.py_buffer(packed)])

    def _starts(self, width: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        starts, lengths = self._field()
        absent = lengths < 0
        if (lengths[~absent] != width).any():
            raise _misread()
        return starts, absent

    def _field(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each row's next field begins, and its length, -1 for a null."""
        if int(self._at.max(initial=0)) + 4 > len(self._data):
            raise _misread()
        lengths = self._words(">i4")[self._at].astype(np.int64)
        starts = self._at + 4
        self._at = starts + np.maximum(lengths, 0)
        if (self._at > self._ends).any():
            raise _misread()
        return starts, lengths

    def _words(self, kind: str) -> NDArray[np.int64]:
        """The data as numbers that begin at any byte."""
        width = np.dtype(kind).itemsize
        return np.ndarray((len(self._data) - width + 1,), kind, self._data, strides=(1,))


def _misread() -> StoreError:
    return StoreError(
        "the server's rows do not come in messages of their own, or not in the types that were asked for",
        hint="is there a pooler that cuts COPY anew? Connect to the server itself; "
        "if there is none, another process changed the table's columns: run it again",
    )
