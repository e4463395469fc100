"""Rows of a table as PostgreSQL copies them out in binary, taken apart in whole columns.

    COPY (SELECT event_id, headrace_receipt, …) TO STDOUT (FORMAT binary)
        row   ── fields ── length ─ event_id ── length ─ … ──►  one message each
        rows  ── all lengths of a column, then all its values, by numpy ──►  HeldRows

Values travel in binary and so depend on no setting of session, role or server: a time is microseconds, whatever the
zone; a float is its bits. Numbers of any length travel as text, which has no settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import sql

from headrace.errors import StoreError
from headrace.storage.held import HeldColumn, HeldRows, decimals
from headrace.storage.records import EVENT_ID, NO_RECEIPT, RECEIPT

__all__ = ["copied_rows", "copy_out"]

Message = bytes | bytearray | memoryview
ROWS_AT_ONCE = 16_384
BYTES_AT_ONCE = 8 << 20
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8  # flags, and the length of an extension
_TRAILER = b"\xff\xff"
_LONG = 64  # bytes of a text from which on it is cut out by itself
_FIRST_DAY = 10_957  # PostgreSQL's days and microseconds begin in the year 2000
_FIRST_US = _FIRST_DAY * 86_400_000_000


def copy_out(table: str, columns: pa.Schema, ids: Sequence[bytes] | None, limit: int | None) -> sql.Composed:
    """The statement for `columns` of all rows of `table`, or of those with `ids`, or of `limit` rows."""
    fields = [sql.Identifier(EVENT_ID), sql.SQL("{}::bigint").format(sql.Identifier(RECEIPT))]
    fields += [_selected(column) for column in columns]
    # rows that were there before the column was added have no ID
    where: sql.Composable = sql.SQL(" WHERE {} IS NOT NULL").format(sql.Identifier(EVENT_ID))
    if ids is not None:
        listed = sql.Literal([UUID(bytes=one) for one in ids])
        where = sql.SQL(" WHERE {} = ANY({}::uuid[])").format(sql.Identifier(EVENT_ID), listed)
    most = sql.SQL("" if limit is None else " LIMIT {}").format(sql.Literal(limit))
    rows = sql.SQL("SELECT {} FROM {}{}{}").format(sql.SQL(", ").join(fields), sql.Identifier(table), where, most)
    return sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(rows)


def copied_rows(copy: psycopg.Copy, columns: pa.Schema) -> Iterator[HeldRows]:
    """What `copy_out` gave, in blocks of bounded size. Raises `StoreError` for anything else."""
    first = _without_header(copy.read())
    while first and not _is_trailer(first):
        rows, first = _gathered(copy, first)
        yield _held(rows, columns)
    while copy.read():
        pass  # so that the server's last word is heard


def _gathered(copy: psycopg.Copy, first: Message) -> tuple[list[Message], Message]:
    """Rows from `first` on, as many as are taken at once, and the message that comes behind them.

    What has arrived already is taken from libpq itself: the way through psycopg takes three times as long.
    """
    arrived = copy.connection.pgconn.get_copy_data
    rows: list[Message] = [first]
    size = len(first)
    row: Message
    while len(rows) < ROWS_AT_ONCE and size < BYTES_AT_ONCE:
        length, row = arrived(1)
        if length == 0:
            row = copy.read()
            length = len(row)
        elif length < 0:
            raise _stopped(copy.connection)
        if length <= len(_TRAILER):
            return rows, row
        rows.append(bytes(row))  # views are objects that the garbage collector looks at again and again
        size += length
    return rows, copy.read()


def _stopped(connection: psycopg.Connection[Any]) -> psycopg.Error:
    """What the server said instead of the next row."""
    said = list(iter(connection.pgconn.get_result, None))  # all of it, so that the connection can be used again
    if not said:
        return psycopg.OperationalError("the server ended the COPY without a message")
    return psycopg.errors.error_from_result(said[0])


def _is_trailer(message: Message) -> bool:
    return len(message) <= len(_TRAILER)


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


def _without_header(message: Message) -> Message:
    if bytes(message[: len(_SIGNATURE)]) != _SIGNATURE:
        raise StoreError("the server's COPY does not begin like a binary COPY")
    return message[_HEADER + int.from_bytes(message[_HEADER - 4 : _HEADER], "big") :]


def _held(rows: Sequence[Message], columns: pa.Schema) -> HeldRows:
    fields = _Fields(rows, 2 + len(columns))
    ids, receipts = fields.ids(), fields.integers()
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
        letters, absent = fields.letters()
        return HeldColumn(pa.array(letters != 0, kind, mask=absent))
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

    def __init__(self, rows: Sequence[Message], fields: int) -> None:
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

    def ids(self) -> NDArray[np.uint8]:
        """Fields of 16 bytes, shape (rows, 16)."""
        starts, _ = self._starts(16)
        words = self._words("<u8")
        return np.stack([words[starts], words[starts + 8]], axis=1).view(np.uint8)

    def letters(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Fields of one byte, and where there is none."""
        starts, absent = self._starts(1)
        return self._bytes[starts], absent

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
        if ((lengths != width) & ~absent).any():
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
        hint="is there a pooler that splits COPY data anew? Connect to the server itself; "
        "if there is none, another process changed the table's columns: run it again",
    )
