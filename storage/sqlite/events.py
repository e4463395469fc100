"""Events in SQLite (`headrace.storage.events.Events`).

A slice with locks waits in ``BEGIN IMMEDIATE`` for as long as its own timeout allows, and says how long that was: the
file's own lock is also the lock of every partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from headrace.errors import StoreError
from headrace.storage.held import HeldRows, rows_of
from headrace.storage.locks import lock_timed_out
from headrace.storage.records import (
    EVENT_ID,
    NO_RECEIPT,
    RECEIPT,
    Committed,
    Holdings,
    IdRange,
    Slice,
    TimeRange,
)
from headrace.storage.spans import Stopwatch
from headrace.storage.sql.commit import commit
from headrace.storage.sql.database import Database, in_blocks, in_packs
from headrace.storage.sql.failures import is_busy
from headrace.storage.sqlite.catalogue import SqliteCatalogue
from headrace.storage.sqlite.slice_transaction import SqliteTransaction

__all__ = ["SqliteEvents"]

IDS_PER_BLOCK = 10_000
LONGEST_TIMEOUT = 2**31 - 1  # milliseconds, as busy_timeout takes them

# CROSS JOIN keeps the order: each ID is looked up in the key
_HELD = (
    "WITH RECURSIVE headrace_number (row) AS "
    "(SELECT 0 UNION ALL SELECT row + 1 FROM headrace_number WHERE row + 1 < :count) "
    "SELECT events.event_id FROM headrace_number CROSS JOIN {table} AS events "
    "ON events.event_id = substr(:ids, headrace_number.row * 16 + 1, 16)"
)


class SqliteEvents:
    """Each commit is durable when it has returned."""

    def __init__(self, database: Database, catalogue: SqliteCatalogue) -> None:
        self._database = database
        self._catalogue = catalogue

    def commit(self, piece: Slice) -> Committed:
        """Commit one slice."""
        return commit(self._database, self._begin, piece)

    @contextmanager
    def _begin(self, piece: Slice, watch: Stopwatch) -> Iterator[SqliteTransaction]:
        waited = 0.0
        with ExitStack() as begun:
            with watch.stage("commit.begin"):
                connection = begun.enter_context(self._database.engine.connect())
                started = monotonic()
                begun.enter_context(self._begun_in_time(connection, piece) if piece.locks else connection.begin())
                waited = monotonic() - started if piece.locks else 0.0
            yield SqliteTransaction(connection, piece, watch, self._database, self._catalogue, waited)

    def _begun_in_time(self, connection: sa.Connection, piece: Slice) -> sa.RootTransaction:
        """BEGIN IMMEDIATE with the slice's own timeout."""
        started = monotonic()
        try:
            with _busy_timeout(connection, piece.lock_timeout):
                return connection.begin()
        except sa.exc.DBAPIError as error:
            if not is_busy(error):
                raise
            where = f"{self._database.url}, table {piece.table}, partition {piece.partition}"
            raise lock_timed_out("the file's lock", monotonic() - started, where) from error

    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]:
        """Packed IDs in blocks."""
        time: list[sa.ColumnClause[Any]] = [sa.column(where.column)] if isinstance(where, TimeRange) else []
        events = sa.table(table, sa.column(EVENT_ID), *time)
        # rows that were there before the column was added have no ID
        there = _condition(events, where, self._database.dialect.moment) & events.c[EVENT_ID].is_not(None)
        yield from self._packed(sa.select(events.c[EVENT_ID]).where(there).limit(limit))

    def held(self, table: str, ids: bytes) -> Iterator[bytes]:
        """Those of the packed `ids` that `table` holds, through the key."""
        statement = _HELD.format(table=self._database.engine.dialect.identifier_preparer.quote(table))
        for block in in_packs(ids, IDS_PER_BLOCK):
            with self._database.reading() as connection:
                found = connection.exec_driver_sql(statement, {"ids": block, "count": len(block) // 16})
                yield b"".join(found.scalars())

    def id_sum(self, table: str, ranges: Sequence[IdRange | None]) -> None:
        """SQLite cannot sum IDs."""

    def holdings(self, table: str) -> Iterator[Holdings]:
        """Every row's ID and receipt."""
        events = sa.table(table, sa.column(EVENT_ID), sa.column(RECEIPT))
        found = sa.select(events.c[EVENT_ID], sa.func.coalesce(events.c[RECEIPT], NO_RECEIPT))
        found = found.where(events.c[EVENT_ID].is_not(None))
        with self._database.reading() as connection:
            for block in connection.execution_options(yield_per=IDS_PER_BLOCK).execute(found).partitions():
                ids, receipts = zip(*block, strict=True)
                yield Holdings(b"".join(ids), np.array(receipts, dtype=np.int64))

    def rows(
        self, table: str, columns: pa.Schema, *, ids: Sequence[bytes] | None = None, limit: int | None = None
    ) -> Iterator[HeldRows]:
        """Every row's ID, receipt and `columns`, or those of the events `ids`, or of `limit` rows."""
        names = [EVENT_ID, RECEIPT, *columns.names]
        events = sa.table(table, *map(sa.column, names))
        found = sa.select(*events.c).where(events.c[EVENT_ID].is_not(None)).limit(limit)
        with self._database.reading() as connection:
            for part in [None] if ids is None else in_blocks(ids):
                asked = found if part is None else found.where(events.c[EVENT_ID].in_(part))
                # the driver's own rows: SQLAlchemy would make an object of each
                cursor = connection.execute(asked).cursor
                while cursor is not None and (block := cursor.fetchmany(IDS_PER_BLOCK)):
                    yield rows_of(block, columns)

    def _packed(self, found: sa.Select[Any]) -> Iterator[bytes]:
        with self._database.reading() as connection:
            for block in connection.execution_options(yield_per=IDS_PER_BLOCK).execute(found).scalars().partitions():
                yield b"".join(block)


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


def _condition(
    events: sa.TableClause, where: IdRange | TimeRange | None, moment: Callable[[datetime], object]
) -> sa.ColumnElement[bool]:
    if where is None:
        return sa.true()
    if isinstance(where, IdRange):
        return _between(events.c[EVENT_ID], where.low, where.high)
    column = events.c[where.column]
    edges = [None if edge is None else moment(edge) for edge in (where.low, where.high)]
    return _between(column, *edges) | column.is_(None)


def _between(column: sa.ColumnElement[Any], low: object, high: object) -> sa.ColumnElement[bool]:
    below = sa.true() if low is None else column >= low
    return below if high is None else below & (column < high)
