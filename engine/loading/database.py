"""Opening an existing database, for the commands that only read: none of them creates a database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from headrace.errors import ConfigurationError
from headrace.options.load import DEFAULT_FILE
from headrace.storage import open_store, safe_url
from headrace.storage.sqlite.file_place import file_of
from headrace.storage.store import Store

__all__ = ["is_there", "open_existing", "remove_if_empty"]


def open_existing(url: str) -> Store:
    """The database at `url` with its ledger. Raises `ConfigurationError` if there is none, `StoreError` otherwise."""
    if not is_there(url):
        raise ConfigurationError(
            "there is no such database",
            where=safe_url(url),
            hint=f"check --to and HEADRACE_DATABASE_URL{_of_the_file()}; `headrace load` creates a database",
        )
    store = open_store(url)
    try:
        store.ledger.prepare()
    except BaseException:
        store.close()
        raise
    return store


def _of_the_file() -> str:
    there = Path(DEFAULT_FILE).exists()
    return f" ({DEFAULT_FILE} may name another: only `headrace run` and `doctor --config` read it)" if there else ""


def remove_if_empty(url: str) -> None:
    """Remove the SQLite file that opening `url` created, if it is still empty: a refused load changes nothing."""
    path = file_of(sa.make_url(url))
    if path is None or not path.is_file():
        return
    with closing(sqlite3.connect(path)) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            return
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def is_there(url: str) -> bool:
    """Whether the database at `url` exists: opening it would not create an SQLite file."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return True  # `open_store` says what is wrong with it
    if parsed.get_backend_name() != "sqlite":
        return True
    file = file_of(parsed)
    return file is None or file.exists()
