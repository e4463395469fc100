"""Transactions on one database: those that only read, and those that write and are run again when a failure passes.

What passes (serialization failure, deadlock, a table's lock, a lost connection, a locked file) is told by the type that
`headrace.storage.sql.failures` gives it. Each try is a new transaction, on a new connection where the old one is gone.

A conflict is tried `TRIES` times. A server that is away is waited for `SERVER_AWAY` seconds, long enough for it to
restart and recover: the rows of the slice are in hand, and giving up would cost reading them again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import sqlalchemy as sa

from headrace.errors import ConnectionLostError, RetryableStoreError
from headrace.storage.interface import StatementHook
from headrace.storage.spans import Stopwatch
from headrace.storage.sql.failures import translated

__all__ = ["READING", "SERVER_AWAY", "TRIES", "Transactions", "in_blocks"]

TRIES = 6
SERVER_AWAY = 30.0  # seconds, from the first failure of a transaction on
FIRST_PAUSE = 0.05  # seconds, doubled with each try and jittered
LONGEST_PAUSE = 2.0  # seconds, before jitter
# PostgreSQL takes 65,535 parameters in a statement, SQLite 32,766 or what it was built with
IDS_IN_A_STATEMENT = 10_000
READING = "headrace_reading"  # the execution option that marks a transaction that only reads
T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Retried(Generic[T]):
    """What a transaction came to: its result, and how often it had to be run again."""

    value: T
    failures: int


class Transactions:
    """An engine, the URL that may be shown, the hook that hears every statement, the watch of the commit in hand."""

    def __init__(self, engine: sa.Engine, url: str, on_statement: StatementHook | None) -> None:
        self._engine = engine
        self._url = url
        self._on_statement = on_statement
        self._watch = Stopwatch()
        self._lost = False
        sa.event.listen(engine, "before_cursor_execute", self._before_execute)
        # the pool replaces a connection that it finds dead, and no statement fails
        sa.event.listen(engine, "invalidate", self._note_loss)

    @property
    def url(self) -> str:
        """The database's URL without its password."""
        return self._url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release every connection. Idempotent."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with translated(self._url), self._engine.connect() as connection:
            reader = connection.execution_options(**{READING: True})
            with reader.begin():
                yield reader

    def _write(self, work: Callable[[sa.Connection], T], table: str | None = None) -> T:
        """`_retried` for callers that do not need the number of retries."""
        return self._retried(work, table).value

    def _retried(
        self,
        work: Callable[[sa.Connection], T],
        table: str | None,
        begun: Callable[[], AbstractContextManager[sa.Connection]] | None = None,
    ) -> Retried[T]:
        """Run `work` in a transaction of its own (as `begun` begins it), and again whole while the failure may pass.

        `work` must be safe to run again after a
        COMMIT whose answer was lost.
        """
        where = self._url if table is None else f"{self._url}, table {table}"
        patience = _Patience()
        while True:
            try:
                with translated(where), (begun or self._engine.begin)() as connection:
                    value = work(connection)
                return Retried(value, patience.failures)
            except RetryableStoreError as error:
                if not patience.allows(error):
                    error.add_note(f"given up after {patience.failures} tries")
                    raise
                if isinstance(error, ConnectionLostError):
                    self._lost = True
                    # a session that began while the server was read-only may stay so
                    self._engine.dispose()
                with self._watch.stage("commit.pause"):
                    time.sleep(patience.pause())

    def _lost_since(self) -> bool:
        """Whether a connection was lost since this was last asked."""
        lost, self._lost = self._lost, False
        return lost

    def _note_loss(self, _driver: object, _record: object, error: BaseException | None) -> None:
        self._lost = self._lost or error is not None

    def _before_execute(self, *event: Any) -> None:
        self._say(event[2])

    def _say(self, statement: str) -> None:
        if self._on_statement is not None:
            self._on_statement(statement)


class _Patience:
    """How long one transaction is tried again."""

    def __init__(self) -> None:
        self.failures = 0
        self._conflicts = 0
        self._away_since: float | None = None

    def allows(self, error: RetryableStoreError) -> bool:
        """Count a failure; returns whether to try again."""
        self.failures += 1
        if isinstance(error, ConnectionLostError):
            self._away_since = self._away_since or time.monotonic()
            return time.monotonic() - self._away_since < SERVER_AWAY
        self._conflicts += 1
        return self._conflicts < TRIES

    def pause(self) -> float:
        """Seconds until the next try."""
        pause = min(FIRST_PAUSE * 2 ** (self.failures - 1), LONGEST_PAUSE)
        # jitter keeps loaders that collided from colliding again; nothing secret hangs on it
        return float(pause * random.uniform(0.5, 1.5))  # noqa: S311


def in_blocks(ids: Sequence[K]) -> Sequence[Sequence[K]]:
    """`ids` in blocks that fit into one statement's parameters."""
    return [ids[start : start + IDS_IN_A_STATEMENT] for start in range(0, len(ids), IDS_IN_A_STATEMENT)]
