"""A slice's events and the user's code: enrichment, then the alert rules; and the rows on which the code fails.

    new events ──► enrich ──► judge ──► the slice
                     └──────────┴─ fails on a row ──► a reject ──► its event's next row in the slice gets its chance ─┐
                                        ▲                                                                             │
                                        └─────────────────────────────────────────────────────────────────────────────┘

Which rows of an event are duplicates is decided before this code sees the first of them. If that one fails, the event
is not in the table, and the next row is no duplicate: the first row in input order that does not fail is the event,
those before it are rejects, those behind it are duplicates. The rows of a slice are tried here; an event of which all
rows were refused is named to the coordinator, which lets the later slices try theirs (`headrace.loading.known_ids`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.events.alert_judge import judge
from headrace.events.enrich import rejects_of
from headrace.execution.enrichment import enriched
from headrace.execution.gather_events import addresses, gathered
from headrace.execution.orders import ChunkRows, CommitOrder
from headrace.partitioning.dedup import among, groups, id_order
from headrace.partitioning.identity import ids_from_arrow
from headrace.storage.records import EVENT_ID, Slice
from headrace.storage.rejects import Reject
from headrace.storage.spans import Stopwatch
from headrace.storage.store import Store

__all__ = ["with_users_code"]

Mask = NDArray[np.bool_]
Ids = NDArray[np.uint8]


class _Tried(NamedTuple):
    """What the code made of the rows `given`: which `passed`, those as `events`, what they raise (`alerts`, by the
    `raising` positions in `events`), and why the others failed.
    """

    given: pa.RecordBatch
    passed: Mask
    events: pa.RecordBatch
    alerts: pa.RecordBatch | None
    raising: NDArray[np.int64]
    reasons: dict[int, str]


def with_users_code(
    order: CommitOrder, piece: Slice, store: Store, watch: Stopwatch
) -> tuple[CommitOrder, Slice, bytes]:
    """The slice enriched, with the alerts that its events raise and the rejects of the rows that failed.

    The order comes back with the rows that are the events now. The last are the packed IDs of the events of which every
    row of the slice failed.
    """
    if order.enrichment is None and order.alerting is None:
        return order, piece, b""
    tried = _try(order, order.pieces, piece.events, store, watch)
    if not tried.reasons:
        return order, replace(piece, events=tried.events, alerts=tried.alerts), b""
    return _Chances(order, store, watch).given(piece, tried)


def _try(
    order: CommitOrder, pieces: Sequence[ChunkRows], given: pa.RecordBatch, store: Store, watch: Stopwatch
) -> _Tried:
    """Enrich and judge the rows `given`, those of `pieces` sorted by ID. An ID may stand there several times."""
    where = f"partition {order.slice.partition}, {addresses(pieces)}"
    events, passed = given, np.ones(given.num_rows, dtype=np.bool_)
    reasons: dict[int, str] = {}
    without_value: Sequence[str] = ()
    if order.enrichment is not None and given.num_rows:
        with watch.stage("enrich", rows=given.num_rows):
            done = enriched(order.enrichment, given, store, order.slice.table, where)
        events, reasons, without_value = done.events, dict(done.failed), done.without_value
        passed[list(reasons)] = False
    if order.alerting is None or not events.num_rows:
        return _Tried(given, passed, events, None, np.zeros(0, dtype=np.int64), reasons)
    with watch.stage("alerts", rows=events.num_rows):
        judged = judge(order.alerting, events, without_value, where)
    failed = np.flatnonzero(passed)[[at for at, _ in judged.failed]]
    passed[failed] = False
    reasons |= zip(failed.tolist(), (reason for _, reason in judged.failed), strict=True)
    return _Tried(given, passed, judged.events, judged.alerts, judged.rows, reasons)


class _SliceRows:
    """The rows of pieces, one after the other in input order, with their IDs."""

    def __init__(self, pieces: Sequence[ChunkRows]) -> None:
        self.pieces = pieces
        self._starts = np.cumsum([0, *(len(piece.rows) for piece in pieces)])
        self.ids: Ids = np.concatenate([piece.ids for piece in pieces] or [np.empty((0, 16), np.uint8)])

    def __len__(self) -> int:
        return len(self.ids)

    def some(self, at: NDArray[np.int64]) -> tuple[ChunkRows, ...]:
        """The pieces with the rows `at` alone."""
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[at] = True
        each = [mask[start : start + len(piece.rows)] for start, piece in zip(self._starts, self.pieces, strict=False)]
        return tuple(
            replace(piece, rows=piece.rows[own]) for piece, own in zip(self.pieces, each, strict=True) if own.any()
        )

    def place(self, at: int) -> tuple[str, int | None]:
        """The source and the row number of a row."""
        which = int(np.searchsorted(self._starts, at, side="right")) - 1
        piece = self.pieces[which]
        number = None if piece.numbers is None else int(piece.numbers[piece.rows[at - self._starts[which]]])
        return piece.address.source, number


@dataclass
class _Chances:
    """Goes on from rows that failed to the next rows of their events, until each event has one that passes, or no more.

    From round to round twice as many rows of an event are tried at once, so that a thousand bad ones take ten rounds.
    """

    order: CommitOrder
    store: Store
    watch: Stopwatch
    events: list[pa.RecordBatch] = field(default_factory=list)
    alerts: list[pa.RecordBatch] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def given(self, piece: Slice, tried: _Tried) -> tuple[CommitOrder, Slice, bytes]:
        """What `with_users_code` returns; `tried` is the first round."""
        rows, spare = _SliceRows(self.order.pieces), _SliceRows(self.order.spares)
        won, _ = self._take(rows, np.arange(len(rows)), tried)
        failed = _without(rows.ids, rows.ids[won])
        pieces, most = rows.some(won), 1
        taken, used = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        left = np.ones(len(spare), dtype=np.bool_)
        while len(at := _next(spare.ids, left, failed, most)):
            chosen = spare.some(at)
            again = _try(self.order, chosen, gathered(chosen, piece.provider), self.store, self.watch)
            won, lost = self._take(spare, at, again)
            taken, used = np.concatenate([taken, won]), np.concatenate([used, won, lost])
            failed, left[at], most = _without(failed, spare.ids[won]), False, 2 * most
        counts = replace(
            piece.counts,
            rejected=piece.counts.rejected + len(self.rejects),
            duplicate_in_input=piece.counts.duplicate_in_input - len(used),
        )
        order = replace(
            self.order,
            pieces=(*pieces, *spare.some(taken)),
            repeats=_less(self.order.repeats, spare.some(used)),
        )
        rejects = [*piece.rejects, *self.rejects]
        events, alerts = _sorted_together(self.events), _together(self.alerts)
        return order, replace(piece, events=events, alerts=alerts, rejects=rejects, counts=counts), failed.tobytes()

    def _take(
        self, rows: _SliceRows, at: NDArray[np.int64], tried: _Tried
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take what was made of the rows `at`; returns which of them are events now, and which are rejects."""
        by_id = id_order(rows.ids[at])  # as they were gathered
        won, lost = _first_to_pass(rows.ids[at][by_id], tried.passed)
        among_events = won[tried.passed]
        self.events.append(tried.events.filter(pa.array(among_events)))
        if tried.alerts is not None:
            self.alerts.append(tried.alerts.filter(pa.array(among_events[tried.raising])))
        failed = [(int(one), tried.reasons[int(one)]) for one in np.flatnonzero(lost)]
        self.rejects += rejects_of(tried.given, failed, [rows.place(int(one)) for one in at[by_id][lost]])
        return at[by_id][won], at[by_id][lost]


