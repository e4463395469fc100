"""Encoding v1: the identity columns of a row become one string of bytes, the same on every machine.

    columns ──► pieces ──────────────────────────────► one binary value per row
    float       03 ········   ┐ dense: null-free fixed-width fields that stand
    timestamp   04 ········   ┘ side by side are filled into one packed matrix
    string      07 ···· │ text  tag and length are dense, the text is its own piece
    nullable    00 or as above  its own piece, chosen by validity

A field is a tag byte and a payload, all integers big-endian (`docs/identity.md` is the specification; the vectors in
`tests/golden` freeze it). Whole columns are encoded at a time: one Python call per column, none per row. Packing the
fixed-width fields with a NumPy record type takes 4 ns a row for three columns, six times less than filling a byte
matrix; joining the pieces takes 14 ns a row and piece, which is why adjacent ones are merged first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.partitioning.contract import LogicalType, logical_type

__all__ = ["blank", "decimal_text", "encode", "encode_named", "unencodable"]

_NULL = b"\x00"
_TAGS: dict[LogicalType, int] = {
    "bool": 1,
    "integer": 2,
    "float": 3,
    "timestamp": 4,
    "date": 5,
    "decimal": 6,
    "string": 7,
    "bytes": 8,
}
_BLANK = " \t\r\n\f\v"  # white space that the cast layer ignores around a value
_INT32_OFFSETS = 2**31 - 1  # the most bytes that one Arrow `binary` array can hold


@dataclass(frozen=True, slots=True)
class _Dense:
    """Fields that every row has: for each a big-endian NumPy type and the values, one per row."""

    fields: tuple[tuple[str, NDArray[Any] | int], ...]


_Piece: TypeAlias = _Dense | pa.Array


def encode(columns: Sequence[pa.Array], provider: str | None) -> pa.Array:
    """Encoding v1 of each row of `columns`: a null-free ``binary`` array as long as the columns.

    `columns` are the identity columns in the contract's order, cast to their contract types; `provider` is the
    provider's name with provider scope, `None` with global scope. The result is ``large_binary`` when the encodings
    exceed 2 GiB. Raises `ValueError` if there is no column, or if a float is NaN or infinite (see `unencodable`).
    """
    if not columns:
        raise ValueError("nothing to encode: no identity columns")
    rows = len(columns[0])
    binary = _binary_type(columns, provider)
    pieces: list[_Piece] = [] if provider is None else list(_constant_string(provider, rows, binary))
    for column in columns:
        pieces.extend(_pieces(column, binary))
    return _join([_packed(piece, rows, binary) for piece in _merged(pieces)], binary)


def encode_named(columns: Sequence[tuple[str, pa.Array]]) -> pa.Array:
    """The encoding of a row without identity: of each column that has a value its name, as a string, and the
    value, in the order of the names' code points. A ``binary`` array as long as the columns, of which there is one.

    Columns without a value leave no trace, so that the rows of a table that gains columns stay what they are.
    """
    fields = []
    for name, column in sorted(columns, key=lambda one: (unicodedata.normalize("NFC", one[0]), one[0])):
        field = encode([pa.repeat(pa.scalar(name), len(column)), column], None)
        fields.append(pc.if_else(column.is_valid(), field, pa.scalar(b"", field.type)))
    binary = pa.large_binary() if any(field.type == pa.large_binary() for field in fields) else pa.binary()
    return _join([field.cast(binary) for field in fields], binary)


def blank(columns: Sequence[pa.Array]) -> NDArray[np.bool_] | None:
    """Which rows have no value in any of `columns`: all are null, or text of white space, or no bytes. Shape (rows,);
    ``None`` where no row is so.

    The columns that are quick to check come first: mostly one of them has a value in every row.
    """
    rows: NDArray[np.bool_] | None = None
    for column in sorted(columns, key=lambda one: _is_text(one) + (one.null_count > 0)):
        empty = _blank(column)
        if empty is None:
            return None
        rows = empty if rows is None else rows & empty
        if not rows.any():
            return None
    return rows


def _blank(column: pa.Array) -> NDArray[np.bool_] | None:
    empty = column.is_null() if column.null_count else None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # what is less than "!" is empty, or begins with a blank or a control character: few texts, if any
        if pc.any(pc.less(column, pa.scalar("!", column.type))).as_py():
            empty = pc.fill_null(pc.equal(pc.ascii_trim(column, characters=_BLANK), ""), True)
    elif _is_text(column):
        empty = pc.fill_null(pc.equal(pc.binary_length(column), 0), True)
    return None if empty is None else _numpy(empty)


def _is_text(column: pa.Array) -> bool:
    return logical_type(column.type) in ("string", "bytes")


def unencodable(column: pa.Array) -> NDArray[np.bool_]:
    """Which values have no encoding and must be rejected: NaN and ±inf. A null has one. Shape (rows,)."""
    if not pa.types.is_floating(column.type):
        return np.zeros(len(column), dtype=np.bool_)
    finite: NDArray[np.bool_] = np.isfinite(_numpy(column.fill_null(0.0)))
    return ~finite


def decimal_text(column: pa.Array) -> pa.Array:
    """The canonical text of each decimal (``string``, nulls kept): plain notation, nothing superfluous.

    ``-0.50`` is ``-0.5``, ``007.00`` is ``7``, any zero is ``0``. Arrow's own text switches to an exponent for small
    numbers, so the digits are taken from the unscaled integer.
    """
    scale = column.type.scale
    unscaled = _unscaled(column)
    if scale <= 0:
        zeros = pa.scalar("0" * -scale)
        is_zero = pc.equal(unscaled, "0")
        return pc.if_else(is_zero, unscaled, pc.binary_join_element_wise(unscaled, zeros, ""))
    digits = pc.utf8_lpad(pc.utf8_ltrim(unscaled, "-"), scale + 1, "0")
    fraction = pc.utf8_rtrim(pc.utf8_slice_codeunits(digits, -scale), "0")
    return pc.binary_join_element_wise(
        pc.if_else(pc.starts_with(unscaled, "-"), "-", ""),
        pc.utf8_slice_codeunits(digits, 0, -scale),
        pc.if_else(pc.equal(fraction, ""), "", "."),
        fraction,
        "",
    )


def _unscaled(column: pa.Array) -> pa.Array:
    """The text of the integers that a decimal column holds: the same buffers under a type of scale 0."""
    whole = pa.Array.from_buffers(
        pa.decimal128(38, 0), len(column), column.buffers(), null_count=column.null_count, offset=column.offset
    )
    return whole.cast(pa.string())


def _binary_type(columns: Sequence[pa.Array], provider: str | None) -> pa.DataType:
    """``binary`` unless the encodings might overflow its 32-bit offsets; NFC makes UTF-8 at most three times longer."""
    prefix = 0 if provider is None else 5 + 3 * len(provider.encode())
    fixed = len(columns[0]) * (prefix + 45 * len(columns))
    return pa.large_binary() if fixed + 3 * sum(map(_bytes_in, columns)) > _INT32_OFFSETS else pa.binary()


def _bytes_in(column: pa.Array) -> int:
    if pa.types.is_dictionary(column.type):  # bounded from above: every row might name the longest value
        longest = pc.max(pc.binary_length(column.dictionary)).as_py() if len(column.dictionary) else 0
        return len(column) * int(longest or 0)
    return int(column.nbytes)


def _constant_string(text: str, rows: int, binary: pa.DataType) -> Iterator[_Piece]:
    """The provider's name as the first field of every row."""
    yield from _pieces(pa.repeat(pa.scalar(text), rows), binary)


