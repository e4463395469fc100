"""The `Store` and its two databases. `open_store` chooses the database by the URL."""

from __future__ import annotations

import sqlalchemy as sa

from headrace.errors import ConfigurationError
from headrace.storage.postgres.catalogue import PostgresCatalogue
from headrace.storage.postgres.connecting import postgres_database
from headrace.storage.postgres.events import PostgresEvents
from headrace.storage.records import StatementHook
from headrace.storage.sql.tables import Tables
from headrace.storage.sqlite.catalogue import SqliteCatalogue
from headrace.storage.sqlite.connecting import sqlite_database
from headrace.storage.sqlite.events import SqliteEvents
from headrace.storage.store import Store

__all__ = ["open_store", "safe_url"]

_EXAMPLES = "postgresql://user@host/database or sqlite:///file.db"


def open_store(url: str, *, on_statement: StatementHook | None = None) -> Store:
    """Open the database at `url` (SQLAlchemy's form); `on_statement` sees the text of every statement.

    Raises `ConfigurationError` for a URL that names no such database, `StoreError` if it cannot be opened.
    """
    parsed = _parse(url)
    dialect = parsed.get_backend_name()
    if dialect in ("postgresql", "postgres"):
        server = postgres_database(parsed, safe_url(url), on_statement)
        look = PostgresCatalogue(server.say)
        return Store(server, Tables(server, look), PostgresEvents(server, look))
    if dialect == "sqlite":
        file, pragmas = sqlite_database(parsed, safe_url(url), on_statement), SqliteCatalogue()
        return Store(file, Tables(file, pragmas), SqliteEvents(file, pragmas))
    raise ConfigurationError(f"Headrace does not write to {dialect!r}", hint=f"it writes to {_EXAMPLES}")


def safe_url(url: str) -> str:
    """`url` without its password, wherever the URL carries it: fit for logs and messages."""
    try:
        parsed = _parse(url)
    except ConfigurationError:
        return "the database URL"
    return (
        parsed._replace(password=None)
        .difference_update_query(["password", "sslpassword", "passfile"])
        .render_as_string()
    )


def _parse(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        # the text itself is not repeated: it may hold a password
        raise ConfigurationError("the database URL cannot be read", hint=f"for example {_EXAMPLES}") from None
