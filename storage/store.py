"""A store: one database, and the parts that are over it.

    store.events      commits slices; which IDs and rows a table holds      by each database in its own way
    store.tables      what tables are like; makes and widens them ┐
    store.ledger      contracts, runs, receipts                   │
    store.outbox      alerts                                      ├─ the same text on PostgreSQL and SQLite
    store.rejects     rows that could not be loaded               │
    store.providers   the state of providers between two polls    │
    store.checks      the queries of a check-up                   ┘

Every method of a part raises `headrace.errors.StoreError` (final) or `RetryableStoreError`; `SchemaError` where noted.
"""

from __future__ import annotations

from typing import Self

from headrace.storage.events import Events
from headrace.storage.records import RECEIPT, Origin
from headrace.storage.sql.database import Database
from headrace.storage.sql.doctor import Checks
from headrace.storage.sql.ledger import Ledger
from headrace.storage.sql.outbox import Outbox
from headrace.storage.sql.providers import Providers
from headrace.storage.sql.rejects import Rejects
from headrace.storage.sql.tables import Tables

__all__ = ["Store"]


class Store:
    """A database that keeps events, ledger, rejects, alerts and providers. It serves one thread at a time."""

    def __init__(self, database: Database, tables: Tables, events: Events) -> None:
        self.database = database
        self.tables = tables
        self.events = events
        self.ledger = Ledger(database)
        self.outbox = Outbox(database)
        self.rejects = Rejects(database)
        self.providers = Providers(database)
        self.checks = Checks(database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The database's URL without its password, fit for logs."""
        return self.database.url

    def close(self) -> None:
        """Release every connection. Idempotent."""
        self.database.close()

    def is_in_place(self) -> bool:
        """Whether the database at the URL is the one that was opened: a file may have been removed or replaced.

        No statement.
        """
        return self.database.is_in_place()

    def origin(self, table: str, event_id: bytes) -> Origin | None:
        """The event's row, and the receipt and run that brought it."""
        row = self.tables.row(table, event_id)
        if row is None:
            return None
        number = row[RECEIPT]
        receipt = self.ledger.receipt(number) if isinstance(number, int) else None
        return Origin(row, receipt, None if receipt is None else self.ledger.run(receipt.run_id))
