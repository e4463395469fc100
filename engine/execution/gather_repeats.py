"""The rows of a slice that repeat known events, gathered for the comparison with the table if revisions are not
ignored.

    repeats ──► rows in input order ──► enriched and judged by the rules that ask ──► Slice.repeats
                                        for revisions, where the newest may have
                                        the table's row

Kept rows become rejects here, because only here the address of a row is known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.events.alert_judge import Alerting, Judged, judge
from headrace.events.revisions import Revisions
from headrace.execution.enrichment import enriched
from headrace.execution.orders import ChunkRows, CommitOrder
from headrace.partitioning.identity import ids_to_arrow
from headrace.reading.types.value_text import kept
from headrace.storage.outbox import REVISION_COLUMNS
from headrace.storage.records import EVENT_ID, PROVIDER, DifferingRow, Repeats, Slice
from headrace.storage.rejects import Reject
from headrace.storage.store import Store

__all__ = ["with_repeats"]

SHOWN = 60  # characters of a value in a reason
_SAID = {
    "revision": "revision",
    "tie": "revision of the same version",
    "collision": "another event has the same ID",
    "absent": "it repeats an event that is not in the table",
}


def with_repeats(order: CommitOrder, revisions: Revisions, piece: Slice, store: Store) -> Slice:
    """`piece` with the rows of the order's `repeats`, to be compared as `revisions` says.

    Raises `WorkerError` if the user's function or an alert rule fails and failures are not allowed.
    """
    count = 0 if order.repeats is None else len(order.repeats)
    rows, places = _gathered(order.repeats, piece.provider), np.arange(count)
    where = f"{order}, rows whose IDs are already in the table"
    without_value: Sequence[str] = ()
    failed: list[tuple[int, str]] = []
    if order.enrichment is not None and revisions.version is not None and rows.num_rows:
        done = enriched(order.enrichment, rows, store, piece.table, where)
        failed, rows, without_value = list(done.failed), done.events, done.without_value
        places = np.delete(places, [at for at, _ in failed])
    alerts = None
    asking = None if order.alerting is None or revisions.version is None else order.alerting.of_revisions
    if asking is not None:
        judged = _judged(asking, rows, without_value, where)
        failed += [(int(places[at]), reason) for at, reason in judged.failed]
        rows, places = judged.events, np.delete(places, [at for at, _ in judged.failed])
        alerts = _told(asking, piece, judged)
    repeated = _Standing(order, piece.events, rows, places)
    repeats = Repeats(
        rows=rows,
        identity=revisions.identity,
        version=revisions.version,
        columns=revisions.columns,
        own=repeated.own,
        reject=repeated.reject,
        alerts=alerts,
    )
    counts = replace(piece.counts, revised=piece.counts.revised + len(failed))
    rejects = [*piece.rejects, *(repeated.failed(at, reason) for at, reason in failed)]
    return replace(piece, repeats=repeats, rejects=rejects, counts=counts)


def _gathered(repeats: ChunkRows | None, provider: str) -> pa.RecordBatch:
    """The repeats in input order, with ID and provider added."""
    if repeats is None:
        return pa.RecordBatch.from_pydict({})
    rows = repeats.events.open().take(pa.array(repeats.rows))
    added = {EVENT_ID: ids_to_arrow(np.ascontiguousarray(repeats.ids)), PROVIDER: pa.repeat(provider, len(repeats))}
    return pa.RecordBatch.from_arrays([*rows.columns, *added.values()], names=[*rows.schema.names, *added])


def _judged(asking: Alerting, rows: pa.RecordBatch, without_value: Sequence[str], where: str) -> Judged:
    """What the repeats raise under the rules that ask for revisions."""
    return judge(asking, rows, without_value, where) if rows.num_rows else Judged(rows, None, (), np.arange(0))


def _told(asking: Alerting, piece: Slice, judged: Judged) -> pa.RecordBatch:
    """What the slice's events (they were judged already) and the `judged` repeats raise, with their positions."""
    found = []
    if piece.alerts is not None:
        names = pa.array([rule.name for rule in asking.rules])
        own = piece.alerts.filter(pc.is_in(piece.alerts.column("rule"), value_set=names))
        at = pc.index_in(own.column(EVENT_ID), value_set=piece.events.column(EVENT_ID))
        found.append(own.append_column("at", at.cast(pa.int64())))
    if judged.alerts is not None:
        found.append(judged.alerts.append_column("at", pa.array(judged.rows + piece.events.num_rows)))
    every: pa.Table = pa.Table.from_batches(found, schema=REVISION_COLUMNS).combine_chunks()
    return every.to_batches()[0] if every.num_rows else pa.RecordBatch.from_pylist([], schema=REVISION_COLUMNS)


@dataclass(frozen=True)
class _Standing:
    """Where the events and the repeats of a slice stand in the input; `places` are the positions among the order's
    repeats of those that are compared.
    """

    order: CommitOrder
    events: pa.RecordBatch
    rows: pa.RecordBatch
    places: NDArray[np.int64]

    @cached_property
    def own(self) -> tuple[str, ...]:
        """The columns that the chunk brought itself."""
        chunk = self.order.new or self.order.repeats
        return () if chunk is None else tuple(chunk.events.open().schema.names)

    def reject(self, difference: DifferingRow) -> Reject:
        """The row of `difference`, as it is kept aside."""
        parts = [f"{name} was {_shown(held)}, is {_shown(came)}" for name, (held, came) in difference.columns.items()]
        said = _SAID[difference.kind]
        reason = said if difference.kind == "absent" else f"{said}: {'; '.join(parts)}"
        column = next(iter(difference.columns)) if len(difference.columns) == 1 else None
        differs = json.dumps(difference.columns, ensure_ascii=False)
        if difference.at < self.events.num_rows:
            return _kept(self.order.new, int(self._events_in_new[difference.at]), column, reason, differs)
        place = int(self.places[difference.at - self.events.num_rows])
        return _kept(self.order.repeats, place, column, reason, differs)

    def failed(self, place: int, reason: str) -> Reject:
        """The repeat at `place` among the order's, for which the user's function failed."""
        return _kept(self.order.repeats, place, None, reason, None)

    @cached_property
    def _events_in_new(self) -> NDArray[np.int64]:
        """The position of each event among the order's new rows."""
        if self.order.new is None:
            return np.zeros(0, dtype=np.int64)
        every = ids_to_arrow(np.ascontiguousarray(self.order.new.ids))
        found: NDArray[np.int64] = pc.index_in(self.events.column(EVENT_ID), value_set=every).to_numpy()
        return found


def _kept(chosen: ChunkRows | None, place: int, column: str | None, reason: str, differs: str | None) -> Reject:
    if chosen is None:
        raise ValueError("the order has no such rows")
    row = chosen.events.open().slice(int(chosen.rows[place]), 1)
    record = json.dumps({name: kept(row.column(name)[0]) for name in row.schema.names}, ensure_ascii=False)
    numbers = chosen.numbers
    number = None if numbers is None else int(numbers[place])
    return Reject(chosen.address.source, number, None, column, reason, record, record, "revision", differs)


def _shown(text: str | None) -> str:
    if text is None:
        return "null"
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
