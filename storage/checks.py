"""What ``headrace doctor`` asks of a database: its clock, and what this user may not do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headrace.storage import ledger
from headrace.storage.schema import LEDGER
from headrace.storage.transactions import Transactions

__all__ = ["Checks"]

# what is done to Headrace's own tables, and to those of events (an update only where revisions are taken in)
_OWN = ("SELECT", "INSERT", "UPDATE")
_EVENTS = ("SELECT", "INSERT")


class Checks(Transactions):
    """The half of a `Store` that a check-up uses; see `headrace.storage.state.ProviderStore`."""

    @abstractmethod
    def _now(self) -> Any:
        """The server's clock."""

    def server_now(self) -> datetime:
        """The time by the database server's clock."""
        now = self._now()  # an expression in PostgreSQL, a value in SQLite
        with self._reading() as connection:
            told = connection.execute(sa.select(now if isinstance(now, sa.ColumnElement) else sa.literal(now)))
            return ledger.moment(told.scalar_one())

    def lacking_privileges(self, tables: Sequence[str]) -> list[str]:
        """What this user lacks to load into `tables` (those that exist), each as ``INSERT on fires``."""
        if self._engine.dialect.name != "postgresql":
            self._write(lambda _: None)  # an SQLite file can be written whole or not at all
            return []
        with self._reading() as connection:
            may_create = sa.func.has_schema_privilege(sa.func.current_schema(), "CREATE")
            lacking = [] if connection.execute(sa.select(may_create)).scalar() else ["CREATE on the schema"]
            for table in [*LEDGER.tables, *tables]:
                lacking += self._lacking_on(connection, table, _OWN if table in LEDGER.tables else _EVENTS)
        return lacking

    def _lacking_on(self, connection: sa.Connection, table: str, wanted: Sequence[str]) -> list[str]:
        quoted = self._engine.dialect.identifier_preparer.quote(table)
        there = sa.func.to_regclass(quoted).is_not(None)
        held = [sa.case((there, sa.func.has_table_privilege(quoted, one)), else_=True) for one in wanted]
        found = connection.execute(sa.select(*held)).one()
        return [f"{one} on {table}" for one, may in zip(wanted, found, strict=True) if not may]
