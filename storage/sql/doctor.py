"""The queries of ``headrace doctor``: the database's clock, and the privileges that this user lacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from headrace.storage.sql import ledger_rows
from headrace.storage.sql.database import Database
from headrace.storage.sql.schema import ALERTS, LEDGER

__all__ = ["Checks"]

# what is done to Headrace's own tables, and to those of events; and where revisions take an event's row
_OWN = ("SELECT", "INSERT", "UPDATE")
_EVENTS = ("SELECT", "INSERT")
_REVISED = (*_EVENTS, "UPDATE")


class Checks:
    """The part of a store that a check-up uses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> dict[str, str]:
        """Facts for ``headrace doctor``: server version, clock, durability settings."""
        with self._database.reading() as connection:
            return self._database.dialect.describe(connection, self._database.url)

    def server_now(self) -> datetime | None:
        """The time by the database server's clock; ``None`` for SQLite, which has no server."""
        if self._database.engine.dialect.name != "postgresql":
            return None
        with self._database.reading() as connection:
            return ledger_rows.moment(connection.execute(sa.select(self._database.dialect.now())).scalar_one())

    def lacking_privileges(
        self, tables: Sequence[str], revised: Sequence[str] = (), *, prunes: bool = False
    ) -> list[str]:
        """What this user lacks to load into `tables` and to revise those of `revised` (those that exist), and to
        prune alerts, each as ``INSERT on fires``.
        """
        if self._database.engine.dialect.name != "postgresql":
            self._database.write(lambda _: None)  # an SQLite file can be written whole or not at all
            return []
        with self._database.reading() as connection:
            may_create = sa.func.has_schema_privilege(sa.func.current_schema(), "CREATE")
            lacking = [] if connection.execute(sa.select(may_create)).scalar() else ["CREATE on the schema"]
            for table in LEDGER.tables:
                pruned = prunes and table == ALERTS.name
                lacking += self._lacking_on(connection, table, (*_OWN, "DELETE") if pruned else _OWN)
            for table in tables:
                lacking += self._lacking_on(connection, table, _REVISED if table in revised else _EVENTS)
        return lacking

    def _lacking_on(self, connection: sa.Connection, table: str, wanted: Sequence[str]) -> list[str]:
        quoted = self._database.engine.dialect.identifier_preparer.quote(table)
        there = sa.func.to_regclass(quoted).is_not(None)
        held = [sa.case((there, sa.func.has_table_privilege(quoted, one)), else_=True) for one in wanted]
        found = connection.execute(sa.select(*held)).one()
        return [f"{one} on {table}" for one, may in zip(wanted, found, strict=True) if not may]
