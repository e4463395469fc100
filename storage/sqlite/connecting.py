"""Opening an SQLite file: one writer at a time, WAL so that readers never wait.

Each commit is one ``BEGIN IMMEDIATE`` transaction: from its first statement on no other process can write.
``synchronous=FULL``: a completed commit survives a power loss if the disk really stores what it confirms.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import sqlalchemy as sa

from headrace.errors import StoreError
from headrace.storage.records import StatementHook
from headrace.storage.sql.database import READING, Database
from headrace.storage.sql.failures import is_busy, translated
from headrace.storage.sqlite.dialect import SqliteDialect
from headrace.storage.sqlite.file_place import PlacedFile, file_of, in_memory
from headrace.storage.value_text import SORTED_FORMS

__all__ = ["BUSY_SECONDS", "sqlite_database"]

OLDEST = (3, 35, 0)  # RETURNING
BUSY_SECONDS = 30.0
SECONDS_BETWEEN_TRIES = 0.01
FILE = "headrace_file"  # where the pool keeps which file a connection is to


def sqlite_database(url: sa.URL, shown: str, on_statement: StatementHook | None) -> Database:
    """The database in the file at `url`, which is opened now: one that cannot be is said at once.

    Raises `StoreError`.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        raise StoreError(
            f"this Python has SQLite {sqlite3.sqlite_version}, Headrace needs {'.'.join(map(str, OLDEST))}",
            hint="use a newer Python, or PostgreSQL with --to postgresql://…",
        )
    engine = sa.create_engine(
        url.set(drivername="sqlite+pysqlite"),
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        # an in-memory database lives as long as its one connection
        poolclass=sa.StaticPool if in_memory(url) else sa.QueuePool,
        hide_parameters=True,  # a traceback is no place for the user's rows
    )
    file = _OpenedFile(file_of(url))
    sa.event.listen(engine, "connect", partial(_prepare_connection, shown))
    sa.event.listen(engine, "connect", file.note)
    sa.event.listen(engine, "checkout", _require_file)
    sa.event.listen(engine, "begin", _begin)
    database = Database(engine, shown, SqliteDialect(), on_statement, file.is_in_place)
    with database.reading():
        pass
    return database


class _OpenedFile:
    """The file at `path` (``None``: in memory) as it was when a connection to it was opened last."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: PlacedFile | None = None

    def note(self, _driver: object, record: sa.pool.ConnectionPoolEntry) -> None:
        """A connection was opened."""
        self._file = record.info[FILE] = None if self._path is None else PlacedFile.at(self._path)

    def is_in_place(self) -> bool:
        """Whether the path still leads to the opened file."""
        return self._file is None or self._file.is_in_place()


def _require_file(_driver: object, record: sa.pool.ConnectionPoolEntry, _proxy: object) -> None:
    """Have the pool open the file anew if another has come to its place."""
    file = record.info[FILE]
    if file is not None and not file.is_in_place():
        raise sa.exc.DisconnectionError("the file was removed or replaced")


def _prepare_connection(shown: str, connection: sqlite3.Connection, _record: object) -> None:
    # transactions are begun by `_begin`, not by the driver's guess at which statement writes
    connection.isolation_level = None
    with translated(shown):
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        for name, form in SORTED_FORMS.items():
            connection.create_function(name, 1, form, deterministic=True)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL, again while another process does the same: there SQLite's own timeout does not help."""
    until = monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or monotonic() > until:
                raise
            sleep(SECONDS_BETWEEN_TRIES)
        else:
            return


def _begin(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get(READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
