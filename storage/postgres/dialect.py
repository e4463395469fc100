"""What PostgreSQL says in ways of its own (`headrace.storage.sql.database.SqlDialect`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

__all__ = ["PostgresDialect"]

# One lock for all changes of tables by Headrace: "headrace" in ASCII, as a 64-bit key.
DDL_LOCK = int.from_bytes(b"headrace", "big", signed=True)
_INDEX = sa.text("SELECT 1 FROM pg_class WHERE relname = :name AND pg_table_is_visible(oid)")
_ASKED = sa.text("SELECT version(), now(), current_setting('synchronous_commit'), current_setting('fsync')")


class PostgresDialect:
    """PostgreSQL 12 or newer."""

    def now(self) -> Any:
        """The server's clock."""
        return sa.func.now()

    def later(self, seconds: float) -> Any:
        """The server's clock in `seconds`."""
        return sa.func.now() + timedelta(seconds=seconds)

    def moment(self, moment: datetime) -> datetime:
        """`moment` itself: its columns know zones."""
        return moment

    def event_id(self, event_id: bytes) -> Any:
        """A packed ID as a UUID."""
        return sa.cast(UUID(bytes=event_id), sa.Uuid())

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that can have an ON CONFLICT."""
        return postgresql.insert(table)

    def exclusive(self, connection: sa.Connection) -> None:
        """Wait for the one lock for all changes of tables."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(DDL_LOCK)))

    def has_index(self, connection: sa.Connection, name: str) -> bool:
        """Whether anything has this name: indexes and tables share theirs."""
        return connection.execute(_INDEX, {"name": name}).first() is not None

    def describe(self, connection: sa.Connection, url: str) -> dict[str, str]:
        """Version, clock and durability of the server."""
        version, now, commit, fsync = connection.execute(_ASKED).one()
        skew = (datetime.now(UTC) - now).total_seconds()
        return {
            "database": f"{url} answers: {version.split(',')[0]}",
            "clock": f"the server's differs from this machine's by {abs(skew):.1f} s (windows go by the server's)",
            "durability": f"synchronous_commit {commit}, fsync {fsync}",
        }
