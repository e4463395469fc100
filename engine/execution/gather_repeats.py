"""The rows of a slice that repeat known events, gathered for the comparison with the table if revisions are not
ignored.

    pieces of repeats ──► rows in input order ──► enriched and judged by the rules that ask ──► Slice.repeats
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
    rows, places = _gathered(order.repeats, piece.provider), np.arange(sum(len(one.rows) for one in order.repeats))
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
        groups=repeated.groups,
        reject=repeated.reject,
        alerts=alerts,
    )
    counts = replace(piece.counts, revised=piece.counts.revised + len(failed))
    rejects = [*piece.rejects, *(repeated.failed(at, reason) for at, reason in failed)]
    return replace(piece, repeats=repeats, rejects=rejects, counts=counts)


def _gathered(pieces: Sequence[ChunkRows], provider: str) -> pa.RecordBatch:
    """The rows of `pieces` in input order, with ID and provider added."""
    if not pieces:
        return pa.RecordBatch.from_pydict({})
    tables = [pa.Table.from_batches([piece.events.open().take(pa.array(piece.rows))]) for piece in pieces]
    whole = pa.concat_tables(tables, promote_options="default")
    ids = ids_to_arrow(np.concatenate([piece.ids for piece in pieces]))
    whole = whole.append_column(EVENT_ID, ids).append_column(PROVIDER, pa.repeat(provider, len(ids)))
    batch: pa.RecordBatch = whole.combine_chunks().to_batches()[0]
    return batch


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
    """Where the events and the repeats of a slice stand in the input; `places` are the repeats' positions in their
    pieces, one after the other.
    """

    order: CommitOrder
    events: pa.RecordBatch
    rows: pa.RecordBatch
    places: NDArray[np.int64]

    @cached_property
    def own(self) -> list[tuple[str, ...]]:
        """The distinct sets of columns that the pieces brought themselves."""
        return list(dict.fromkeys(map(_columns, (*self.order.pieces, *self.order.repeats)))) or [()]

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Which of `own` each event and each repeat has."""
        count = self.events.num_rows + len(self.places)
        if len(self.own) == 1:
            return np.zeros(count, dtype=np.int64)
        of_events, of_repeats = map(self._groups_of, (self.order.pieces, self.order.repeats))
        return np.concatenate([of_events[self._events_in_pieces], of_repeats[self.places]])

    def reject(self, difference: DifferingRow) -> Reject:
        """The row of `difference`, as it is kept aside."""
        parts = [f"{name} was {_shown(held)}, is {_shown(came)}" for name, (held, came) in difference.columns.items()]
        said = _SAID[difference.kind]
        reason = said if difference.kind == "absent" else f"{said}: {'; '.join(parts)}"
        column = next(iter(difference.columns)) if len(difference.columns) == 1 else None
        differs = json.dumps(difference.columns, ensure_ascii=False)
        if difference.at < self.events.num_rows:
            place = int(self._events_in_pieces[difference.at])
            return _kept(self.order.pieces, place, column, reason, differs)
        place = int(self.places[difference.at - self.events.num_rows])
        return _kept(self.order.repeats, place, column, reason, differs)

    def failed(self, place: int, reason: str) -> Reject:
        """The repeat at `place` in its pieces, for which the user's function failed."""
        return _kept(self.order.repeats, place, None, reason, None)

    @cached_property
    def _events_in_pieces(self) -> NDArray[np.int64]:
        """The position of each event in its pieces, one after the other."""
        if not self.events.num_rows:
            return np.zeros(0, dtype=np.int64)
        every = ids_to_arrow(np.concatenate([piece.ids for piece in self.order.pieces]))
        found: NDArray[np.int64] = pc.index_in(self.events.column(EVENT_ID), value_set=every).to_numpy()
        return found

    def _groups_of(self, pieces: Sequence[ChunkRows]) -> NDArray[np.int64]:
        numbers = [self.own.index(_columns(piece)) for piece in pieces]
        return np.repeat(np.array(numbers, dtype=np.int64), [len(piece.rows) for piece in pieces])


def _columns(piece: ChunkRows) -> tuple[str, ...]:
    return tuple(piece.events.open().schema.names)


def _kept(pieces: Sequence[ChunkRows], place: int, column: str | None, reason: str, differs: str | None) -> Reject:
    for piece in pieces:
        if place < len(piece.rows):
            break
        place -= len(piece.rows)
    at = int(piece.rows[place])
    row = piece.events.open().slice(at, 1)
    record = json.dumps({name: kept(row.column(name)[0]) for name in row.schema.names}, ensure_ascii=False)
    number = None if piece.numbers is None else int(piece.numbers[at])
    return Reject(piece.address.source, number, None, column, reason, record, record, "revision", differs)


def _shown(text: str | None) -> str:
    if text is None:
        return "null"
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
