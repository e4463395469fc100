"""The forms in which a table's own types store canonical values, as the database does it.

type               what is stored
real               the float, rounded to 24 bits
character(n)       the text without the blanks at its end, which mean nothing there
varchar(n)         the text without the blanks at its end that go beyond n
timestamp(p)       the time, rounded to p digits of a second, half away from the year 2000
SQLite's floats    no NaN: it becomes null

A value of any other type is stored as it is, or not at all. Columns are compared in the form in which they are stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

__all__ = ["DECLARED_IN_POSTGRES", "StoredForms", "forms_of_postgres", "forms_of_sqlite"]

DECLARED_IN_POSTGRES = sa.text(
    "WITH RECURSIVE declared (attnum, attname, oid, typmod) AS ("
    "SELECT attnum, attname, atttypid, atttypmod FROM pg_attribute "
    "WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped UNION ALL "
    "SELECT attnum, attname, typbasetype, typtypmod FROM declared JOIN pg_type USING (oid) WHERE typtype = 'd') "
    "SELECT attname, format_type(oid, typmod) FROM declared JOIN pg_type USING (oid) WHERE typtype <> 'd' "
    "ORDER BY attnum"
)
"""Every column's name, and its type as it is declared; of a domain, the type that it is made of."""

Form = Callable[[pa.Array], pa.Array]
_YEAR_2000 = 946_684_800_000_000


class StoredForms:
    """What becomes of the values of each column."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self._forms = forms

    def stored(self, name: str, values: pa.Array) -> pa.Array:
        """The canonical `values` of the column `name` as they are stored."""
        form = self._forms.get(name)
        return values if form is None else form(values)


def forms_of_postgres(declared: Iterable[Any]) -> StoredForms:
    """For columns as `DECLARED_IN_POSTGRES` tells them."""
    forms = {str(name): _form_of(str(kind)) for name, kind in declared}
    return StoredForms({name: form for name, form in forms.items() if form is not None})


def forms_of_sqlite(schema: pa.Schema | None) -> StoredForms:
    """For the data columns of a table in SQLite."""
    return StoredForms({one.name: _without_nan for one in schema or () if pa.types.is_floating(one.type)})


def _form_of(declared: str) -> Form | None:
    number = re.search(r"\((\d+)\)", declared)
    if declared == "real":
        return _as_real
    if declared.startswith(("character(", "bpchar")):
        return _without_blanks
    if declared.startswith("character varying(") and number:
        return partial(_cut, int(number[1]))
    if declared.startswith("timestamp(") and number:
        return partial(_rounded, int(number[1]))
    return None


def _as_real(values: pa.Array) -> pa.Array:
    return values.cast(pa.float32(), safe=False).cast(pa.float64())


def _without_blanks(values: pa.Array) -> pa.Array:
    return pc.utf8_rtrim(values, " ")


def _cut(length: int, values: pa.Array) -> pa.Array:
    # more than blanks behind the end would not have been taken
    return pc.utf8_slice_codeunits(values, 0, length)


def _rounded(digits: int, values: pa.Array) -> pa.Array:
    step = 10 ** (6 - digits)
    since = np.asarray(values.view(pa.int64()).fill_null(_YEAR_2000)) - _YEAR_2000
    rounded = np.sign(since) * ((np.abs(since) + step // 2) // step * step) + _YEAR_2000
    return pa.array(rounded, mask=np.asarray(values.is_null())).view(values.type)


def _without_nan(values: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
