"""A row of a table with all its columns, whatever their types, as text: times in UTC, floats unrounded.

declared type ─► how the column is fetched, and what is made of what comes
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from headrace.storage.moments import read_date, read_moment
from headrace.storage.value_text import plain_number

__all__ = ["RowForm", "form_of_postgres", "form_of_sqlite"]

Read = Callable[[Any], Any]


class RowForm(NamedTuple):
    """The columns of a table as they are fetched, and how what comes of some of them is read."""

    columns: list[sa.ColumnElement[Any]]
    reads: Mapping[str, Read]

    def row(self, found: sa.RowMapping) -> dict[str, Any]:
        """The row as text."""
        return {
            name: self.reads[name](value) if name in self.reads and value is not None else value
            for name, value in found.items()
        }


def form_of_postgres(declared: Iterable[Any]) -> RowForm:
    """For columns and their types as `headrace.storage.sql.stored_forms.DECLARED_IN_POSTGRES` tells them."""
    columns: list[sa.ColumnElement[Any]] = []
    reads: dict[str, Read] = {}
    for name, kind in declared:
        column: sa.ColumnElement[Any] = sa.column(name)
        if re.match("time|date|interval|numeric", kind):
            column = sa.cast(column, sa.Text)
            reads[name] = read_date if kind == "date" else read_moment
        elif kind == "double precision":
            column, reads[name] = sa.func.float8send(column), _float
        elif kind == "real":
            column, reads[name] = sa.func.float4send(column), _short_float
        columns.append(column.label(name))
    return RowForm(columns, reads)


def form_of_sqlite(declared: Iterable[Any]) -> RowForm:
    """For columns and their types as SQLite has them."""
    columns: list[sa.ColumnElement[Any]] = []
    reads: dict[str, Read] = {}
    for name, kind in declared:
        columns.append(sa.column(name))
        for pattern, read in (("TIMESTAMP|DATETIME", read_moment), ("^DATE$", read_date), ("DECIMAL", plain_number)):
            if re.search(pattern, kind.upper()):
                reads[name] = _if_text(read)
                break
    return RowForm(columns, reads)


def _if_text(read: Callable[[str], str]) -> Read:
    return lambda value: read(value) if isinstance(value, str) else value


def _float(value: Any) -> float:
    return float(struct.unpack(">d", value)[0])


def _short_float(value: Any) -> float:
    """The float by the shortest text that gives the same one of 24 bits."""
    return float(str(np.float32(struct.unpack(">f", value)[0])))
