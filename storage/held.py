"""Rows as a table holds them, in whole columns: canonical values, and odd values in their places.

    PostgreSQL: integers and bytes of a binary COPY ─┐
                                                     ├─► HeldColumn: values of the canonical type, and the odd ones
    SQLite: whatever class each value was stored in ─┘

Other programs write into the table too. An infinite time, a text in SQLite's column of integers or a number with more
digits than its column's canonical type has is not a canonical value; it is *odd*, and kept as text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.storage.moments import BEFORE_ALL, BEHIND_ALL, date_text, days_of, moment_text, moment_us
from headrace.storage.records import NO_RECEIPT
from headrace.storage.value_text import plain_number

__all__ = ["HeldColumn", "HeldRows", "column_of", "decimals", "rows_of", "shown"]

Values = list[Any]
_MOST_DIGITS = 38


class HeldColumn(NamedTuple):
    """A column of some rows: `values` of a canonical type, and the texts of what is `odd` there, null elsewhere.

    `values` is null where a value is odd; `odd` is ``None`` where none is.
    """

    values: pa.Array
    odd: pa.Array | None = None

    def shown(self, at: int) -> str | None:
        """The value in row `at` as text, ``None`` for a null."""
        odd = None if self.odd is None else self.odd[at].as_py()
        return shown(self.values[at]) if odd is None else f"{odd} (no {_noun(self.values.type)})"


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Some rows of an event table: IDs of shape (rows, 16), receipts (0 where null), and columns by name."""

    ids: NDArray[np.uint8]
    receipts: NDArray[np.int64]
    columns: dict[str, HeldColumn]

    def where(self, mask: NDArray[np.bool_]) -> HeldRows:
        """The rows for which `mask` holds."""
        chosen = pa.array(mask)
        columns = {
            name: HeldColumn(one.values.filter(chosen), None if one.odd is None else one.odd.filter(chosen))
            for name, one in self.columns.items()
        }
        return HeldRows(self.ids[mask], self.receipts[mask], columns)


def rows_of(block: Sequence[tuple[Any, ...]], columns: pa.Schema) -> HeldRows:
    """Rows as SQLite gives them: an ID, a receipt and a value for each of `columns`."""
    packed, receipts, *values = map(list, zip(*block, strict=True))
    held = zip(columns, values, strict=True)
    return HeldRows(
        np.frombuffer(b"".join(packed), np.uint8).reshape(-1, 16),
        np.array([one or NO_RECEIPT for one in receipts], dtype=np.int64),
        {column.name: column_of(given, column.type) for column, given in held},
    )


def shown(value: pa.Scalar) -> str | None:
    """A canonical value as text from which its column's type can be read again; ``None`` for a null."""
    kind = value.type
    if not value.is_valid:
        return None
    if pa.types.is_timestamp(kind):
        return moment_text(value.value)
    if pa.types.is_date(kind):
        return date_text(value.value)
    found = value.as_py()
    if isinstance(found, bytes):
        return found.decode(errors="backslashreplace")
    if pa.types.is_decimal(kind):
        return _plainly(format(found, "f"))
    return str(found).lower() if isinstance(found, bool) else str(found)


def column_of(values: Values, kind: pa.DataType) -> HeldColumn:
    """`values` as SQLite gives them, as a column of the canonical type `kind`."""
    if pa.types.is_decimal(kind):
        return _decimals_of(values, kind)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _times_of(values, kind)
    classes = _CLASSES[str(kind)]
    if not set(map(type, values)) <= classes:
        return _apart(values, kind, lambda value: value if type(value) in classes else None)
    if pa.types.is_boolean(kind):
        if not set(values) <= {0, 1, None}:
            return _apart(values, kind, lambda value: bool(value) if value in (0, 1) else None)
        return HeldColumn(pa.array(values, pa.int8()).cast(kind))
    return HeldColumn(pa.array(values, kind))


def decimals(texts: pa.Array, kind: pa.DataType) -> HeldColumn:
    """Numbers written as text, as a column of the decimal type `kind`."""
    dotted = pc.match_substring(texts, ".")
    without = pc.utf8_rtrim(pc.utf8_rtrim(texts, "0"), ".")
    plain = pc.if_else(pc.and_(dotted, pc.invert(pc.match_substring(texts, "E"))), without, texts)
    fraction = f"(\\.[0-9]{{1,{kind.scale}}})?" if kind.scale else ""
    good = pc.match_substring_regex(plain, f"^-?[0-9]{{1,{_MOST_DIGITS - kind.scale}}}{fraction}$")
    if pc.all(good, min_count=0).as_py() is not False:
        return HeldColumn(plain.cast(kind))
    odd = pc.if_else(good, pa.scalar(None, pa.string()), texts)
    return HeldColumn(pc.if_else(good, plain, pa.scalar(None, pa.string())).cast(kind), odd)


# the storage classes of SQLite whose values are those of a type
_CLASSES: dict[str, set[type]] = {
    "bool": {int, type(None)},
    "int64": {int, type(None)},
    "double": {float, int, type(None)},
    "string": {str, type(None)},
    "binary": {bytes, type(None)},
}
_AS_WRITTEN = {
    "timestamp": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$",
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
}


def _times_of(values: Values, kind: pa.DataType) -> HeldColumn:
    is_date = pa.types.is_date(kind)
    if set(map(type, values)) <= {str, type(None)}:
        texts = pa.array(values, pa.string())
        written = pc.match_substring_regex(texts, _AS_WRITTEN["date" if is_date else "timestamp"])
        if pc.all(written, min_count=0).as_py() is not False:
            try:
                return HeldColumn(texts.cast(kind) if is_date else texts.cast(pa.timestamp("us")).cast(kind))
            except pa.ArrowInvalid:
                pass  # no such day
    read = days_of if is_date else moment_us

    def number(value: Any) -> int | None:
        found = read(value) if isinstance(value, str) else None
        return None if found in (BEFORE_ALL, BEHIND_ALL) else found

    apart = _apart(values, pa.int32() if is_date else pa.int64(), number)
    return HeldColumn(apart.values.view(kind), apart.odd)


def _decimals_of(values: Values, kind: pa.DataType) -> HeldColumn:
    """Decimals as text, as Arrow writes them: those near zero as ``1E-9``."""
    texts = [
        _plainly(value) if type(value) is str else None if value is None else f"{value!r} as a number"
        for value in values
    ]
    return decimals(pa.array(texts, pa.string()), kind)


def _plainly(text: str) -> str:
    """A number without an exponent, and without the zeros that say nothing; anything else as it is."""
    text = plain_number(text)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _apart(values: Values, kind: pa.DataType, canonical: Callable[[Any], Any]) -> HeldColumn:
    """The values that are canonical, and the odd ones."""
    found = [None if value is None else canonical(value) for value in values]
    odd = [None if one is not None or value is None else str(value) for one, value in zip(found, values, strict=True)]
    return HeldColumn(
        pa.array(found, kind), pa.array(odd, pa.string()) if any(one is not None for one in odd) else None
    )


def _noun(kind: pa.DataType) -> str:
    names: Sequence[tuple[str, Callable[[pa.DataType], bool]]] = (
        ("time that a load can contain", pa.types.is_timestamp),
        ("date that a load can contain", pa.types.is_date),
        ("number that a load can contain", pa.types.is_decimal),
    )
    return next((name for name, is_kind in names if is_kind(kind)), f"{kind} value")
