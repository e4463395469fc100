"""The transaction of one slice as `headrace.storage.sql.commit` drives it; each database has one of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, TypeAlias

import pyarrow as pa
import sqlalchemy as sa

from headrace.storage.records import Slice
from headrace.storage.spans import Stopwatch
from headrace.storage.sql.database import Database
from headrace.storage.sql.facts import Facts
from headrace.storage.sql.revise import Aside

__all__ = ["NO_FACTS", "Begin", "Claimed", "SliceTransaction", "Written"]


class Written(NamedTuple):
    """What became of a slice's events; `inserted` are packed IDs, ``None`` when all of them went in."""

    path: Literal["fast", "safe", "none"]
    inserted: bytes | None


class Claimed(NamedTuple):
    """The slice's receipt, ``None`` where that is taken, and the seconds that its locks were waited for."""

    receipt_id: int | None
    waited: float = 0.0


NO_FACTS = Facts({})


class SliceTransaction(ABC):
    """A transaction that has begun, to commit `piece` over `connection`; `watch` measures its stages.

    `facts` are what the table is like, from `claim` on. `where` names the database and the table in errors.
    """

    def __init__(self, connection: sa.Connection, piece: Slice, watch: Stopwatch, database: Database) -> None:
        self.connection = connection
        self.piece = piece
        self.watch = watch
        self.facts = NO_FACTS
        self.where = f"{database.url}, table {piece.table}"

    @abstractmethod
    def claim(self, receipt: Any) -> Claimed:
        """Keep the table as it is until the transaction ends, insert the `receipt`, take the slice's locks, and learn
        what the table is like now.
        """

    @abstractmethod
    def write_events(self, receipt_id: int) -> Written:
        """Write the slice's events under their receipt."""

    @abstractmethod
    def put_repeats_aside(self, aside: Aside) -> sa.TableClause:
        """Make a temporary table with the rows of `aside`, its columns of the types that the event table has."""

    @abstractmethod
    def insert_alerts(self, alerts: pa.RecordBatch) -> int:
        """Insert rows of ``headrace_alerts`` whose keys are not there yet; returns how many those were."""

    @abstractmethod
    def insert_rejects(self, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows of ``headrace_rejects``."""

    @abstractmethod
    def prove(self, written: Written, receipt_id: int) -> None:
        """Raise `StoreError` unless the table has every event of the slice as it was sent."""

    @abstractmethod
    def complete(self, books: sa.Update) -> None:
        """Write the receipt's books, and COMMIT."""


Begin: TypeAlias = Callable[[Slice, Stopwatch], AbstractContextManager[SliceTransaction]]
"""Begins the transaction of a slice; one that was not completed when the context ends is rolled back."""
