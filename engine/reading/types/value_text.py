"""The reason why a value was refused, for the user who has to correct it; and the value itself, as text."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import TypeGuard

import numpy as np
import pyarrow as pa

from headrace.partitioning.contract import LogicalType
from headrace.reading.types.arrow_types import is_bytes
from headrace.storage.moments import date_text, moment_text

__all__ = ["as_text", "kept", "reason", "restored", "text_of"]

_SHOWN = 60
_BASE64 = "base64"
_FRACTION = re.compile(r"[+-]?\d*\.\d*[1-9]\d*", re.ASCII)
_LEADING_ZERO = re.compile(r"[+-]?0\d+", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_FORMS: dict[LogicalType, str] = {
    "bool": "true or false",
    "integer": "a whole number",
    "float": "a number",
    "timestamp": "an ISO 8601 time such as 2022-04-09T00:18:00Z",
    "date": "a date such as 2022-04-09",
    "decimal": "a decimal number that fits the column",
    "bytes": "bytes",
    "string": "text",
}


def reason(text: str, wanted: LogicalType) -> str:
    """One clause that says why the value that reads `text` has no exact counterpart in `wanted`."""
    shown = repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
    return f"{shown} is not {_FORMS[wanted]} ({wanted}){_detail(text.strip(), wanted)}"


def text_of(value: object) -> str | None:
    """A Python value as the text from which its column's type can be read again; ``None`` stays."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, time):  # as the cast layer writes one
        return value.isoformat().rstrip("0") if value.microsecond and value.tzinfo is None else value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, bool | int | float | Mapping | list | tuple | set | frozenset | np.ndarray):
        return json.dumps(value, default=_within, ensure_ascii=False, separators=(",", ":"))
    return text_of(value.item()) if _is_number(value) else str(value)


def _within(value: object) -> object:
    """What stands for `value` in JSON. An array's own text shows its ends only, a set's has another order each time."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if _is_number(value) else str(value)


def _is_number(value: object) -> TypeGuard[np.generic]:
    return isinstance(value, np.number | np.bool_) and not isinstance(value, np.timedelta64)


def as_text(value: pa.Scalar) -> str | None:
    """An Arrow value as text, also a time that Python has no object for."""
    try:
        return text_of(value.as_py())
    except (OverflowError, ValueError):
        return _far_text(value)


def kept(value: pa.Scalar) -> str | dict[str, str] | None:
    """An Arrow value as a reject's record has it: its text, or for bytes that are no text an object that holds them."""
    if value.is_valid and isinstance(found := value.as_py() if is_bytes(value.type) else None, bytes):
        try:
            return found.decode()
        except UnicodeDecodeError:
            return {_BASE64: b64encode(found).decode()}
    return as_text(value)


def restored(value: object) -> object:
    """The bytes that `kept` encoded; any other value as it is."""
    return b64decode(value[_BASE64]) if isinstance(value, dict) and value.keys() == {_BASE64} else value


def _far_text(value: pa.Scalar) -> str:
    """A time or date that is beyond Python's calendar, or finer than its microseconds (shown as an integer)."""
    if pa.types.is_date32(value.type):
        return date_text(value.value)
    try:
        us = value.cast(pa.timestamp("us", value.type.tz)).value if pa.types.is_timestamp(value.type) else None
    except pa.ArrowInvalid:
        us = None
    return str(value.value) if us is None else moment_text(us).removesuffix("" if value.type.tz else "+00:00")


def _detail(text: str, wanted: LogicalType) -> str:
    if wanted == "integer" and _FRACTION.fullmatch(text):
        return ": it would lose its fraction"
    if wanted == "integer" and _LEADING_ZERO.fullmatch(text):
        return ": it would lose its leading zeros"
    if wanted == "integer" and _WHOLE.fullmatch(text):
        return ": it does not fit 64 bits"
    if wanted == "string" and re.search(r"\d:\d\d", text):
        return ": it is finer than a microsecond"
    if wanted == "timestamp" and re.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d.*", text):
        return ": no such time in the calendar or the time zone, or finer than a microsecond"
    return ""
