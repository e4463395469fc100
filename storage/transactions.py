"""Transactions on one database: those that only read, and those that write and are run again when a failure passes.

What passes (serialization failure, deadlock, a table's lock, a lost connection, a locked file) is told by the type that
`headrace.storage.failures` gives it. Each try is a new transaction, on a new connection where the old one is gone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import sqlalchemy as sa

from headrace.errors import RetryableStoreError, StoreError
from headrace.storage.base import StatementHook
from headrace.storage.failures import translated

__all__ = ["READING", "TRIES", "Transactions", "in_blocks"]

TRIES = 6
FIRST_PAUSE = 0.05  # seconds, doubled with each try and jittered
# PostgreSQL takes 65,535 parameters in a statement, SQLite 32,766 or what it was built with
IDS_IN_A_STATEMENT = 10_000
READING = "headrace_reading"  # the execution option that marks a transaction that only reads
T = TypeVar("T")


class Transactions:
    """An engine, the URL that may be shown, and the hook that hears every statement."""

    def __init__(self, engine: sa.Engine, url: str, on_statement: StatementHook | None) -> None:
        self._engine = engine
        self._url = url
        self._on_statement = on_statement
        sa.event.listen(engine, "before_cursor_execute", self._before_execute)

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
        """`_retried` for who does not ask how often."""
        return self._retried(work, table)[0]

    def _retried(
        self,
        work: Callable[[sa.Connection], T],
        table: str | None,
        begun: Callable[[], AbstractContextManager[sa.Connection]] | None = None,
    ) -> tuple[T, int]:
        """Run `work` in a transaction of its own (as `begun` begins it), and again whole while the failure may pass.

        Returns what `work` returned and how often it had to be run again. `work` must be safe to run again after a
        COMMIT whose answer was lost.
        """
        where = self._url if table is None else f"{self._url}, table {table}"
        for attempt in range(TRIES):
            try:
                with translated(where), (begun or self._engine.begin)() as connection:
                    return work(connection), attempt
            except RetryableStoreError as error:
                if attempt == TRIES - 1:
                    error.add_note(f"given up after {TRIES} tries")
                    raise
                # jitter keeps loaders that collided from colliding again; nothing secret hangs on it
                time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
        raise StoreError("unreachable: the last try either returns or raises")

    def _before_execute(self, *event: Any) -> None:
        self._say(event[2])

    def _say(self, statement: str) -> None:
        if self._on_statement is not None:
            self._on_statement(statement)


def in_blocks(ids: Sequence[int]) -> Sequence[Sequence[int]]:
    """`ids` in blocks that fit into one statement's parameters."""
    return [ids[start : start + IDS_IN_A_STATEMENT] for start in range(0, len(ids), IDS_IN_A_STATEMENT)]
