"""PostgreSQL: events and rejects by COPY, IDs packed by the server, SQLAlchemy for all the rest.

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

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, cast
from uuid import UUID

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from psycopg import sql

from headrace.errors import RetryableStoreError, SchemaError, StoreError
from headrace.storage.held import HeldRows
from headrace.storage.holdings import Holdings
from headrace.storage.id_sums import HASH_OF_PROBE, IdSum
from headrace.storage.interface import EVENT_ID, RECEIPT, IdRange, Slice, StatementHook, TimeRange
from headrace.storage.locks import lock_timed_out
from headrace.storage.postgres.catalogue import Look, adding, facts_of, inserted_into, lock_of, look_at, watchers_of
from headrace.storage.postgres.connecting import conninfo_of, how_to_connect, read_dates, replace_the_dead
from headrace.storage.postgres.copy_in import copy_in, copy_rows_in, names_of
from headrace.storage.postgres.copy_out import copied_rows, copy_out
from headrace.storage.postgres.id_pages import (
    ALONG_THE_KEY,
    IDS_PER_BLOCK,
    THROUGH_THE_KEY,
    as_array,
    held_of,
    holdings_of,
    ids_in,
    packed_by_key,
    packed_by_number,
    sum_of,
)
from headrace.storage.postgres.one_message import BEGIN, COMMIT, Cursor, Rows, Statement, alone, plain, together
from headrace.storage.postgres.written_slice import FRESH, astray, carrying, meddled, sent_ids
from headrace.storage.sql.facts import Facts, fitted, gone, parted, require_columns, require_fit
from headrace.storage.sql.failures import refused
from headrace.storage.sql.revise import Aside
from headrace.storage.sql.schema import ALERTS, REJECTS
from headrace.storage.sql.store import Opened, SqlStore, Written, in_packs
from headrace.storage.sql.stored_forms import DECLARED_IN_POSTGRES, StoredForms, forms_of_postgres
from headrace.storage.sql.whole_rows import RowForm, form_of_postgres

__all__ = ["PostgresStore"]

NAME_BYTES = 63
# One lock for all changes of tables by Headrace: "headrace" in ASCII, as a 64-bit key.
DDL_LOCK = int.from_bytes(b"headrace", "big", signed=True)
LONGEST_TIMEOUT = 2**31 - 1  # milliseconds, as lock_timeout takes them
ASIDE = sql.Identifier("pg_temp", "headrace_slice")
SAVEPOINT = Statement(sql.SQL("SAVEPOINT headrace_events"))
NO_FACTS = Facts({})
TO_SAVEPOINT = Statement(sql.SQL("ROLLBACK TO SAVEPOINT headrace_events"))


class PostgresStore(SqlStore):
    """A `Store` on PostgreSQL 12 or newer. Commits are as durable as the server's ``synchronous_commit`` says."""

    def __init__(self, url: sa.URL, shown: str, on_statement: StatementHook | None) -> None:
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",
            hide_parameters=True,  # a traceback is no place for the user's rows
            connect_args=how_to_connect(url),
        )
        read_dates(engine)
        replace_the_dead(engine)
        super().__init__(engine, shown, on_statement)
        self._looks: dict[str, tuple[Look, Rows]] = {}
        self._before = 0  # rows that had gone into a table with triggers when its events were about to be written
        try:
            self._reach()
        except RetryableStoreError as error:
            why = refused(error, conninfo_of(engine))
            if isinstance(why, RetryableStoreError):
                raise why from error
            try:
                self._reach()  # it may have come up between the two
            except RetryableStoreError:
                raise why from error

    def _reach(self) -> None:
        """A database that cannot be reached is said now, not at the first chunk."""
        with self._reading():
            pass

    def describe(self) -> dict[str, str]:
        asked = "SELECT version(), now(), current_setting('synchronous_commit'), current_setting('fsync')"
        with self._reading() as connection:
            version, now, commit, fsync = connection.execute(sa.text(asked)).one()
        skew = (datetime.now(UTC) - now).total_seconds()
        return {
            "database": f"{self._url} answers: {version.split(',')[0]}",
            "clock": f"the server's differs from this machine's by {abs(skew):.1f} s (windows go by the server's)",
            "durability": f"synchronous_commit {commit}, fsync {fsync}",
        }

    # Tables -------------------------------------------------------------------------------------------------------

    def _reflect(self, connection: sa.Connection, table: str, *, keyed: bool = True) -> Facts | None:
        if len(table.encode()) > NAME_BYTES:
            raise SchemaError(
                f"the table's name has {len(table.encode())} bytes, PostgreSQL cuts it at {NAME_BYTES}",
                where=table,
                hint="choose a shorter --table",
            )
        answers = self._together(connection, *look_at(table))
        if not answers[0]:
            return None
        facts = self._learned(connection, table, answers)
        require_fit(table, facts, partial(adding, table), keyed=keyed)
        return facts

    def _learned(self, connection: sa.Connection, table: str, answers: Sequence[Rows]) -> Facts:
        """What the answers to `look_at` mean; nothing is made of those that are as they were."""
        (relation,), columns, keys = answers
        look = Look(relation, tuple(columns), tuple(keys))
        acting = self._together(connection, watchers_of(table))[0] if look.crowded else []
        if table not in self._facts or self._looks.get(table) != (look, acting):
            self._facts[table] = facts_of(table, look, acting, lambda asked: self._together(connection, asked)[0])
            self._looks[table] = (look, acting)
        return self._facts[table]

    def _require_names(self, table: str, columns: Sequence[str]) -> None:
        for name in columns:
            if len(name.encode()) > NAME_BYTES:
                raise SchemaError(
                    f"the column's name has {len(name.encode())} bytes, PostgreSQL cuts it at {NAME_BYTES}",
                    where=f"{table}, column {name}",
                    hint="rename it with --select",
                )

    def _now(self) -> Any:
        return sa.func.now()

    def _later(self, seconds: float) -> Any:
        return sa.func.now() + timedelta(seconds=seconds)

    def _exclusive(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(DDL_LOCK)))

    def _id(self, event_id: bytes) -> Any:
        return sa.cast(UUID(bytes=event_id), sa.Uuid())

    # Writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _begun(self, piece: Slice) -> Iterator[sa.Connection]:  # noqa: ARG002 - for who locks by BEGIN
        """In autocommit mode psycopg leaves BEGIN to us: it goes out with the first statements (`_opened`)."""
        with (
            self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
            connection.begin(),
        ):
            yield connection

    def _opened(self, connection: sa.Connection, piece: Slice) -> Opened:
        """BEGIN, the table's lock, the receipt, a first try for the slice's locks, what the table is like now and the
        fast path's savepoint, in one round trip. The table's lock is the first: who waits for another holds it already,
        and nobody who wants the table for himself can come between.
        """
        keys, may_be_refused = sorted(set(piece.locks)), piece.existing != "conflict"
        claim, locks = plain(self._claim(piece), self._engine.dialect), [_first_refused(keys)] if keys else []
        sent = [BEGIN, lock_of(piece.table), claim, *locks, *look_at(piece.table), *[SAVEPOINT] * may_be_refused]
        with self._watch.stage("commit.receipt"):
            try:
                _, _, claimed, *answers = self._together(connection, *sent)
            except (psycopg.errors.UndefinedTable, psycopg.errors.WrongObjectType):
                self._require_table(piece.table)
                raise
        if not claimed:
            return Opened(None)
        facts = self._learned(connection, piece.table, answers[len(locks) : len(locks) + 3])
        require_fit(piece.table, facts, partial(adding, piece.table))
        if not keys:
            return Opened(claimed[0][0])
        with self._watch.stage("commit.locks"):
            return Opened(claimed[0][0], self._waited(connection, piece, keys, answers[0]))

    def _require_table(self, table: str) -> None:
        """Raise `StoreError` where the table is gone, `SchemaError` where something else has its name."""
        with self._reading() as connection:
            if self._reflect(connection, table) is None:
                raise gone(table)

    def _complete(self, connection: sa.Connection, books: sa.Update) -> None:
        """The receipt's books and COMMIT, in one round trip; the server skips COMMIT where the books fail."""
        with self._watch.stage("commit.commit"):
            self._together(connection, plain(books, self._engine.dialect), COMMIT)

    def _waited(self, connection: sa.Connection, piece: Slice, keys: Sequence[int], tried: Rows) -> float:
        """Wait for each lock that was refused, the rest taken in order; returns the seconds it took."""
        waited, refused = 0.0, tried
        while refused:
            ((key,),) = refused
            waited += self._wait_for(connection, key, piece, waited)
            keys = keys[keys.index(key) + 1 :]
            refused = self._ask(connection, _first_refused(keys)).fetchall() if keys else []
        if tried:
            # what waits from here on waits as long as the session's own setting says; the savepoint moves behind the
            # locks, for what is locked behind a savepoint is let go with it
            self._together(connection, Statement(sql.SQL("SET LOCAL lock_timeout TO DEFAULT")), SAVEPOINT)
        return waited

    def _wait_for(self, connection: sa.Connection, key: int, piece: Slice, waited: float) -> float:
        """Wait for one lock, for what is left of the slice's time; returns the seconds it took."""
        left = min(max(1, round((piece.lock_timeout - waited) * 1000)), LONGEST_TIMEOUT)  # 0 would mean for ever
        started = monotonic()
        try:
            limit = sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(left))
            wait = sql.SQL("SELECT pg_advisory_xact_lock({})").format(sql.Literal(str(key)))
            self._together(connection, Statement(limit), Statement(wait))
        except psycopg.errors.LockNotAvailable as error:
            where = f"{self._url}, table {piece.table}, partition {piece.partition}"
            raise lock_timed_out(f"advisory lock {key}", waited + monotonic() - started, where) from error
        return monotonic() - started

    def _write_events(self, connection: sa.Connection, piece: Slice, receipt_id: int) -> Written:
        with self._watch.stage("commit.encode", rows=piece.events.num_rows):
            parts = self._on_the_wire(piece, receipt_id)
        self._before = self._inserted(connection, piece.table)
        if piece.existing == "conflict":
            return Written("safe", self._copied_safely(connection, piece.table, parts))
        if piece.existing == "query":
            parts = [self._absent(connection, piece.table, part) for part in parts]
        written = self._copy_fast(connection, piece.table, [part for part in parts if part.num_rows])
        if written.inserted is None and sum(part.num_rows for part in parts) < piece.events.num_rows:
            return Written(written.path, b"".join(map(_packed_ids, parts)))
        return written

    def _absent(self, connection: sa.Connection, table: str, events: pa.RecordBatch) -> pa.RecordBatch:
        """The events that the table does not hold."""
        ids = events.select([EVENT_ID])
        self._put_aside(connection, table, ids)
        held = sql.SQL("SELECT coalesce(string_agg(uuid_send(event_id), ''), '') FROM {} JOIN {} USING (event_id)")
        with self._watch.stage("commit.query", rows=events.num_rows):
            (packed,) = self._ask(connection, Statement(held.format(ASIDE, sql.Identifier(table)))).fetchone() or (b"",)
        present = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(packed) // 16, [None, pa.py_buffer(packed)])
        return events.filter(pc.invert(pc.is_in(ids.column(0), value_set=present))) if packed else events

    def _copy_fast(self, connection: sa.Connection, table: str, parts: Sequence[pa.RecordBatch]) -> Written:
        """The fast path and, for events that the unique key refuses, the safe path."""
        try:
            for part in parts:
                self._copy(connection, sql.Identifier(table), part, "commit.copy")
        except psycopg.errors.UniqueViolation:
            self._ask(connection, TO_SAVEPOINT)
            return Written("safe", self._copied_safely(connection, table, parts))
        return Written("fast", None)  # COMMIT releases the savepoint

    def _copied_safely(self, connection: sa.Connection, table: str, parts: Sequence[pa.RecordBatch]) -> bytes | None:
        """The safe path. Returns the packed IDs that went in, ``None`` for all."""
        self._before = self._inserted(connection, table)
        every = [self._copy_safely(connection, table, part) for part in parts]
        return None if sum(map(len, every)) == 16 * sum(part.num_rows for part in parts) else b"".join(every)

    def _inserted(self, connection: sa.Connection, table: str) -> int:
        """How many rows this transaction has put into a table on which others act; who acts alone need not ask."""
        if not self._facts[table].watchers:
            return 0
        return int(self._together(connection, inserted_into(table))[0][0][0])

    def _put_aside(self, connection: sa.Connection, table: str, events: pa.RecordBatch) -> None:
        """COPY the events (or some columns of them) into a temporary table of the target's column types."""
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(ASIDE)
        create = sql.SQL(
            "CREATE TEMPORARY TABLE headrace_slice ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA"
        ).format(names_of(events.schema.names), sql.Identifier(table))
        self._together(connection, Statement(drop), Statement(create))
        self._copy(connection, ASIDE, events, "commit.aside")

    def _copy_safely(self, connection: sa.Connection, table: str, events: pa.RecordBatch) -> bytes:
        self._put_aside(connection, table, events)
        columns = names_of(events.schema.names)
        insert = sql.SQL(
            "WITH inserted AS (INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY event_id "
            "ON CONFLICT (event_id) DO NOTHING RETURNING event_id) "
            "SELECT coalesce(string_agg(uuid_send(event_id), ''), '') FROM inserted"
        )
        with self._watch.stage("commit.conflict", rows=events.num_rows):
            into = insert.format(sql.Identifier(table), columns, columns, ASIDE)
            (inserted,) = self._ask(connection, Statement(into)).fetchone() or (b"",)
        return bytes(inserted)

    def _put_repeats_aside(self, connection: sa.Connection, table: str, aside: Aside) -> sa.TableClause:
        names, added = aside.rows.schema.names, [aside.at, aside.group]
        data = [name for name in names if name not in added]
        held = fitted(table, self._facts[table], aside.rows.select(data))
        rows = pa.RecordBatch.from_pydict(held | {name: aside.rows.column(name) for name in added})
        create = sql.SQL(
            "CREATE TEMPORARY TABLE headrace_repeats ON COMMIT DROP AS "
            "SELECT {}, 0::bigint AS {}, 0::bigint AS {} FROM {} WITH NO DATA"
        ).format(names_of(data), *map(sql.Identifier, added), sql.Identifier(table))
        self._ask(connection, Statement(create))
        self._copy(connection, sql.Identifier("pg_temp", "headrace_repeats"), rows, "commit.aside")
        return sa.table("headrace_repeats", *map(sa.column, names), schema="pg_temp")

    def _copy(self, connection: sa.Connection, table: sql.Identifier, events: pa.RecordBatch, stage: str) -> None:
        with self._watch.stage(stage, rows=events.num_rows, size=events.nbytes):
            taken = copy_in(_driver(connection), table, events, self._say)
        self._require_all(taken, events.num_rows, table)

    def _insert_rejects(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        # a bad column can reject a whole chunk: COPY takes a tenth of the time of INSERTs
        table = sql.Identifier(REJECTS.name)
        self._require_all(copy_rows_in(_driver(connection), table, rows, self._say), len(rows), table)

    def _require_all(self, taken: int, sent: int, table: sql.Identifier) -> None:
        """Raise `StoreError` unless the server took every row of a COPY, as it says itself."""
        if taken != sent:
            facts = self._facts.get(table.as_string(None).strip('"'), NO_FACTS)
            where = f"{self._url}, table {table.as_string(None)}"
            raise meddled(f"of {sent:,} rows sent to the table it took {taken:,}", where, facts)

    def _insert_alerts(self, connection: sa.Connection, alerts: pa.RecordBatch) -> int:
        self._put_aside(connection, ALERTS.name, alerts)
        columns = names_of(alerts.schema.names)
        insert = sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY event_id, alert_key ON CONFLICT (alert_key) DO NOTHING"
        )
        with self._watch.stage("commit.alerts", rows=alerts.num_rows, size=alerts.nbytes):
            into = insert.format(sql.Identifier(ALERTS.name), columns, columns, ASIDE)
            return self._ask(connection, Statement(into)).rowcount

    def _on_the_wire(self, piece: Slice, receipt_id: int) -> list[pa.RecordBatch]:
        """The events with their receipt, each column as wide as the table's: binary COPY takes no other width.

        Those of inputs that lack a column which the database fills are a part of their own, without it.
        """
        receipts = pa.repeat(pa.scalar(receipt_id, pa.int64()), piece.events.num_rows)
        names = [*piece.events.schema.names, RECEIPT]
        events = pa.RecordBatch.from_arrays([*piece.events.columns, receipts], names=names)
        facts = self._facts[piece.table]
        parts = []
        for part in parted(events, piece.lacking, facts.filled):
            wide = fitted(piece.table, facts, part)
            require_columns(piece.table, facts, wide)
            parts.append(pa.RecordBatch.from_pydict(wide))
        return parts

    def _prove(self, connection: sa.Connection, piece: Slice, written: Written, receipt_id: int) -> None:
        facts, where = self._facts[piece.table], f"{self._url}, table {piece.table}"
        sent, strange = sent_ids(piece.events, written.inserted)
        if strange:
            raise meddled(f"{strange:,} events went in under other IDs than were sent", where, facts)
        fresh = piece.events.num_rows if written.inserted is None else len(written.inserted) // 16
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(ASIDE)
        create = sql.SQL("CREATE TEMPORARY TABLE headrace_slice ({} uuid, {} boolean) ON COMMIT DROP").format(
            sql.Identifier(EVENT_ID), sql.Identifier(FRESH)
        )
        # what was put off to the end of the transaction acts before the look
        now = [Statement(sql.SQL("SET CONSTRAINTS ALL IMMEDIATE"))] if any(w.deferred for w in facts.watchers) else []
        self._together(connection, *now, Statement(drop), Statement(create))
        self._copy(connection, ASIDE, sent, "commit.aside")
        with self._watch.stage("commit.prove", rows=sent.num_rows):
            found = self._together(connection, astray(piece.table, facts, ASIDE, receipt_id, piece.provider))[0]
        more = self._inserted(connection, piece.table) - self._before - fresh
        if more > 0 and written.path == "safe":
            # ON CONFLICT counts a row that another loader's has beaten at the last moment as well: look who they are
            more = self._together(connection, carrying(piece.table, receipt_id))[0][0][0] - fresh
        if more > 0:
            raise meddled(f"{more:,} rows more went into the table than the {fresh:,} that were sent", where, facts)
        if found:
            ids = ", ".join(str(one) for one, _ in found)
            what = (
                f"of {sent.num_rows:,} events sent to the table {found[0][1]:,} are not in it as they were sent ({ids})"
            )
            raise meddled(what, where, facts)

    # Existing IDs -------------------------------------------------------------------------------------------------

    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]:
        if isinstance(where, IdRange):
            yield from self._packed(packed_by_key(table, where, limit), first=ALONG_THE_KEY)
        else:
            yield from self._packed(packed_by_number(ids_in(table, where, limit)))

    def held(self, table: str, ids: bytes) -> Iterator[bytes]:
        for block in in_packs(ids, IDS_PER_BLOCK):
            yield from self._packed(held_of(table), {"ids": as_array(block)}, first=THROUGH_THE_KEY)

    def id_sum(self, table: str, ranges: Sequence[IdRange | None]) -> IdSum | None:
        with self._reading() as connection:
            found = self._ask(connection, Statement(sum_of(table, ranges))).fetchone()
        count, total, probed = found or (0, "0", None)
        return IdSum(count, int(total)) if probed == HASH_OF_PROBE else None

    def holdings(self, table: str) -> Iterator[Holdings]:
        for packed in self._packed(holdings_of(table)):
            rows = np.frombuffer(packed, dtype=[("id", "V16"), ("receipt", ">i8")])
            yield Holdings(rows["id"].tobytes(), rows["receipt"].astype(np.int64))

    def rows(self, table: str, columns: pa.Schema, *, ids: Sequence[bytes] | None = None) -> Iterator[HeldRows]:
        with self._reading() as connection:
            cursor = _driver(connection).cursor()
            statement = copy_out(table, columns, ids)
            self._say(statement.as_string(cursor))
            with cursor.copy(statement) as copy:
                yield from copied_rows(copy, columns)

    def stored_forms(self, table: str) -> StoredForms:
        with self._reading() as connection:
            return forms_of_postgres(self._declared(connection, table))

    def _row_form(self, connection: sa.Connection, table: str) -> RowForm:
        return form_of_postgres(self._declared(connection, table))

    def _declared(self, connection: sa.Connection, table: str) -> Sequence[Any]:
        name = sql.Identifier(table).as_string(None)  # a value here: SQLAlchemy would double a per cent sign in it
        return connection.execute(DECLARED_IN_POSTGRES, {"table": name}).all()

    def _packed(
        self, statement: sql.Composed, values: Mapping[str, str] | None = None, *, first: sql.SQL | None = None
    ) -> Iterator[bytes]:
        """The rows of packed IDs, streamed: neither side holds more than a few of them."""
        with self._reading() as connection:
            cursor = _driver(connection).cursor()
            if first is not None:
                cursor.execute(first)
            self._say(statement.as_string(cursor))
            # declared an iterator; closed early, as the generator it is, it cancels the query
            with closing(cast(Generator[tuple[bytes]], cursor.stream(statement, values, binary=True))) as rows:
                # rows that were there before the column was added have no ID
                yield from (packed for (packed,) in rows if packed is not None)

    def _together(self, connection: sa.Connection, *statements: Statement) -> list[Rows]:
        return together(_driver(connection), statements, self._say)

    def _ask(self, connection: sa.Connection, statement: Statement) -> Cursor:
        return alone(_driver(connection), statement, self._say)


def _driver(connection: sa.Connection) -> psycopg.Connection[tuple[Any, ...]]:
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise StoreError(f"SQLAlchemy gave a {type(driver).__name__}, not a psycopg connection")
    return driver


def _first_refused(keys: Sequence[int]) -> Statement:
    """Take the locks in order without waiting, up to the first that another session holds: that one is the answer."""
    attempt = "SELECT key FROM unnest({}::bigint[]) AS key WHERE NOT pg_try_advisory_xact_lock(key) LIMIT 1"
    return Statement(sql.SQL(attempt).format(sql.Literal(list(keys))))


def _packed_ids(events: pa.RecordBatch) -> bytes:
    return b"".join(events.column(EVENT_ID).to_pylist())
