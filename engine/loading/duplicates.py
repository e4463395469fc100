"""Duplicates whose values differ from the row they repeat: the identity is too narrow, or the feed revises its events.

    a chunk's duplicates ──► a sample ──► the row that each repeats is in the same chunk ──► compared, whole columns
                                      └─► it is elsewhere: a few are looked up in the table, by one query, at times

This happens only if revisions are ignored: otherwise each duplicate is compared with the table's row, and reported. The
counts change nothing; the report shows them, so that the user notices an identity that is too narrow.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.errors import HeadraceError
from headrace.loading.agreement import Agreement
from headrace.loading.known_ids import Mask
from headrace.loading.met_chunk import MetChunk
from headrace.partitioning.dedup import SortedIds, halves
from headrace.partitioning.prints import prints_of_column
from headrace.storage.held import HeldColumn
from headrace.storage.store import Store

__all__ = ["DuplicateSample", "LookUps"]

log = logging.getLogger("headrace.duplicates")
Rows = NDArray[np.int64]
SAMPLED = 1_000  # duplicates of a chunk
LOOKED_UP = 100  # of them in the table, where what they repeat is not at hand
BETWEEN_LOOK_UPS = 600.0  # seconds: a look-up takes a fifth of a warm batch of 4,000 rows


class LookUps:
    """When a table is queried for the rows that a provider's duplicates repeat: for the first duplicates, then now and
    then.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], float] = {}

    def grant(self, table: str, provider: str) -> bool:
        """Whether `table` may be queried now; a granted call counts."""
        now, about = monotonic(), (table, provider)
        if now - self._made.get(about, -BETWEEN_LOOK_UPS) < BETWEEN_LOOK_UPS:
            return False
        self._made[about] = now
        return True


@dataclass(slots=True)
class DuplicateSample:
    """The result of comparing a sample of a run's duplicates: how many were `compared`, how many are `differing`, in
    which `columns`. `look_ups` decides when the table may be queried.
    """

    look_ups: LookUps
    compared: int = 0
    differing: int = 0
    columns: Counter[str] = field(default_factory=Counter)

    def look(
        self, chunk: MetChunk, agreement: Agreement, provider: str, store: Store, drain: Callable[[], None]
    ) -> None:
        """Compare some duplicates of `chunk`, events of `provider`; `drain` frees the store, once all chunks before
        are committed.

        If the database decides which events exist (`chunk` was not judged), a sample of all rows is looked up there.
        """
        identity = dict(agreement.contract.identity)
        if not chunk.has_duplicates:
            return
        events = chunk.events
        events = events.select([name for name in events.schema.names if name not in identity])
        if not events.num_columns:
            return
        rows = _spread(np.flatnonzero(~chunk.new), SAMPLED)
        repeated = _repeated(chunk.sorted, chunk.ids, rows, chunk.first)
        here = repeated >= 0
        if here.any():
            self._compare(_taken(events, rows[here]), _taken(events, repeated[here]))
        elsewhere = rows[~here]
        if not chunk.judged and not agreement.created:
            elsewhere = np.concatenate([elsewhere, np.flatnonzero(chunk.first)])
        if len(elsewhere) and self.look_ups.grant(agreement.table, provider):
            drain()
            some = _spread(elsewhere, LOOKED_UP)
            self._look_up(store, agreement, _taken(events, some), [one.tobytes() for one in chunk.ids[some]])

    def told(self) -> dict[str, Any]:
        """What the report says of it."""
        return {
            "duplicates_compared": self.compared,
            "duplicates_differing": self.differing,
            "differing_columns": dict(self.columns.most_common()),
        }

    def _compare(self, came: pa.RecordBatch, repeated: pa.RecordBatch) -> None:
        differ = {name: _differ(came.column(name), repeated.column(name)) for name in came.schema.names}
        self._count(came.num_rows, differ)

    def _look_up(self, store: Store, agreement: Agreement, came: pa.RecordBatch, ids: Sequence[bytes]) -> None:
        """Compare `came` with the table's rows. That nothing can be told of them is no failure of the run's."""
        # a column without any value may be one that the input does not have
        schema = pa.schema([one for one in agreement.schema if one.name in _with_values(came)])
        try:
            forms = store.tables.stored_forms(agreement.table)
            for held in store.events.rows(agreement.table, schema, ids=ids):
                places = {one: at for at, one in enumerate(ids)}
                at = pa.array([places[one.tobytes()] for one in held.ids])
                differ = {}
                for name in schema.names:
                    own = HeldColumn(forms.stored(name, came.column(name).take(at)))
                    differ[name] = _prints(name, own) != _prints(name, held.columns[name])
                self._count(len(held.ids), differ)
        except HeadraceError as error:
            log.debug("duplicates could not be compared with the table's rows: %s", error)

    def _count(self, rows: int, differ: Mapping[str, Mask]) -> None:
        every = np.zeros(rows, dtype=np.bool_)
        for name, mask in differ.items():
            if mask.any():
                self.columns[name] += int(mask.sum())
                every |= mask
        self.compared += rows
        self.differing += int(every.sum())


def _spread(rows: Rows, most: int) -> Rows:
    """`most` of `rows` at equal distances, the same ones at each run."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _repeated(ids: SortedIds, packed: NDArray[np.uint8], rows: Rows, first: Mask) -> Rows:
    """For each of `rows` the row of the chunk that it repeats, -1 where that is not in the chunk."""
    low, high = halves(packed[rows])
    found = np.searchsorted(ids.low, low)
    before = ids.rows[found]
    return np.where((ids.high[found] == high) & (before != rows) & first[before], before, -1)


def _differ(one: pa.Array, other: pa.Array) -> Mask:
    """Where two columns have not the same value; NaN is NaN, and null is null."""
    unequal = pc.or_(pc.fill_null(pc.not_equal(one, other), False), pc.xor(one.is_valid(), other.is_valid()))
    if pa.types.is_floating(one.type):
        both = pc.and_(pc.is_nan(one), pc.is_nan(other))
        unequal = pc.and_not(unequal, pc.fill_null(both, False))
    mask: Mask = unequal.to_numpy(zero_copy_only=False)
    return mask


def _prints(name: str, column: HeldColumn) -> NDArray[np.uint64]:
    return prints_of_column(name, column.values, column.odd)


def _taken(events: pa.RecordBatch, rows: Rows) -> pa.RecordBatch:
    return events.take(pa.array(rows))


def _with_values(batch: pa.RecordBatch) -> set[str]:
    return {name for name in batch.schema.names if batch.column(name).null_count < batch.num_rows}
