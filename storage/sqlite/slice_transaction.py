"""The transaction of a slice in SQLite.

It is a ``BEGIN IMMEDIATE`` transaction, so that what it sees is what it inserts against.
``ON CONFLICT(event_id) DO NOTHING`` all the same: the unique key decides, and ``OR IGNORE`` would hide violations of
other constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from headrace.storage.postgres.written_slice import meddled
from headrace.storage.records import EVENT_ID, PROVIDER, RECEIPT, Slice
from headrace.storage.spans import Stopwatch
from headrace.storage.sql.database import Database
from headrace.storage.sql.facts import fitted, require_columns
from headrace.storage.sql.numbers import NumberTakenError
from headrace.storage.sql.revise import Aside
from headrace.storage.sql.schema import ALERTS, REJECTS
from headrace.storage.sql.slice_transaction import NO_FACTS, Claimed, SliceTransaction, Written
from headrace.storage.sqlite.catalogue import SqliteCatalogue

__all__ = ["SqliteTransaction"]


class SqliteTransaction(SliceTransaction):
    """The transaction of a slice in SQLite. BEGIN has `waited` for the file's lock."""

    def __init__(
        self,
        connection: sa.Connection,
        piece: Slice,
        watch: Stopwatch,
        database: Database,
        catalogue: SqliteCatalogue,
        waited: float,
    ) -> None:
        super().__init__(connection, piece, watch, database)
        self._dialect = database.dialect
        self._catalogue = catalogue
        self._waited = waited

    def claim(self, receipt: Any) -> Claimed:
        """The receipt; BEGIN has waited for the locks."""
        with self.watch.stage("commit.receipt"):
            receipt_id = self.connection.execute(receipt).scalar()
            if receipt_id is not None:
                self.facts = self._catalogue.learned(self.connection, self.piece.table)
        if self.piece.locks:
            with self.watch.stage("commit.locks"):
                pass
        return Claimed(receipt_id, self._waited)

    def write_events(self, receipt_id: int) -> Written:
        """By INSERTs that leave out existing rows."""
        piece, inserted = self.piece, self._insert_events(receipt_id)
        path: Any = "safe" if piece.existing == "conflict" else "fast"
        if inserted == piece.events.num_rows:
            return Written(path, None)
        with self.watch.stage("commit.query", rows=piece.events.num_rows):
            return Written(path, self._which(receipt_id, inserted))

    def _insert_events(self, receipt_id: int) -> int:
        """Insert those that are not there. Returns how many SQLite says went in."""
        table, events = self.piece.table, self.piece.events
        with self.watch.stage("commit.encode", rows=events.num_rows):
            columns = fitted(table, self.facts, events)
            require_columns(table, self.facts, columns)
            receipts = [receipt_id] * events.num_rows
            rows = list(zip(*map(_stored, columns.values()), receipts, strict=True))
        with self.watch.stage("commit.insert", rows=len(rows), size=events.nbytes):
            return self.connection.exec_driver_sql(self._insert_sql(table, [*columns, RECEIPT]), rows).rowcount

    def insert_rejects(self, rows: Sequence[dict[str, Any]]) -> None:
        """By INSERTs, with the time by this machine's clock."""
        insert = sa.insert(REJECTS).values(created_at=self._dialect.now())
        kept = self.connection.execute(insert, rows).rowcount
        if kept != len(rows):
            raise meddled(f"of {len(rows):,} rows sent to {REJECTS.name} it took {kept:,}", self.where, NO_FACTS)

    def put_repeats_aside(self, aside: Aside) -> sa.TableClause:
        """A temporary table with the rows of `aside`."""
        table, connection = self.piece.table, self.connection
        data = aside.rows.drop_columns([aside.at])
        place = sa.table("headrace_repeats", *map(sa.column, [*data.schema.names, aside.at]), schema="temp")
        target = sa.table(table, *map(sa.column, data.schema.names))
        columns = [*target.c, sa.literal_column("0").label(aside.at)]
        empty = sa.select(*columns).where(sa.false()).compile(connection, compile_kwargs={"literal_binds": True})
        connection.exec_driver_sql("DROP TABLE IF EXISTS temp.headrace_repeats")
        connection.exec_driver_sql(f"CREATE TEMP TABLE headrace_repeats AS {empty}")
        position = self.connection.dialect.identifier_preparer.quote(aside.at)
        # without it, joins by position take time in the square of the rows
        connection.exec_driver_sql(f"CREATE UNIQUE INDEX temp.headrace_repeats_at ON headrace_repeats ({position})")
        held = fitted(table, self.facts, data)
        columns = [*held.values(), aside.rows.column(aside.at)]
        rows = list(zip(*map(_stored, columns), strict=True))
        connection.exec_driver_sql(str(sa.insert(place).compile(connection)), rows)
        return place

    def insert_alerts(self, alerts: pa.RecordBatch) -> int:
        """By INSERTs that leave out existing rows."""
        times, now = ["created_at", "next_attempt_at"], self._dialect.now()
        columns = [*map(_stored, alerts.columns), *([now] * alerts.num_rows for _ in times)]
        insert = self._insert_sql(ALERTS.name, [*alerts.schema.names, *times], unique="alert_key")
        with self.watch.stage("commit.alerts", rows=alerts.num_rows, size=alerts.nbytes):
            return self.connection.exec_driver_sql(insert, list(zip(*columns, strict=True))).rowcount

    def _insert_sql(self, table: str, names: list[str], unique: str = EVENT_ID) -> str:
        quote = self.connection.dialect.identifier_preparer.quote
        marks = ", ".join("?" for _ in names)
        columns = ", ".join(map(quote, names))
        # every name is quoted by SQLAlchemy, every value is a parameter
        return f"INSERT INTO {quote(table)} ({columns}) VALUES ({marks}) ON CONFLICT({unique}) DO NOTHING"  # noqa: S608

    def _which(self, receipt_id: int, inserted: int) -> bytes:
        """The packed IDs among the slice's that carry its receipt: those that went in just now.

        Raises `StoreError` where they are not as many as SQLite has `inserted`, or one of the others is not there: a
        trigger has acted on them.
        """
        piece, connection, events = self.piece, self.connection, self._beside_sent()
        mine = events.c[RECEIPT].is_not_distinct_from(receipt_id) & (events.c[PROVIDER] == piece.provider)
        went_in = b"".join(connection.scalars(self._sent_and(events).with_only_columns(events.c[EVENT_ID]).where(mine)))
        if len(went_in) > 16 * inserted:
            raise NumberTakenError(
                f"rows of this table already carry receipt {receipt_id}, which the ledger does not have",
                where=self.where,
                hint="the ledger was emptied or restored from an older copy: run the same command again",
            )
        found = connection.scalar(self._sent_and(events).with_only_columns(sa.func.count(events.c[EVENT_ID]))) or 0
        if found < piece.events.num_rows or len(went_in) != 16 * inserted:
            what = (
                f"of {piece.events.num_rows:,} events sent to the table SQLite inserted {inserted:,}; "
                f"{found:,} are in it, {len(went_in) // 16:,} of them as they were sent"
            )
            raise meddled(what, self.where, self.facts)
        return went_in

    def _beside_sent(self) -> sa.TableClause:
        """The events' table; the slice's IDs lie in a temporary one beside it."""
        connection, ids = self.connection, _stored(self.piece.events.column(EVENT_ID))
        connection.exec_driver_sql("CREATE TEMP TABLE IF NOT EXISTS headrace_slice (event_id BLOB PRIMARY KEY)")
        connection.exec_driver_sql("DELETE FROM temp.headrace_slice")
        connection.exec_driver_sql("INSERT INTO temp.headrace_slice VALUES (?)", [(one,) for one in ids])
        return sa.table(self.piece.table, sa.column(EVENT_ID), sa.column(PROVIDER), sa.column(RECEIPT))

    def _sent_and(self, events: sa.TableClause) -> sa.Select[Any]:
        sent = sa.table("headrace_slice", sa.column(EVENT_ID), schema="temp")
        return sa.select(events).select_from(sent.join(events, events.c[EVENT_ID] == sent.c[EVENT_ID]))

    def prove(self, written: Written, receipt_id: int) -> None:
        """Look for every event under its ID, and at how many rows carry the receipt."""
        piece = self.piece
        inserted = piece.events.num_rows if written.inserted is None else len(written.inserted) // 16
        with self.watch.stage("commit.prove", rows=piece.events.num_rows):
            self._which(receipt_id, inserted)
            events = sa.table(piece.table, sa.column(RECEIPT))
            all_of_it = sa.select(sa.func.count()).select_from(events).where(events.c[RECEIPT] == receipt_id)
            more = self.connection.execute(all_of_it).scalar_one() - inserted
        if more > 0:
            what = f"{more:,} more rows went into the table than the {inserted:,} that were sent"
            raise meddled(what, self.where, self.facts)

    def complete(self, books: sa.Update) -> None:
        """The receipt's books, then COMMIT."""
        with self.watch.stage("commit.receipt"):
            self.connection.execute(books)
        with self.watch.stage("commit.commit"):
            self.connection.commit()


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
