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
from headrace.execution.gather_events import gathered
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
    if order.new is None or (order.enrichment is None and order.alerting is None):
        return order, piece, b""
    tried = _try(order, piece.events, store, watch)
    if not tried.reasons:
        return order, replace(piece, events=tried.events, alerts=tried.alerts), b""
    return _Chances(order, store, watch).given(order.new, piece, tried)


def _try(order: CommitOrder, given: pa.RecordBatch, store: Store, watch: Stopwatch) -> _Tried:
    """Enrich and judge the rows `given`, sorted by ID. An ID may stand there several times."""
    where = f"partition {order.slice.partition}, {order.slice.address}"
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

    def given(self, new: ChunkRows, piece: Slice, tried: _Tried) -> tuple[CommitOrder, Slice, bytes]:
        """What `with_users_code` returns; `tried` is the first round, over the rows `new`."""
        spares = self.order.spares
        won, _ = self._take(new, tried)
        failed = _without(new.ids, new.ids[won])
        taken, used = [new.rows[won]], [np.zeros(0, dtype=np.int32)]
        left, most = np.ones(0 if spares is None else len(spares), dtype=np.bool_), 1
        while spares is not None and (chosen := spares.only(_next(spares.ids, left, failed, most))) is not None:
            again = _try(self.order, gathered(chosen, piece.provider), self.store, self.watch)
            won, lost = self._take(chosen, again)
            taken.append(chosen.rows[won])
            used += [chosen.rows[won], chosen.rows[lost]]
            failed, left, most = _without(failed, chosen.ids[won]), left & ~np.isin(spares.rows, chosen.rows), 2 * most
        events = np.sort(np.concatenate(taken))
        order, no_repeat = self.order, np.concatenate(used)
        repeats = None if order.repeats is None else order.repeats.only(~np.isin(order.repeats.rows, no_repeat))
        order = replace(order, new=replace(new, rows=events) if len(events) else None, repeats=repeats)
        counts = replace(
            piece.counts,
            rejected=piece.counts.rejected + len(self.rejects),
            duplicate_in_input=piece.counts.duplicate_in_input - len(no_repeat),
        )
        piece = replace(
            piece,
            events=_sorted_together(self.events),
            alerts=_together(self.alerts),
            rejects=[*piece.rejects, *self.rejects],
            counts=counts,
        )
        return order, piece, failed.tobytes()

    def _take(self, chosen: ChunkRows, tried: _Tried) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take what was made of the rows `chosen`; returns the positions in it of those that are events now, and of
        those that are rejects.
        """
        by_id = id_order(chosen.ids)  # as they were gathered
        won, lost = _first_to_pass(chosen.ids[by_id], tried.passed)
        among_events = won[tried.passed]
        self.events.append(tried.events.filter(pa.array(among_events)))
        if tried.alerts is not None:
            self.alerts.append(tried.alerts.filter(pa.array(among_events[tried.raising])))
        failed = [(int(at), tried.reasons[int(at)]) for at in np.flatnonzero(lost)]
        numbers = chosen.numbers
        rows = [None if numbers is None else int(numbers[at]) for at in by_id[lost]]
        self.rejects += rejects_of(tried.given, failed, [(chosen.address.source, row) for row in rows])
        return by_id[won], by_id[lost]


def _first_to_pass(ids: Ids, passed: Mask) -> tuple[Mask, Mask]:
    """Of rows sorted by ID: each event's first that passed, and those that failed before it."""
    words = ids.view("V16").reshape(-1)
    begins = np.ones(len(ids), dtype=np.bool_)
    begins[1:] = words[1:] != words[:-1]
    so_far = np.cumsum(passed)
    before: NDArray[np.int64] = (so_far - passed)[begins][np.cumsum(begins) - 1]
    return passed & (so_far - before == 1), ~passed & (so_far - before == 0)


def _next(ids: Ids, left: Mask, failed: Ids, most: int) -> Mask:
    """Which rows are the next, at most so many of each, of the events that have `failed` so far."""
    chosen = np.zeros(len(ids), dtype=np.bool_)
    found = np.flatnonzero(left & among(ids, failed)) if len(failed) else np.zeros(0, dtype=np.int64)
    if len(found):
        group, _ = groups(ids[found])
        together = np.argsort(group, kind="stable")
        sizes = np.bincount(group)
        rank = np.empty(len(found), dtype=np.int64)
        rank[together] = np.arange(len(found)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        chosen[found[rank < most]] = True
    return chosen


def _without(ids: Ids, others: Ids) -> Ids:
    return ids[~among(ids, others)] if len(ids) else ids


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
