"""The `Store` protocol and its two databases. `open_store` chooses the database by the URL."""

from __future__ import annotations

import sqlalchemy as sa

from headrace.errors import ConfigurationError
from headrace.storage.interface import StatementHook
from headrace.storage.postgres.store import PostgresStore
from headrace.storage.providers import ProviderStore
from headrace.storage.sqlite.store import SqliteStore

__all__ = ["open_store", "safe_url"]

_EXAMPLES = "postgresql://user@host/database or sqlite:///file.db"


def open_store(url: str, *, on_statement: StatementHook | None = None) -> ProviderStore:
    """Open the database at `url` (SQLAlchemy's form); `on_statement` sees the text of every statement.

    Raises `ConfigurationError` for a URL that names no such database, `StoreError` if it cannot be opened.
    """
    parsed = _parse(url)
    dialect = parsed.get_backend_name()
    if dialect in ("postgresql", "postgres"):
        return PostgresStore(parsed, safe_url(url), on_statement)
    if dialect == "sqlite":
        return SqliteStore(parsed, safe_url(url), on_statement)
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