def _pieces(column: pa.Array, binary: pa.DataType) -> Iterator[_Piece]:
    """The pieces of one field, left to right."""
    kind = logical_type(column.type)
    column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    text = _TEXT[kind](column, binary) if kind in _TEXT else None
    form, values = (">u4", pc.binary_length(text)) if text is not None else _FIXED[kind](column)
    if column.null_count == 0:
        yield _Dense((("u1", _TAGS[kind]), (form, _numpy(values))))
    else:
        field = _Dense((("u1", _TAGS[kind]), (form, _numpy(values.fill_null(0)))))
        yield pc.if_else(column.is_valid(), _packed(field, len(column), binary), pa.scalar(_NULL, binary))
    if text is not None:
        yield text if text.null_count == 0 else text.fill_null(pa.scalar(b"", binary))


def _merged(pieces: Sequence[_Piece]) -> Iterator[_Piece]:
    """Adjacent dense pieces as one, so that Arrow joins fewer."""
    for dense, group in groupby(pieces, key=lambda piece: isinstance(piece, _Dense)):
        if dense:
            yield _Dense(tuple(field for piece in group for field in piece.fields))
        else:
            yield from group


def _packed(piece: _Piece, rows: int, binary: pa.DataType) -> pa.Array:
    """A dense piece as one binary value per row; other pieces are that already."""
    if not isinstance(piece, _Dense):
        return piece
    record = np.dtype([(f"f{position}", form) for position, (form, _) in enumerate(piece.fields)])
    matrix = np.empty(rows, dtype=record)
    for position, (_, values) in enumerate(piece.fields):
        matrix[f"f{position}"] = values
    width = record.itemsize
    return pa.Array.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(matrix.view(np.uint8))]).cast(binary)


