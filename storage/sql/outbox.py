"""The outbox as SQL, the same text on PostgreSQL and SQLite.

PostgreSQL hands alerts out with ``FOR UPDATE SKIP LOCKED``: dispatchers share them, and none waits for another. SQLite
has no such clause (SQLAlchemy leaves it out), and needs none: ``BEGIN IMMEDIATE`` lets one writer in at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from numpy.typing import NDArray

from headrace.errors import StoreError
from headrace.storage.beliefs import LONGEST_WAIT, furthest
from headrace.storage.outbox import ALERT_COLUMNS, AlertState, Attempt, PrunedState, StoredAlert
from headrace.storage.records import EVENT_ID, Slice, array_of_ids
from headrace.storage.sql.database import Database, in_blocks
from headrace.storage.sql.ledger_rows import moment, storable
from headrace.storage.sql.schema import ALERTS
from headrace.storage.sql.slice_transaction import SliceTransaction

__all__ = ["Outbox", "raise_alerts"]

A = ALERTS.c
PRUNED_AT_ONCE = 5_000
_SENT = ("alert_id", "rule", "provider", "receipt_id", "payload", "revision")
_SETTLED = ("state", "attempts", "lease", "error")


class Outbox:
    """The part of a store that keeps alerts. Times are by the database server's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect

    # Delivering ---------------------------------------------------------------------------------------------------

    def claim(
        self, lease: str, *, limit: int, seconds: float, table: str | None = None, rules: Sequence[str] = ()
    ) -> list[StoredAlert]:
        """Lease up to `limit` pending alerts that are due, those due first, to the holder `lease` for `seconds`.

        What is put off or leased for longer than anything reasonable (`headrace.storage.beliefs`) was written under a
        wrong clock, and is due. No two holders get the same alert before its lease has ended, and none waits for
        another. Each claim counts as an attempt: an alert that kills whoever sends it is not given out for ever.
        """
        pending = _chosen(sa.select(A.alert_id), ("pending",), table, rules).order_by(A.next_attempt_at, A.alert_id)

        def claim(connection: sa.Connection, when: sa.ColumnElement[bool], most: int) -> list[sa.RowMapping]:
            due = pending.where(when).limit(most).with_for_update(skip_locked=True).cte("due")
            claimed = sa.update(ALERTS).where(A.alert_id.in_(sa.select(due.c.alert_id)))
            claimed = claimed.values(lease=lease, next_attempt_at=self._dialect.later(seconds), attempts=A.attempts + 1)
            return list(connection.execute(claimed.returning(*ALERTS.columns)).mappings())

        def work(connection: sa.Connection) -> list[sa.RowMapping]:
            found = claim(connection, A.next_attempt_at <= self._dialect.now(), limit)
            if len(found) == limit:
                return found
            # two ranges of the index, each asked for itself: one condition over both would read all in between
            far = self._dialect.later(furthest(seconds, LONGEST_WAIT))
            return found + claim(connection, A.next_attempt_at > far, limit - len(found))

        return sorted(map(_alert_of, self._database.write(work)), key=lambda one: one.alert_id)

    def settle(self, lease: str, attempts: Sequence[Attempt]) -> None:
        """Record the outcomes of alerts claimed as `lease`.

        What was delivered is so even if the lease has ended and another has claimed the alert since; a failure counts
        only for who still holds it. An alert that was settled otherwise meanwhile is left alone, and so is one that
        `lease` cannot have held: never given out, only to another, or of another `Attempt.key`. An empty `lease` is
        for who settles by hand what nobody has claimed.
        """
        delivered = [one for one in attempts if one.state == "delivered"]
        failed = [one for one in attempts if one.state != "delivered"]
        pending = sa.update(ALERTS).where(A.state == "pending")
        # claimed more than once: the other claim may have been ours
        ours = (A.lease == lease) | (A.attempts > 1) if lease else sa.true()

        def work(connection: sa.Connection) -> None:
            done = pending.where(ours).values(state="delivered", lease=None, error=None, settled_at=self._dialect.now())
            for alike in _by_key(delivered):
                connection.execute(done.where(alike))
            for one in failed:
                (alike,) = _by_key([one])
                error = None if one.error is None else storable(one.error)
                settled = self._dialect.now() if one.state == "dead" else None
                values = {"state": one.state, "error": error, "settled_at": settled}
                mine = pending.where(alike, A.lease == lease)
                connection.execute(mine.values(lease=None, next_attempt_at=self._dialect.later(one.delay), **values))

        self._database.write(work)

    def release(self, lease: str, ids: Sequence[int]) -> None:
        """Give back alerts claimed as `lease` and not sent; the claim does not count as an attempt."""
        mine = sa.update(ALERTS).where(A.lease == lease, A.state == "pending")
        self._change(mine, ids, lease=None, next_attempt_at=self._dialect.now(), attempts=A.attempts - 1)

    # Looking after ------------------------------------------------------------------------------------------------

    def find(
        self,
        *,
        ids: Sequence[int] | None = None,
        states: Sequence[AlertState] = (),
        table: str | None = None,
        rules: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[StoredAlert]:
        """Alerts, oldest first; no states or rules means all of them."""
        chosen = _chosen(sa.select(ALERTS), states, table, rules).order_by(A.alert_id).limit(limit)
        statements = (
            [chosen] if ids is None else [chosen.where(A.alert_id.in_(some)) for some in in_blocks(sorted(ids))]
        )
        with self._database.reading() as connection:
            found = [_alert_of(row) for one in statements for row in connection.execute(one).mappings()]
        return found[:limit]

    def of_event(self, event_id: bytes) -> list[StoredAlert]:
        """The alerts that an event (16 bytes) has raised, oldest first, in any state."""
        raised = sa.select(ALERTS).where(A.event_id == self._dialect.event_id(event_id)).order_by(A.alert_id)
        with self._database.reading() as connection:
            return [_alert_of(row) for row in connection.execute(raised).mappings()]

    def count(self) -> dict[AlertState, int]:
        """The number of alerts in each state that occurs."""
        counted = sa.select(A.state, sa.func.count()).group_by(A.state)
        with self._database.reading() as connection:
            return {state: number for state, number in connection.execute(counted)}  # noqa: C416 - rows are not pairs

    def undelivered(self) -> dict[AlertState, int]:
        """The numbers of pending and of dead alerts: quick, whatever the number of delivered alerts."""
        states: tuple[AlertState, ...] = ("pending", "dead")
        counts = [_chosen(sa.select(sa.func.count()), (state,), None, ()).scalar_subquery() for state in states]
        with self._database.reading() as connection:
            return dict(zip(states, connection.execute(sa.select(*counts)).one(), strict=True))

    def retry(self, ids: Sequence[int]) -> int:
        """Make dead or discarded alerts pending and due, with no attempts; returns how many changed."""
        settled = sa.update(ALERTS).where(A.state.in_(("dead", "discarded")))
        again = {"state": "pending", "attempts": 0, "lease": None, "error": None, "settled_at": None}
        return self._change(settled, ids, next_attempt_at=self._dialect.now(), **again)

    def discard(self, ids: Sequence[int]) -> int:
        """Mark pending or dead alerts as discarded; returns how many changed."""
        unsettled = sa.update(ALERTS).where(A.state.in_(("pending", "dead")))
        return self._change(unsettled, ids, state="discarded", lease=None, settled_at=self._dialect.now())

    def prune(
        self,
        seconds: float,
        *,
        states: Sequence[PrunedState] = ("delivered",),
        table: str | None = None,
        rules: Sequence[str] = (),
    ) -> int:
        """Delete alerts that were settled more than `seconds` ago; return how many. Pending and dead alerts stay.

        Many transactions, each of bounded size.
        """
        old = _chosen(sa.select(A.alert_id), states, table, rules).where(A.settled_at < self._dialect.later(-seconds))
        some = old.order_by(A.settled_at).limit(PRUNED_AT_ONCE)
        delete = sa.delete(ALERTS).where(A.state.in_(states))  # said again: one may be pending by now

        def work(connection: sa.Connection) -> int:
            return connection.execute(delete.where(A.alert_id.in_(list(connection.scalars(some))))).rowcount

        pruned = 0
        while gone := self._database.write(work):
            pruned += gone
        return pruned

    def _change(self, some: sa.Update, ids: Sequence[int], **values: Any) -> int:
        change = some.values(**values)
        blocks = in_blocks(sorted(ids))
        return self._database.write(
            lambda connection: sum(connection.execute(change.where(A.alert_id.in_(block))).rowcount for block in blocks)
        )


def raise_alerts(
    transaction: SliceTransaction, inserted: bytes | None, newer: NDArray[np.int64], receipt_id: int
) -> int:
    """Write the alerts of the slice's events that went in (`inserted` are their packed IDs, ``None`` for all), and of
    the rows at the positions `newer`, which have taken the table's row; returns how many were not there yet.
    """
    piece, raised = transaction.piece, 0
    if (alerts := _of_inserted(piece, inserted)) is not None and alerts.num_rows:
        raised += _inserted(transaction, _stamped(piece, alerts, receipt_id, revision=False))
    if piece.repeats is not None and piece.repeats.alerts is not None and len(newer):
        every = piece.repeats.alerts
        of_newer = every.filter(pc.is_in(every.column("at"), value_set=pa.array(newer))).select(ALERT_COLUMNS.names)
        if of_newer.num_rows:
            raised += _inserted(transaction, _stamped(piece, of_newer, receipt_id, revision=True))
    return raised


def _inserted(transaction: SliceTransaction, alerts: pa.RecordBatch) -> int:
    """Insert the alerts that are not there yet. Raises `StoreError` unless all of them are there then."""
    inserted = transaction.insert_alerts(alerts)
    if inserted == alerts.num_rows:
        return inserted
    counted = sa.select(sa.func.count()).select_from(ALERTS)
    blocks = in_blocks(alerts.column("alert_key").to_pylist())
    kept = sum(transaction.connection.scalar(counted.where(A.alert_key.in_(block))) or 0 for block in blocks)
    if kept < alerts.num_rows:
        raise StoreError(
            f"of {alerts.num_rows:,} alerts sent to {ALERTS.name} it took {kept:,}: something acts on its rows",
            where=transaction.where,
            hint="nothing of this slice was kept: remove the trigger from that table, and run the same command again",
        )
    return inserted


def _stamped(piece: Slice, alerts: pa.RecordBatch, receipt_id: int, *, revision: bool) -> pa.RecordBatch:
    """`alerts` with the columns that are the same in all of them."""
    same = {"table_name": piece.table, "provider": piece.provider, "receipt_id": receipt_id, "revision": revision}
    columns = dict(zip(alerts.schema.names, alerts.columns, strict=True))
    return pa.RecordBatch.from_pydict(columns | {name: pa.repeat(of, alerts.num_rows) for name, of in same.items()})


def _by_key(attempts: Sequence[Attempt]) -> Iterator[sa.ColumnElement[bool]]:
    """Conditions that hold for the alerts of these attempts: of the number and, where it is known, of the key."""
    for block in in_blocks([one.alert_id for one in attempts if one.key is None]):
        yield A.alert_id.in_(block)
    keyed = {one.alert_id: one.key for one in attempts if one.key is not None}
    for block in in_blocks(sorted(keyed)):
        yield A.alert_id.in_(block) & A.alert_key.in_([keyed[one] for one in block])


def _of_inserted(piece: Slice, inserted: bytes | None) -> pa.RecordBatch | None:
    """The alerts of the slice's events that went in."""
    alerts = piece.alerts
    if alerts is None or not piece.events.num_rows or inserted is None:
        return alerts if piece.events.num_rows else None
    return alerts.filter(pc.is_in(alerts.column(EVENT_ID), value_set=array_of_ids(inserted)))


def _chosen(select: sa.Select[Any], states: Sequence[str], table: str | None, rules: Sequence[str]) -> sa.Select[Any]:
    if len(states) == 1:
        # written out, not handed over: only then does SQLite see that an index of this state's alerts will do
        select = select.where(A.state == sa.literal(states[0], literal_execute=True))
    elif states:
        select = select.where(A.state.in_(states))
    if table is not None:
        select = select.where(A.table_name == table)
    return select.where(A.rule.in_(rules)) if rules else select


def _alert_of(row: sa.RowMapping) -> StoredAlert:
    event_id = row["event_id"]
    return StoredAlert(
        key=row["alert_key"],
        event_id=event_id.bytes if isinstance(event_id, UUID) else bytes(event_id),
        table=row["table_name"],
        created_at=moment(row["created_at"]),
        next_attempt_at=moment(row["next_attempt_at"]),
        settled_at=None if row["settled_at"] is None else moment(row["settled_at"]),
        **{name: row[name] for name in (*_SENT, *_SETTLED)},
    )
