"""One database: its engine, its transactions, and the hook that is called with every statement. Each part of a store
uses it.

    reading()   a transaction that only reads
    write()     a transaction that writes, and is run again whole while its failure may pass

Temporary failures (serialization failure, deadlock, a table's lock, a lost connection, a locked file) have a type that
`headrace.storage.sql.failures` gives them. Each attempt is a new transaction, on a new connection if the old one is
lost.

A conflict is tried `TRIES` times. Headrace waits `SERVER_AWAY` seconds for a server that is away, long enough for it to
restart and recover: the rows of the slice are in memory, and giving up would cost reading them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from headrace.errors import ConnectionLostError, RetryableStoreError
from headrace.storage.records import StatementHook
from headrace.storage.spans import Stopwatch
from headrace.storage.sql.failures import translated
from headrace.storage.sql.retry import RetryPolicy

__all__ = ["READING", "Database", "SqlDialect", "in_blocks", "in_packs"]

# PostgreSQL takes 65,535 parameters in a statement, SQLite 32,766 or what it was built with
IDS_IN_A_STATEMENT = 10_000
READING = "headrace_reading"  # the execution option that marks a transaction that only reads
T = TypeVar("T")
K = TypeVar("K")
Begun = TypeVar("Begun")


class SqlDialect(Protocol):
    """What PostgreSQL and SQLite say in ways of their own, for statements that are otherwise the same text."""

    def now(self) -> Any:
        """The server's clock, as a value or an SQL expression that goes into a timestamp column."""

    def later(self, seconds: float) -> Any:
        """The server's clock in `seconds`, likewise."""

    def moment(self, moment: datetime) -> datetime | str:
        """`moment` as a timestamp column keeps it."""

    def event_id(self, event_id: bytes) -> Any:
        """A packed ID as a value to compare a column of IDs with."""

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that can have an ON CONFLICT."""

    def exclusive(self, connection: sa.Connection) -> None:
        """Keep other processes from changing tables until the transaction of `connection` ends."""

    def has_index(self, connection: sa.Connection, name: str) -> bool:
        """Whether a new index cannot have this name."""

    def describe(self, connection: sa.Connection, url: str) -> dict[str, str]:
        """Facts for ``headrace doctor``: server version, clock, durability settings."""


class Database:
    """An engine, the `url` that may be shown, the dialect, and the hook that hears every statement.

    `is_in_place` says whether the database at the URL is the one that was opened: a file may have been removed or
    replaced. It sends no statement.
    """

    def __init__(
        self,
        engine: sa.Engine,
        url: str,
        dialect: SqlDialect,
        on_statement: StatementHook | None = None,
        is_in_place: Callable[[], bool] = lambda: True,
    ) -> None:
        self.engine = engine
        self.url = url
        self.dialect = dialect
        self.is_in_place = is_in_place
        self._on_statement = on_statement
        self._lost = False
        sa.event.listen(engine, "before_cursor_execute", self._before_execute)
        # the pool replaces a connection that it finds dead, and no statement fails
        sa.event.listen(engine, "invalidate", self._note_loss)

    def close(self) -> None:
        """Release every connection. Idempotent."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with translated(self.url), self.engine.connect() as connection:
            reader = connection.execution_options(**{READING: True})
            with reader.begin():
                yield reader

    def write(self, work: Callable[[sa.Connection], T], table: str | None = None) -> T:
        """What `work` gives, in a transaction that is run again as `retried` says."""
        return self.retried(self.engine.begin, work, table)[0]

    def retried(
        self,
        begin: Callable[[], AbstractContextManager[Begun]],
        work: Callable[[Begun], T],
        table: str | None,
        watch: Stopwatch | None = None,
    ) -> tuple[T, int]:
        """Run `work` in the transaction that `begin` begins, and again whole while the failure may pass.

        Returns the result of `work`, and how often the transaction failed before.

        `work` must be safe to run again after a COMMIT whose answer was lost.
        """
        where = self.url if table is None else f"{self.url}, table {table}"
        retries = RetryPolicy()
        while True:
            try:
                with translated(where), begin() as begun:
                    value = work(begun)
            except RetryableStoreError as error:
                if not retries.allows(error):
                    error.add_note(f"given up after {retries.failures} tries")
                    raise
                if isinstance(error, ConnectionLostError):
                    self._lost = True
                    # a session that began while the server was read-only may stay so
                    self.engine.dispose()
                with (watch or Stopwatch()).stage("commit.pause"):
                    time.sleep(retries.pause())
            else:
                return value, retries.failures

    def lost_since(self) -> bool:
        """Whether a connection was lost since the last call."""
        lost, self._lost = self._lost, False
        return lost

    def say(self, statement: str) -> None:
        """Call the hook with a statement that does not go through SQLAlchemy, just before it is sent."""
        if self._on_statement is not None:
            self._on_statement(statement)

    def _note_loss(self, _driver: object, _record: object, error: BaseException | None) -> None:
        self._lost = self._lost or error is not None

    def _before_execute(self, *event: Any) -> None:
        self.say(event[2])


def in_blocks(ids: Sequence[K]) -> Sequence[Sequence[K]]:
    """`ids` in blocks that fit into one statement's parameters."""
    return [ids[start : start + IDS_IN_A_STATEMENT] for start in range(0, len(ids), IDS_IN_A_STATEMENT)]


def in_packs(ids: bytes, size: int) -> Iterator[bytes]:
    """Packed IDs, `size` of them at a time."""
    for start in range(0, len(ids), 16 * size):
        yield ids[start : start + 16 * size]
