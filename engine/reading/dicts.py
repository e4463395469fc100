"""Dicts in Python as record batches: a column for each key, in the type that holds every value as it is.

    rows ──► blocks ──► one list a column ──┬─► of one kind: Arrow's own type
                                            └─► of several, or more than Arrow would keep of them: text

Arrow unifies values of several types, and loses information with some: a time of day beside a date, an offset beside
none, nanoseconds, true beside 1.5. Such columns go through text, from which the cast layer reads them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import Any

import pyarrow as pa

from headrace.errors import InputError
from headrace.reading.reader import Hint
from headrace.reading.types.value_text import text_of

__all__ = ["batches_of_dicts", "hint_of"]

_BATCH_ROWS = 16_384
_MISSING = {"NAType", "NaTType"}  # of pandas, which need not be installed
_TIMES: Hint = ("timestamp", "string")
_HINTED = {b"headrace": b"times"}


def batches_of_dicts(rows: Iterable[object], name: str) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of bounded size. A column whose values in a batch have no common type becomes text."""
    iterator = iter(rows)
    known: dict[str, None] = {}
    while block := list(islice(iterator, _BATCH_ROWS)):
        dicts = _named(block, name)
        for row in dicts:
            known.update(dict.fromkeys(row))
        columns = {column: _Column([row.get(column) for row in dicts]) for column in known}
        _require_utf8(columns, name)
        if columns:
            fields = [pa.field(key, column.array.type, metadata=column.metadata) for key, column in columns.items()]
            yield pa.record_batch([column.array for column in columns.values()], schema=pa.schema(fields))
        else:
            yield pa.record_batch({"": pa.nulls(len(dicts))})


def hint_of(fields: Iterable[pa.Field]) -> Hint:
    """The types as which a column may be inferred: times of several types are text that may be times; other
    columns have a type.
    """
    return _TIMES if any(field.metadata == _HINTED for field in fields) else None


def _named(block: list[object], name: str) -> list[Mapping[str, object]]:
    """The rows by the text of their keys, as columns are called. Raises `InputError` for what is no row."""
    dicts: list[Mapping[Any, object]] = []
    for row in block:
        if not isinstance(row, Mapping):
            raise InputError(f"a row is {type(row).__name__}, not a dict", where=name, hint="give dicts")
        dicts.append(row)
    if {type(key) for row in dicts for key in row} <= {str}:
        return dicts
    named: list[Mapping[str, object]] = [{_name(key): value for key, value in row.items()} for row in dicts]
    if any(len(after) < len(before) for after, before in zip(named, dicts, strict=True)):
        raise InputError("two keys of a row have the same text", where=name, hint="a column's name is its key's text")
    return named


def _name(key: object) -> str:
    return str.__str__(key) if isinstance(key, str) else str(key)


class _Column:
    """One column's values as an Arrow array, and what `hint_of` is to know of it."""

    def __init__(self, values: list[object]) -> None:
        self.metadata = None
        kinds = set(map(type, values)) - {type(None)}
        if any(kind.__name__ in _MISSING for kind in kinds):
            values = [None if type(value).__name__ in _MISSING else value for value in values]
            kinds = {kind for kind in kinds if kind.__name__ not in _MISSING}
        if _arrow_would_lose(values, kinds):
            self.array = _texts(values)
            if all(issubclass(kind, date) for kind in kinds):
                self.metadata = _HINTED
        else:
            self.array = _array(values)


def _arrow_would_lose(values: list[object], kinds: set[type]) -> bool:
    """Whether the type that Arrow finds for values of these kinds holds less than they say."""
    if any(issubclass(kind, date) for kind in kinds):
        return _times_differ(values, kinds)
    if any(issubclass(kind, time) for kind in kinds):
        return any(isinstance(value, time) and value.tzinfo is not None for value in values)
    if any(issubclass(kind, timedelta) and kind is not timedelta for kind in kinds):
        return any(getattr(value, "nanoseconds", 0) for value in values)
    return len(kinds) > 1 and any(kind.__name__ in {"bool", "bool_"} for kind in kinds)


def _times_differ(values: list[object], kinds: set[type]) -> bool:
    """Whether dates stand beside times, times with an offset beside such without, or a time has nanoseconds."""
    days = any(issubclass(kind, date) and not issubclass(kind, datetime) for kind in kinds)
    if len(kinds) > 1 and (days or not all(issubclass(kind, datetime) for kind in kinds)):
        return True
    times = [value for value in values if isinstance(value, datetime)]
    # pandas' own kind of datetime has them
    finer = kinds != {datetime} and any(getattr(value, "nanosecond", 0) for value in times)
    return finer or len({value.tzinfo is None for value in times}) > 1


def _array(values: list[object]) -> pa.Array:
    try:
        array = pa.array(values)
    except (pa.ArrowException, TypeError, OverflowError, ValueError):
        return _texts(values)
    return _texts(values) if pa.types.is_nested(array.type) else array


def _texts(values: list[object]) -> pa.Array:
    """The values as text. A lone surrogate, which has no UTF-8, is kept as the invalid bytes that reveal it."""
    texts = [text_of(value) for value in values]
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        encoded = [None if text is None else text.encode(errors="surrogatepass") for text in texts]
        return pa.array(encoded, pa.binary()).view(pa.string())


def _require_utf8(columns: Iterable[str], name: str) -> None:
    """Raise `InputError` for a column whose name has a lone surrogate: Arrow cannot hold it."""
    for column in columns:
        if not column.isascii() and any("\ud800" <= letter <= "\udfff" for letter in column):
            raise InputError(f"the column {column!a} has a name that is not Unicode text", where=name, hint="rename it")
