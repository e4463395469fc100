"""The transaction of a slice in PostgreSQL: events and rejects by COPY, SQLAlchemy for all the rest.

    fast path   SAVEPOINT ─► COPY events FROM STDIN (FORMAT binary) ─► all in
                                  │ unique_violation: another writer was first
                                  ▼ ROLLBACK TO SAVEPOINT, for these events alone
    safe path   COPY into a temporary table ─► INSERT … SELECT … ORDER BY event_id
                                               ON CONFLICT (event_id) DO NOTHING RETURNING event_id

A slice that asks under its locks (``query``) first COPYs its IDs into the temporary table, drops the events that the
target holds, and takes the fast path with the others.

The order of the inserts keeps two writers from waiting for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from psycopg import sql

from headrace.errors import StoreError
from headrace.storage.locks import lock_timed_out
from headrace.storage.postgres.catalogue import PostgresCatalogue, adding, inserted_into, lock_of, look_at
from headrace.storage.postgres.copy_in import copy_in, copy_rows_in, names_of
from headrace.storage.postgres.one_message import (
    BEGIN,
    COMMIT,
    Cursor,
    Rows,
    Statement,
    alone,
    driver_of,
    plain,
    together,
)
from headrace.storage.postgres.written_slice import FRESH, astray, carrying, meddled, sent_ids
from headrace.storage.records import EVENT_ID, RECEIPT, Slice, array_of_ids
from headrace.storage.spans import Stopwatch
from headrace.storage.sql.database import Database
from headrace.storage.sql.facts import fitted, gone, require_columns, require_fit
from headrace.storage.sql.revise import Aside
from headrace.storage.sql.schema import ALERTS, REJECTS
from headrace.storage.sql.slice_transaction import NO_FACTS, Claimed, SliceTransaction, Written

__all__ = ["PostgresTransaction"]

LONGEST_TIMEOUT = 2**31 - 1  # milliseconds, as lock_timeout takes them
ASIDE = sql.Identifier("pg_temp", "headrace_slice")
SAVEPOINT = Statement(sql.SQL("SAVEPOINT headrace_events"))
TO_SAVEPOINT = Statement(sql.SQL("ROLLBACK TO SAVEPOINT headrace_events"))


class PostgresTransaction(SliceTransaction):
    """The transaction of a slice in PostgreSQL, which BEGINs with the claim."""

    def __init__(
        self,
        connection: sa.Connection,
        piece: Slice,
        watch: Stopwatch,
        database: Database,
        catalogue: PostgresCatalogue,
    ) -> None:
        super().__init__(connection, piece, watch, database)
        self._database = database
        self._catalogue = catalogue
        self._driver = driver_of(connection)
        self._before = 0  # rows that had gone into a table with triggers when its events were about to be written

    def _together(self, *statements: Statement) -> list[Rows]:
        return together(self._driver, statements, self._database.say)

    def _ask(self, statement: Statement) -> Cursor:
        return alone(self._driver, statement, self._database.say)

    # Claiming -----------------------------------------------------------------------------------------------------

    def claim(self, receipt: Any) -> Claimed:
        """BEGIN, the table's lock, the receipt, a first try for the slice's locks, what the table is like now and the
        fast path's savepoint, in one round trip. The table's lock is the first: who waits for another holds it already,
        and nobody who wants the table for himself can come between.
        """
        table, keys = self.piece.table, sorted(set(self.piece.locks))
        claim, locks = plain(receipt, self.connection.dialect), [_first_refused(keys)] if keys else []
        savepoint = [SAVEPOINT] if self.piece.existing != "conflict" else []  # the unique key may refuse an event
        with self.watch.stage("commit.receipt"):
            try:
                _, _, claimed, *answers = self._together(
                    BEGIN, lock_of(table), claim, *locks, *look_at(table), *savepoint
                )
            except (psycopg.errors.UndefinedTable, psycopg.errors.WrongObjectType):
                self._require_table()
                raise
        if not claimed:
            return Claimed(None)
        self.facts = self._catalogue.learned(self._driver, table, answers[len(locks) : len(locks) + 3])
        require_fit(table, self.facts, partial(adding, table))
        if not keys:
            return Claimed(claimed[0][0])
        with self.watch.stage("commit.locks"):
            return Claimed(claimed[0][0], self._waited(keys, answers[0]))

    def _require_table(self) -> None:
        """Raise `StoreError` where the table is gone, `SchemaError` where something else has its name."""
        with self._database.reading() as connection:
            if self._catalogue.reflect(connection, self.piece.table) is None:
                raise gone(self.piece.table)

    def _waited(self, keys: Sequence[int], tried: Rows) -> float:
        """Wait for each lock that was refused, the rest taken in order; returns the seconds it took."""
        waited, refused = 0.0, tried
        while refused:
            ((key,),) = refused
            waited += self._wait_for(key, waited)
            keys = keys[keys.index(key) + 1 :]
            refused = self._ask(_first_refused(keys)).fetchall() if keys else []
        if tried:
            # what waits from here on waits as long as the session's own setting says; the savepoint moves behind the
            # locks, for what is locked behind a savepoint is let go with it
            self._together(Statement(sql.SQL("SET LOCAL lock_timeout TO DEFAULT")), SAVEPOINT)
        return waited

    def _wait_for(self, key: int, waited: float) -> float:
        """Wait for one lock, for what is left of the slice's time; returns the seconds it took."""
        left = min(max(1, round((self.piece.lock_timeout - waited) * 1000)), LONGEST_TIMEOUT)  # 0 would mean for ever
        started = monotonic()
        try:
            limit = sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(left))
            wait = sql.SQL("SELECT pg_advisory_xact_lock({})").format(sql.Literal(str(key)))
            self._together(Statement(limit), Statement(wait))
        except psycopg.errors.LockNotAvailable as error:
            where = f"{self.where}, partition {self.piece.partition}"
            raise lock_timed_out(f"advisory lock {key}", waited + monotonic() - started, where) from error
        return monotonic() - started

    # Events -------------------------------------------------------------------------------------------------------

    def write_events(self, receipt_id: int) -> Written:
        """By the fast path, and by the safe path where the unique key refuses any, or is to decide."""
        with self.watch.stage("commit.encode", rows=self.piece.events.num_rows):
            events = self._on_the_wire(receipt_id)
        if self.facts.watchers:
            self._before = self._inserted()
        if self.piece.existing == "conflict":
            return Written("safe", self._copied_safely(events))
        if self.piece.existing == "query":
            events = self._absent(events)
        try:
            if events.num_rows:
                self._copy(sql.Identifier(self.piece.table), events, "commit.copy")
        except psycopg.errors.UniqueViolation:
            self._ask(TO_SAVEPOINT)
            written = Written("safe", self._copied_safely(events))
        else:
            written = Written("fast", None)  # COMMIT releases the savepoint
        if written.inserted is None and events.num_rows < self.piece.events.num_rows:
            return Written(written.path, _packed_ids(events))
        return written

    def _on_the_wire(self, receipt_id: int) -> pa.RecordBatch:
        """The events with their receipt, each column as wide as the table's: binary COPY takes no other width."""
        given = self.piece.events
        receipts = pa.repeat(pa.scalar(receipt_id, pa.int64()), given.num_rows)
        events = pa.RecordBatch.from_arrays([*given.columns, receipts], names=[*given.schema.names, RECEIPT])
        wide = fitted(self.piece.table, self.facts, events)
        require_columns(self.piece.table, self.facts, wide)
        return pa.RecordBatch.from_pydict(wide)

    def _absent(self, events: pa.RecordBatch) -> pa.RecordBatch:
        """The events that the table does not hold."""
        ids = events.select([EVENT_ID])
        self._put_aside(self.piece.table, ids)
        held = sql.SQL("SELECT coalesce(string_agg(uuid_send(event_id), ''), '') FROM {} JOIN {} USING (event_id)")
        with self.watch.stage("commit.query", rows=events.num_rows):
            (packed,) = self._ask(Statement(held.format(ASIDE, sql.Identifier(self.piece.table)))).fetchone() or (b"",)
        return events.filter(pc.invert(pc.is_in(ids.column(0), value_set=array_of_ids(packed)))) if packed else events

    def _copied_safely(self, events: pa.RecordBatch) -> bytes | None:
        """The safe path. Returns the packed IDs that went in, ``None`` for all."""
        if self.facts.watchers:
            self._before = self._inserted()  # what was rolled back to the savepoint counts
        self._put_aside(self.piece.table, events)
        columns = names_of(events.schema.names)
        insert = sql.SQL(
            "WITH inserted AS (INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY event_id "
            "ON CONFLICT (event_id) DO NOTHING RETURNING event_id) "
            "SELECT coalesce(string_agg(uuid_send(event_id), ''), '') FROM inserted"
        )
        with self.watch.stage("commit.conflict", rows=events.num_rows):
            into = insert.format(sql.Identifier(self.piece.table), columns, columns, ASIDE)
            (inserted,) = self._ask(Statement(into)).fetchone() or (b"",)
        return None if len(inserted) == 16 * events.num_rows else bytes(inserted)

    def _inserted(self) -> int:
        """How many rows this transaction has put into the table, whoever of it did."""
        return int(self._together(inserted_into(self.piece.table))[0][0][0])

    def _put_aside(self, table: str, rows: pa.RecordBatch) -> None:
        """COPY the rows (or some columns of them) into a temporary table of the column types of `table`."""
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(ASIDE)
        create = sql.SQL(
            "CREATE TEMPORARY TABLE headrace_slice ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA"
        ).format(names_of(rows.schema.names), sql.Identifier(table))
        self._together(Statement(drop), Statement(create))
        self._copy(ASIDE, rows, "commit.aside")

    def _copy(self, table: sql.Identifier, rows: pa.RecordBatch, stage: str) -> None:
        with self.watch.stage(stage, rows=rows.num_rows, size=rows.nbytes):
            taken = copy_in(self._driver, table, rows, self._database.say)
        if taken != rows.num_rows:
            raise self._not_all(taken, rows.num_rows, table)

    def _not_all(self, taken: int, sent: int, table: sql.Identifier) -> StoreError:
        """The server took fewer rows of a COPY, as it says itself."""
        facts = self.facts if table == sql.Identifier(self.piece.table) else NO_FACTS
        where = f"{self._database.url}, table {table.as_string(None)}"
        return meddled(f"of {sent:,} rows sent to the table it took {taken:,}", where, facts)

    # What goes with them ------------------------------------------------------------------------------------------

    def put_repeats_aside(self, aside: Aside) -> sa.TableClause:
        """A temporary table with the rows of `aside`."""
        data = [name for name in aside.rows.schema.names if name != aside.at]
        held = fitted(self.piece.table, self.facts, aside.rows.select(data))
        rows = pa.RecordBatch.from_pydict(held | {aside.at: aside.rows.column(aside.at)})
        create = sql.SQL(
            "CREATE TEMPORARY TABLE headrace_repeats ON COMMIT DROP AS SELECT {}, 0::bigint AS {} FROM {} WITH NO DATA"
        ).format(names_of(data), sql.Identifier(aside.at), sql.Identifier(self.piece.table))
        self._ask(Statement(create))
        self._copy(sql.Identifier("pg_temp", "headrace_repeats"), rows, "commit.aside")
        return sa.table("headrace_repeats", *map(sa.column, [*data, aside.at]), schema="pg_temp")

    def insert_rejects(self, rows: Sequence[dict[str, Any]]) -> None:
        """By COPY: a bad column can reject a whole chunk, and INSERTs take ten times as long."""
        table = sql.Identifier(REJECTS.name)
        taken = copy_rows_in(self._driver, table, rows, self._database.say)
        if taken != len(rows):
            raise self._not_all(taken, len(rows), table)

    def insert_alerts(self, alerts: pa.RecordBatch) -> int:
        """By COPY into a temporary table, and from there those whose keys are not there yet."""
        self._put_aside(ALERTS.name, alerts)
        columns = names_of(alerts.schema.names)
        insert = sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY event_id, alert_key ON CONFLICT (alert_key) DO NOTHING"
        )
        with self.watch.stage("commit.alerts", rows=alerts.num_rows, size=alerts.nbytes):
            into = insert.format(sql.Identifier(ALERTS.name), columns, columns, ASIDE)
            return self._ask(Statement(into)).rowcount

    # The end ------------------------------------------------------------------------------------------------------

    def prove(self, written: Written, receipt_id: int) -> None:
        """Look for every event under its ID, and at how many rows went in."""
        table = self.piece.table
        sent, strange = sent_ids(self.piece.events, written.inserted)
        if strange:
            raise meddled(f"{strange:,} events went in under other IDs than were sent", self.where, self.facts)
        fresh = self.piece.events.num_rows if written.inserted is None else len(written.inserted) // 16
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(ASIDE)
        create = sql.SQL("CREATE TEMPORARY TABLE headrace_slice ({} uuid, {} boolean) ON COMMIT DROP").format(
            sql.Identifier(EVENT_ID), sql.Identifier(FRESH)
        )
        # what was put off to the end of the transaction acts before the look
        deferred = any(one.deferred for one in self.facts.watchers)
        now = [Statement(sql.SQL("SET CONSTRAINTS ALL IMMEDIATE"))] if deferred else []
        self._together(*now, Statement(drop), Statement(create))
        self._copy(ASIDE, sent, "commit.aside")
        with self.watch.stage("commit.prove", rows=sent.num_rows):
            found = self._together(astray(table, self.facts, ASIDE, receipt_id, self.piece.provider))[0]
        more = self._inserted() - self._before - fresh
        if more > 0 and written.path == "safe":
            # ON CONFLICT counts a row that another loader's has beaten at the last moment as well: look who they are
            more = self._together(carrying(table, receipt_id))[0][0][0] - fresh
        if more > 0:
            what = f"{more:,} more rows went into the table than the {fresh:,} that were sent"
            raise meddled(what, self.where, self.facts)
        if found:
            ids = ", ".join(str(one) for one, _ in found)
            what = (
                f"of {sent.num_rows:,} events sent to the table {found[0][1]:,} are not in it as they were sent ({ids})"
            )
            raise meddled(what, self.where, self.facts)

    def complete(self, books: sa.Update) -> None:
        """The receipt's books and COMMIT, in one round trip; the server skips COMMIT where the books fail."""
        with self.watch.stage("commit.commit"):
            self._together(plain(books, self.connection.dialect), COMMIT)


def _first_refused(keys: Sequence[int]) -> Statement:
    """Take the locks in order without waiting, up to the first that another session holds: that one is the answer."""
    attempt = "SELECT key FROM unnest({}::bigint[]) AS key WHERE NOT pg_try_advisory_xact_lock(key) LIMIT 1"
    return Statement(sql.SQL(attempt).format(sql.Literal(list(keys))))


def _packed_ids(events: pa.RecordBatch) -> bytes:
    return b"".join(events.column(EVENT_ID).to_pylist())
