"""SQLite: one file, one writer at a time, WAL so that readers never wait.

Each commit is one ``BEGIN IMMEDIATE`` transaction: from its first statement on no other process can write, so what it
sees is what it inserts against. ``ON CONFLICT(event_id) DO NOTHING`` all the same: the unique key decides, and
``OR IGNORE`` would hide violations of other constraints.

The file's own lock is therefore also the lock of every partition: a slice with locks waits in ``BEGIN IMMEDIATE`` for
as long as its own timeout allows, and says how long that was.

``synchronous=FULL``: a commit that has returned survives a power loss as far as the disk keeps its word.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic, sleep
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from headrace.errors import SchemaError, StoreError
from headrace.storage.held import HeldRows, rows_of
from headrace.storage.holdings import NO_RECEIPT, Holdings
from headrace.storage.interface import (
    EVENT_ID,
    PROVIDER,
    RECEIPT,
    IdRange,
    Slice,
    StatementHook,
    TimeRange,
)
from headrace.storage.locks import lock_timed_out
from headrace.storage.postgres.written_slice import meddled
from headrace.storage.sql.facts import Facts, fitted, gone, parted, require_columns, require_fit
from headrace.storage.sql.failures import is_busy, translated
from headrace.storage.sql.numbers import NumberTakenError
from headrace.storage.sql.revise import Aside
from headrace.storage.sql.schema import ALERTS, REJECTS
from headrace.storage.sql.store import Opened, SqlStore, Written, in_packs
from headrace.storage.sql.stored_forms import StoredForms, forms_of_sqlite
from headrace.storage.sql.transactions import READING, in_blocks
from headrace.storage.sql.whole_rows import RowForm, form_of_sqlite
from headrace.storage.sqlite.file_place import PlacedFile, file_of, in_memory
from headrace.storage.sqlite.pragmas import adding, facts_of
from headrace.storage.value_text import SORTED_FORMS

__all__ = ["SqliteStore"]

OLDEST = (3, 35, 0)  # RETURNING
IDS_PER_BLOCK = 10_000
BUSY_SECONDS = 30.0
SECONDS_BETWEEN_TRIES = 0.01
FILE = "headrace_file"  # where the pool keeps which file a connection is to
WAITED = "headrace_waited"  # where a connection keeps how long its BEGIN IMMEDIATE waited
LONGEST_TIMEOUT = 2**31 - 1  # milliseconds, as busy_timeout takes them


# CROSS JOIN keeps the order: each ID is looked up in the key
_HELD = (
    "WITH RECURSIVE headrace_number (row) AS "
    "(SELECT 0 UNION ALL SELECT row + 1 FROM headrace_number WHERE row + 1 < :count) "
    "SELECT events.event_id FROM headrace_number CROSS JOIN {table} AS events "
    "ON events.event_id = substr(:ids, headrace_number.row * 16 + 1, 16)"
)


class SqliteStore(SqlStore):
    """A `Store` in an SQLite file."""

    def __init__(self, url: sa.URL, shown: str, on_statement: StatementHook | None) -> None:
        if sqlite3.sqlite_version_info < OLDEST:
            raise StoreError(
                f"this Python has SQLite {sqlite3.sqlite_version}, Headrace needs {'.'.join(map(str, OLDEST))}",
                hint="use a newer Python, or PostgreSQL with --to postgresql://…",
            )
        connect = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        # an in-memory database lives as long as its one connection
        pool = sa.StaticPool if in_memory(url) else sa.QueuePool
        engine = sa.create_engine(
            url.set(drivername="sqlite+pysqlite"),
            connect_args=connect,
            poolclass=pool,
            hide_parameters=True,  # a traceback is no place for the user's rows
        )
        self._path = file_of(url)
        self._file: PlacedFile | None = None
        sa.event.listen(engine, "connect", partial(_prepare_connection, shown))
        sa.event.listen(engine, "connect", self._note_file)
        sa.event.listen(engine, "checkout", _require_file)
        sa.event.listen(engine, "begin", _begin)
        super().__init__(engine, shown, on_statement)
        self._known: dict[str, int] = {}  # the file's schema_version when `_facts` were read in a commit
        with self._reading():
            pass  # a file that cannot be opened is said now, not at the first chunk

    def describe(self) -> dict[str, str]:
        with self._reading() as connection:
            journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return {
            "database": f"{self._url} opens: SQLite {sqlite3.sqlite_version}",
            "clock": "this machine's (SQLite has no server)",
            "durability": f"journal_mode {journal}, synchronous FULL",
        }

    def is_in_place(self) -> bool:
        return self._file is None or self._file.is_in_place()

    def _note_file(self, _driver: object, record: sa.pool.ConnectionPoolEntry) -> None:
        self._file = record.info[FILE] = None if self._path is None else PlacedFile.at(self._path)

    # Tables -------------------------------------------------------------------------------------------------------

    def _reflect(self, connection: sa.Connection, table: str, *, keyed: bool = True) -> Facts | None:
        facts = facts_of(connection, table)
        if facts is None:
            return None
        require_fit(table, facts, partial(adding, table), keyed=keyed)
        self._facts[table] = facts
        return facts

    def _learn(self, connection: sa.Connection, table: str) -> None:
        """What the table is like now: this transaction holds the only write lock, and so it stays."""
        version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
        if self._known.get(table) != version:
            if self._reflect(connection, table) is None:
                raise gone(table)
            self._known[table] = version

    def _require_names(self, table: str, columns: Sequence[str]) -> None:
        spelt: dict[bytes, str] = {}
        for name in columns:
            # bytes, since SQLite knows the case of ASCII letters alone
            if (other := spelt.setdefault(name.encode().lower(), name)) != name:
                raise SchemaError(
                    f"SQLite does not tell upper from lower case: {other!r} and {name!r} are one column to it",
                    where=f"{table}, column {name}",
                    hint="rename it with --select, or load into PostgreSQL",
                )

    def _now(self) -> Any:
        return _moment_text(datetime.now(UTC))

    def _later(self, seconds: float) -> Any:
        return _moment_text(datetime.now(UTC) + timedelta(seconds=seconds))

    def _exclusive(self, connection: sa.Connection) -> None:
        """BEGIN IMMEDIATE holds the only write lock already."""

    def _id(self, event_id: bytes) -> Any:
        return event_id

    # Writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _begun(self, piece: Slice) -> Iterator[sa.Connection]:
        with (
            self._engine.connect() as connection,
            self._begin_in_time(connection, piece) if piece.locks else connection.begin(),
        ):
            yield connection

    def _begin_in_time(self, connection: sa.Connection, piece: Slice) -> sa.RootTransaction:
        """BEGIN IMMEDIATE with the slice's own timeout."""
        started = monotonic()
        try:
            with _busy_timeout(connection, piece.lock_timeout):
                return connection.begin()
        except sa.exc.DBAPIError as error:
            if not is_busy(error):
                raise
            where = f"{self._url}, table {piece.table}, partition {piece.partition}"
            raise lock_timed_out("the file's lock", monotonic() - started, where) from error
        finally:
            connection.info[WAITED] = monotonic() - started

    def _opened(self, connection: sa.Connection, piece: Slice) -> Opened:
        with self._watch.stage("commit.receipt"):
            receipt_id = connection.execute(self._claim(piece)).scalar()
            if receipt_id is not None:
                self._learn(connection, piece.table)
        if not piece.locks:
            return Opened(receipt_id)
        with self._watch.stage("commit.locks"):  # BEGIN has waited for them
            return Opened(receipt_id, connection.info[WAITED])

    def _complete(self, connection: sa.Connection, books: sa.Update) -> None:
        with self._watch.stage("commit.receipt"):
            connection.execute(books)
        with self._watch.stage("commit.commit"):
            connection.commit()

    def _write_events(self, connection: sa.Connection, piece: Slice, receipt_id: int) -> Written:
        facts, inserted = self._facts[piece.table], 0
        for part in parted(piece.events, piece.lacking, facts.filled):
            inserted += self._insert_events(connection, piece.table, part, receipt_id)
        path: Any = "safe" if piece.existing == "conflict" else "fast"
        if inserted == piece.events.num_rows:
            return Written(path, None)
        with self._watch.stage("commit.query", rows=piece.events.num_rows):
            return Written(path, self._which(connection, piece, receipt_id, inserted))

    def _insert_events(self, connection: sa.Connection, table: str, events: pa.RecordBatch, receipt_id: int) -> int:
        """Insert those that are not there. Returns how many SQLite says went in."""
        with self._watch.stage("commit.encode", rows=events.num_rows):
            columns = fitted(table, self._facts[table], events)
            require_columns(table, self._facts[table], columns)
            receipts = [receipt_id] * events.num_rows
            rows = list(zip(*map(_stored, columns.values()), receipts, strict=True))
        with self._watch.stage("commit.insert", rows=len(rows), size=events.nbytes):
            return connection.exec_driver_sql(self._insert_sql(table, [*columns, RECEIPT]), rows).rowcount

    def _insert_rejects(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        connection.execute(sa.insert(REJECTS).values(created_at=self._now()), rows)

    def _put_repeats_aside(self, connection: sa.Connection, table: str, aside: Aside) -> sa.TableClause:
        added = [aside.at, aside.group]
        names = [*aside.rows.drop_columns(added).schema.names, *added]
        place = sa.table("headrace_repeats", *map(sa.column, names), schema="temp")
        target = sa.table(table, *(sa.column(name) for name in names if name not in added))
        columns = [*target.c, *(sa.literal_column("0").label(name) for name in added)]
        empty = sa.select(*columns).where(sa.false()).compile(connection, compile_kwargs={"literal_binds": True})
        connection.exec_driver_sql("DROP TABLE IF EXISTS temp.headrace_repeats")
        connection.exec_driver_sql(f"CREATE TEMP TABLE headrace_repeats AS {empty}")
        position = self._engine.dialect.identifier_preparer.quote(aside.at)
        # without it, joins by position take time in the square of the rows
        connection.exec_driver_sql(f"CREATE UNIQUE INDEX temp.headrace_repeats_at ON headrace_repeats ({position})")
        held = fitted(table, self._facts[table], aside.rows.drop_columns(added))
        columns = [*held.values(), *map(aside.rows.column, added)]
        rows = list(zip(*map(_stored, columns), strict=True))
        connection.exec_driver_sql(str(sa.insert(place).compile(connection)), rows)
        return place

    def _insert_alerts(self, connection: sa.Connection, alerts: pa.RecordBatch) -> int:
        times, now = ["created_at", "next_attempt_at"], self._now()
        columns = [*map(_stored, alerts.columns), *([now] * alerts.num_rows for _ in times)]
        insert = self._insert_sql(ALERTS.name, [*alerts.schema.names, *times], unique="alert_key")
        with self._watch.stage("commit.alerts", rows=alerts.num_rows, size=alerts.nbytes):
            return connection.exec_driver_sql(insert, list(zip(*columns, strict=True))).rowcount

    def _insert_sql(self, table: str, names: list[str], unique: str = EVENT_ID) -> str:
        quote = self._engine.dialect.identifier_preparer.quote
        marks = ", ".join("?" for _ in names)
        columns = ", ".join(map(quote, names))
        # every name is quoted by SQLAlchemy, every value is a parameter
        return f"INSERT INTO {quote(table)} ({columns}) VALUES ({marks}) ON CONFLICT({unique}) DO NOTHING"  # noqa: S608

    def _which(self, connection: sa.Connection, piece: Slice, receipt_id: int, inserted: int) -> bytes:
        """The packed IDs among the slice's that carry its receipt: those that went in just now.

        Raises `StoreError` where they are not as many as SQLite has `inserted`, or one of the others is not there: a
        trigger has acted on them.
        """
        events = self._beside_sent(connection, piece)
        mine = events.c[RECEIPT].is_not_distinct_from(receipt_id) & (events.c[PROVIDER] == piece.provider)
        went_in = b"".join(connection.scalars(self._sent_and(events).with_only_columns(events.c[EVENT_ID]).where(mine)))
        if len(went_in) > 16 * inserted:
            raise NumberTakenError(
                f"rows of this table carry receipt {receipt_id} already, and the ledger does not know it",
                where=f"{self._url}, table {piece.table}",
                hint="the ledger was emptied or restored from an older copy: run the same command again",
            )
        found = connection.scalar(self._sent_and(events).with_only_columns(sa.func.count(events.c[EVENT_ID]))) or 0
        if found < piece.events.num_rows or len(went_in) != 16 * inserted:
            what = (
                f"of {piece.events.num_rows:,} events sent to the table SQLite inserted {inserted:,}; "
                f"{found:,} are in it, {len(went_in) // 16:,} of them as they were sent"
            )
            raise meddled(what, f"{self._url}, table {piece.table}", self._facts[piece.table])
        return went_in

    def _beside_sent(self, connection: sa.Connection, piece: Slice) -> sa.TableClause:
        """The events' table; the slice's IDs lie in a temporary one beside it."""
        ids = _stored(piece.events.column(EVENT_ID))
        connection.exec_driver_sql("CREATE TEMP TABLE IF NOT EXISTS headrace_slice (event_id BLOB PRIMARY KEY)")
        connection.exec_driver_sql("DELETE FROM temp.headrace_slice")
        connection.exec_driver_sql("INSERT INTO temp.headrace_slice VALUES (?)", [(one,) for one in ids])
        return sa.table(piece.table, sa.column(EVENT_ID), sa.column(PROVIDER), sa.column(RECEIPT))

    def _sent_and(self, events: sa.TableClause) -> sa.Select[Any]:
        sent = sa.table("headrace_slice", sa.column(EVENT_ID), schema="temp")
        return sa.select(events).select_from(sent.join(events, events.c[EVENT_ID] == sent.c[EVENT_ID]))

    def _prove(self, connection: sa.Connection, piece: Slice, written: Written, receipt_id: int) -> None:
        inserted = piece.events.num_rows if written.inserted is None else len(written.inserted) // 16
        with self._watch.stage("commit.prove", rows=piece.events.num_rows):
            self._which(connection, piece, receipt_id, inserted)
            events = sa.table(piece.table, sa.column(RECEIPT))
            all_of_it = sa.select(sa.func.count()).select_from(events).where(events.c[RECEIPT] == receipt_id)
            more = connection.execute(all_of_it).scalar_one() - inserted
        if more > 0:
            what = f"{more:,} rows more went into the table than the {inserted:,} that were sent"
            raise meddled(what, f"{self._url}, table {piece.table}", self._facts[piece.table])

    # Existing IDs -------------------------------------------------------------------------------------------------

    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]:
        time: list[sa.ColumnClause[Any]] = [sa.column(where.column)] if isinstance(where, TimeRange) else []
        events = sa.table(table, sa.column(EVENT_ID), *time)
        # rows that were there before the column was added have no ID
        there = _condition(events, where) & events.c[EVENT_ID].is_not(None)
        yield from self._packed(sa.select(events.c[EVENT_ID]).where(there).limit(limit))

    def held(self, table: str, ids: bytes) -> Iterator[bytes]:
        statement = _HELD.format(table=self._engine.dialect.identifier_preparer.quote(table))
        for block in in_packs(ids, IDS_PER_BLOCK):
            with self._reading() as connection:
                found = connection.exec_driver_sql(statement, {"ids": block, "count": len(block) // 16})
                yield b"".join(found.scalars())

    def holdings(self, table: str) -> Iterator[Holdings]:
        events = sa.table(table, sa.column(EVENT_ID), sa.column(RECEIPT))
        found = sa.select(events.c[EVENT_ID], sa.func.coalesce(events.c[RECEIPT], NO_RECEIPT))
        found = found.where(events.c[EVENT_ID].is_not(None))
        with self._reading() as connection:
            for block in connection.execution_options(yield_per=IDS_PER_BLOCK).execute(found).partitions():
                ids, receipts = zip(*block, strict=True)
                yield Holdings(b"".join(ids), np.array(receipts, dtype=np.int64))

    def rows(self, table: str, columns: pa.Schema, *, ids: Sequence[bytes] | None = None) -> Iterator[HeldRows]:
        names = [EVENT_ID, RECEIPT, *columns.names]
        events = sa.table(table, *map(sa.column, names))
        found = sa.select(*events.c).where(events.c[EVENT_ID].is_not(None))
        with self._reading() as connection:
            for part in [None] if ids is None else in_blocks(ids):
                asked = found if part is None else found.where(events.c[EVENT_ID].in_(part))
                # the driver's own rows: SQLAlchemy would make an object of each
                cursor = connection.execute(asked).cursor
                while cursor is not None and (block := cursor.fetchmany(IDS_PER_BLOCK)):
                    yield rows_of(block, columns)

    def _row_form(self, connection: sa.Connection, table: str) -> RowForm:
        facts = facts_of(connection, table)
        if facts is None:
            return RowForm([sa.literal_column("*")], {})  # SQLite says that there is no such table
        return form_of_sqlite((one.name, one.said) for one in facts.columns.values())

    def stored_forms(self, table: str) -> StoredForms:
        return forms_of_sqlite(self.table_schema(table, keyed=False))

    def _packed(self, found: sa.Select[Any]) -> Iterator[bytes]:
        with self._reading() as connection:
            for block in connection.execution_options(yield_per=IDS_PER_BLOCK).execute(found).scalars().partitions():
                yield b"".join(block)


def _require_file(_driver: object, record: sa.pool.ConnectionPoolEntry, _proxy: object) -> None:
    """Have the pool open the file anew if another has come to its place."""
    file = record.info[FILE]
    if file is not None and not file.is_in_place():
        raise sa.exc.DisconnectionError("the file was removed or replaced")


def _prepare_connection(shown: str, connection: sqlite3.Connection, _record: object) -> None:
    # transactions are begun by `_begin`, not by the driver's guess at which statement writes
    connection.isolation_level = None
    with translated(shown):
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        for name, form in SORTED_FORMS.items():
            connection.create_function(name, 1, form, deterministic=True)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL, again while another process does the same: there SQLite's own timeout does not help."""
    until = monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or monotonic() > until:
                raise
            sleep(SECONDS_BETWEEN_TRIES)
        else:
            return


def _begin(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get(READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def _busy_timeout(connection: sa.Connection, seconds: float) -> Iterator[None]:
    """How long SQLite waits for the file's lock inside. Set on the driver's connection: SQLAlchemy's would begin."""
    driver = connection.connection.driver_connection
    if driver is None:
        raise StoreError("SQLAlchemy gave no connection")
    (before,) = driver.execute("PRAGMA busy_timeout").fetchone()
    driver.execute(f"PRAGMA busy_timeout = {min(max(0, round(seconds * 1000)), LONGEST_TIMEOUT)}")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {before}")


def _condition(events: sa.TableClause, where: IdRange | TimeRange | None) -> sa.ColumnElement[bool]:
    if where is None:
        return sa.true()
    if isinstance(where, IdRange):
        return _between(events.c[EVENT_ID], where.low, where.high)
    column = events.c[where.column]
    edges = [None if edge is None else _moment_text(edge) for edge in (where.low, where.high)]
    return _between(column, *edges) | column.is_(None)


def _between(column: sa.ColumnElement[Any], low: object, high: object) -> sa.ColumnElement[bool]:
    below = sa.true() if low is None else column >= low
    return below if high is None else below & (column < high)


def _moment_text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _stored(column: pa.Array) -> list[Any]:
    """A column's values as SQLite keeps them (see `headrace.storage.sql.schema`)."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_timestamp(kind):
        # to text on the whole column; a zone would put a Z behind every value, and they are all UTC
        column = column.cast(pa.timestamp("us")).cast(pa.string())
    elif pa.types.is_date(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    elif pa.types.is_fixed_size_binary(kind):
        # IDs: 0.04 µs each, where to_pylist makes a scalar of each value and takes 0.4
        return list(column.to_numpy(zero_copy_only=False))
    values: list[Any] = column.to_pylist()
    return values