def _first_to_pass(ids: Ids, passed: Mask) -> tuple[Mask, Mask]:
    """Of rows sorted by ID: each event's first that passed, and those that failed before it."""
    words = ids.view("V16").reshape(-1)
    begins = np.ones(len(ids), dtype=np.bool_)
    begins[1:] = words[1:] != words[:-1]
    so_far = np.cumsum(passed)
    before: NDArray[np.int64] = (so_far - passed)[begins][np.cumsum(begins) - 1]
    return passed & (so_far - before == 1), ~passed & (so_far - before == 0)


def _next(ids: Ids, left: Mask, failed: Ids, most: int) -> NDArray[np.int64]:
    """The next rows, at most so many of each, of the events that have `failed` so far."""
    if not len(failed) or not len(ids):
        return np.zeros(0, dtype=np.int64)
    found = np.flatnonzero(left & among(ids, failed))
    group, _ = groups(ids[found])
    together = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    rank = np.empty(len(found), dtype=np.int64)
    rank[together] = np.arange(len(found)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return found[rank < most]


def _without(ids: Ids, others: Ids) -> Ids:
    return ids[~among(ids, others)] if len(ids) else ids


def _less(pieces: Sequence[ChunkRows], others: Sequence[ChunkRows]) -> tuple[ChunkRows, ...]:
    """The rows of `pieces` that are not among those of `others`."""
    gone = {piece.address: piece.rows for piece in others}
    left = [
        replace(piece, rows=piece.rows[~np.isin(piece.rows, gone[piece.address])]) if piece.address in gone else piece
        for piece in pieces
    ]
    return tuple(piece for piece in left if len(piece.rows))


def _sorted_together(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The events of all rounds, sorted by ID."""
    some = [batch for batch in batches if batch.num_rows] or batches[:1]
    if len(some) == 1:
        return some[0]
    # a column without a value in a round is lacking there
    whole = pa.concat_tables([pa.Table.from_batches([batch]) for batch in some], promote_options="default")
    ids = np.concatenate([ids_from_arrow(batch.column(EVENT_ID)) for batch in some])
    return whole.take(pa.array(id_order(ids))).combine_chunks().to_batches()[0]


def _together(alerts: Sequence[pa.RecordBatch]) -> pa.RecordBatch | None:
    some = [batch for batch in alerts if batch.num_rows]
    return pa.concat_batches(some) if some else None