def _join(pieces: Sequence[pa.Array], binary: pa.DataType) -> pa.Array:
    return pieces[0] if len(pieces) == 1 else pc.binary_join_element_wise(*pieces, pa.scalar(b"", binary))


def _float(column: pa.Array) -> tuple[str, pa.Array]:
    if unencodable(column).any():
        raise ValueError("NaN and infinities have no encoding; reject them first")
    return ">f8", pc.add(column.cast(pa.float64()), 0.0)  # turns -0.0 into 0.0


def _string(column: pa.Array, binary: pa.DataType) -> pa.Array:
    """UTF-8 in NFC, by Python's tables: Arrow before release 26 gives NFD where NFC is requested.

    ASCII is in NFC already. Most other text is too, which a look at the whole column tells.
    """
    column = column.cast(pa.large_string() if binary == pa.large_binary() else pa.string())
    if pc.all(pc.string_is_ascii(column)).as_py() is False and not _is_nfc(column):
        texts = (None if text is None else unicodedata.normalize("NFC", text) for text in column.to_pylist())
        column = pa.array(texts, column.type)
    return column.cast(binary)


def _is_nfc(column: pa.Array) -> bool:
    """Whether all texts one behind the other are in NFC: then each of them is, for a part of a text in NFC is in NFC
    (Unicode Standard Annex 15, section 1.2). ``False`` may also come from two texts that compose where they meet.
    """
    column = column.fill_null("")
    _, offsets, data = column.buffers()
    form = np.int64 if pa.types.is_large_string(column.type) else np.int32
    edges = np.frombuffer(offsets, dtype=form)[column.offset : column.offset + len(column) + 1]
    return unicodedata.is_normalized("NFC", str(memoryview(data)[edges[0] : edges[-1]], "utf-8"))


def _numpy(column: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


_FIXED: dict[LogicalType, Callable[[pa.Array], tuple[str, pa.Array]]] = {
    "bool": lambda column: ("u1", column.cast(pa.uint8())),
    "integer": lambda column: (">i8", column.cast(pa.int64())),
    "float": _float,
    "timestamp": lambda column: (">i8", column.cast(pa.timestamp("us", tz="UTC")).view(pa.int64())),
    "date": lambda column: (">i4", column.cast(pa.date32()).view(pa.int32())),
}
_TEXT: dict[LogicalType, Callable[[pa.Array, pa.DataType], pa.Array]] = {
    "decimal": lambda column, binary: decimal_text(column).cast(pa.binary()).cast(binary),
    "string": _string,
    "bytes": lambda column, binary: column.cast(binary),
}
