"""What SQLite says in ways of its own (`headrace.storage.sql.database.SqlDialect`)."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

__all__ = ["SqliteDialect"]

_INDEX = sa.text("SELECT 1 FROM sqlite_master WHERE name = :name COLLATE NOCASE")


class SqliteDialect:
    """SQLite 3.35 or newer."""

    def now(self) -> Any:
        """The clock of this machine: SQLite has no server."""
        return self.later(0.0)

    def later(self, seconds: float) -> Any:
        """The clock of this machine in `seconds`."""
        return self.moment(datetime.now(UTC) + timedelta(seconds=seconds))

    def moment(self, moment: datetime) -> str:
        """`moment` as UTC text, which sorts as the times do."""
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")

    def event_id(self, event_id: bytes) -> Any:
        """A packed ID as it is: a BLOB."""
        return event_id

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that can have an ON CONFLICT."""
        return sqlite.insert(table)

    def exclusive(self, connection: sa.Connection) -> None:
        """BEGIN IMMEDIATE holds the only write lock already."""

    def has_index(self, connection: sa.Connection, name: str) -> bool:
        """Whether anything has this name, in whatever case."""
        return connection.execute(_INDEX, {"name": name}).first() is not None

    def describe(self, connection: sa.Connection, url: str) -> dict[str, str]:
        """Version and durability of the file."""
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return {
            "database": f"{url} opens: SQLite {sqlite3.sqlite_version}",
            "clock": "this machine's (SQLite has no server)",
            "durability": f"journal_mode {journal}, synchronous FULL",
        }
