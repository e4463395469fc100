"""The limits of columns in a user's own table, so that values that do not fit are found before COPY.

    numeric(12,3)   a number of more than nine digits before the point        smallint, integer   one out of its range
    varchar(5)      a text of more characters, blanks at its end left out     real                one beyond 3.4e38
    an enum         a text that is none of its labels

Columns that Headrace made hold every value of their canonical type, and have no limit. A decimal of more digits behind
the point than the column keeps is refused when it is cast, since its scale is the column's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["Limit", "Limits", "beyond", "limit_of"]

_DIGITS = 38
# the numbers that types have in every PostgreSQL
_WHOLE = {21: 15, 23: 31}
_REAL, _NUMERIC, _CHAR, _TEXTS = 700, 1700, 18, (1042, 1043)


@dataclass(frozen=True, slots=True)
class Limit:
    """What a column of the type `declared` holds: numbers whose size is below `below` or from `low` to `high`, floats
    that `single` precision holds, texts of `length` characters, or these `labels`.
    """

    declared: str
    low: int | None = None
    high: int | None = None
    below: Decimal | None = None
    single: bool = False
    length: int | None = None
    labels: Sequence[str] = field(default_factory=tuple)

    @property
    def reason(self) -> str:
        """The reason why a row is a reject."""
        return f"the value does not fit the table's column, which is {self.declared}"

    def exceeded(self, column: pa.Array) -> NDArray[np.bool_] | None:
        """Which values of `column` do not fit; ``None`` where all do, or the column is of another type."""
        bad = self._bad(column)
        if bad is None or not pc.any(bad).as_py():
            return None
        mask: NDArray[np.bool_] = pc.fill_null(bad, False).to_numpy(zero_copy_only=False)
        return mask

    def _bad(self, column: pa.Array) -> pa.Array | None:
        kind = column.type
        if self.high is not None and pa.types.is_integer(kind):
            return pc.or_(pc.less(column, self.low), pc.greater(column, self.high))
        if self.below is not None and pa.types.is_decimal(kind):
            return pc.greater_equal(pc.abs(column), pa.scalar(self.below, kind))
        if self.single and pa.types.is_floating(kind):
            return pc.and_(pc.is_inf(column.cast(pa.float32(), safe=False)), pc.is_finite(column))
        if self.length is not None and pa.types.is_string(kind):
            return pc.greater(pc.utf8_length(pc.utf8_rtrim(column, " ")), self.length)
        if self.labels and pa.types.is_string(kind):
            return pc.and_(pc.is_valid(column), pc.invert(pc.is_in(column, value_set=pa.array(self.labels))))
        return None


Limits = Mapping[str, Limit]
"""By the column's name; most columns have none."""


def beyond(batch: pa.RecordBatch, limits: Limits) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Each column with values that do not fit: its name, the reason, and the rows."""
    for name, limit in limits.items():
        if name in batch.schema.names and (bad := limit.exceeded(batch.column(name))) is not None:
            yield name, limit.reason, bad


def limit_of(oid: int, typmod: int, said: str, labels: Sequence[str] = ()) -> Limit | None:
    """For a PostgreSQL type by its number and modifier, which is `said` so; an enum has `labels`."""
    limit: Limit | None
    size = typmod - 4  # behind a header of four bytes
    if labels:
        limit = Limit(said, labels=labels)
    elif oid in _WHOLE:
        limit = Limit(said, -(2 ** _WHOLE[oid]), 2 ** _WHOLE[oid] - 1)
    elif oid == _REAL:
        limit = Limit(said, single=True)
    elif oid == _CHAR:
        limit = Limit(said, length=1)
    else:
        limit = None if size < 0 else _of_size(oid, size, said)
    return limit


def _of_size(oid: int, size: int, said: str) -> Limit | None:
    if oid in _TEXTS:
        return Limit(f"{said}({size})", length=size)
    if oid == _NUMERIC and (size >> 16) < _DIGITS:
        precision, scale = size >> 16, ((size & 0x7FF) ^ 0x400) - 0x400
        return Limit(f"{said}({precision},{scale})", below=Decimal(10) ** (precision - scale))
    return None
