"""A trial's place beside the real tables: a schema of its own, or an SQLite file.

    postgresql   CREATE SCHEMA headrace_profile_…, which the trial's URL puts on the search path   ─► DROP … CASCADE
    sqlite       .headrace-profile-….db in the folder of the real file                             ─► removed

`Trial.seed` copies some of the real table's events there, so that as many of a sample's events are known in the trial
as in the real table. The real table is only read. A schema whose process was killed is dropped by the next trial: what
tells is an advisory lock that its maker holds, in a transaction, so that a pooler can neither lose nor keep it.
"""

from __future__ import annotations

import sqlite3
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import sqlalchemy as sa
from psycopg import sql

from headrace.errors import ConfigurationError, StoreError
from headrace.storage.postgres.connecting import conninfo_for

__all__ = ["Trial", "trial"]

_SCHEMA = "headrace_profile_"
_FILE = ".headrace-profile-"
Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


class Trial(ABC):
    """A place to load into, at `url`; its connections call themselves `name`."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name

    @abstractmethod
    def seed(self, table: str, ids: Iterable[bytes]) -> int:
        """Make `table` as the real one is, with those of its events whose packed IDs `ids` brings; returns how many."""


@contextmanager
def trial(url: str) -> Iterator[Trial]:
    """A new empty place in the database at `url`, removed afterwards, also after a failure.

    Raises `ConfigurationError` if none may be created, `StoreError` if the database cannot be reached.
    """
    parsed = sa.make_url(url)
    name = f"{_SCHEMA}{uuid.uuid4().hex[:12]}"
    with _file(parsed, name) if parsed.get_backend_name() == "sqlite" else _schema(parsed, name) as place:
        yield place


# PostgreSQL -----------------------------------------------------------------------------------------------------


@contextmanager
def _schema(url: sa.URL, name: str) -> Iterator[Trial]:
    there = _on_path(url, name)
    with _connected(url, name) as keeper, _connected(url, name) as connection, _inside(url, name) as inside:
        connection.autocommit = True
        _require_path(inside, name)
        keeper.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        _lock(keeper, name)
        _drop_abandoned(keeper, connection)
        try:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                "this user may not create a schema for the trial of the load",
                hint="GRANT CREATE ON DATABASE … to this user, or profile the real load with --in-place",
            ) from error
        try:
            yield _SchemaTrial(there, name, connection)
        finally:
            _drop(connection, name)


def _on_path(url: sa.URL, name: str) -> sa.URL:
    given = url.query.get("options", "")
    options = f"{given if isinstance(given, str) else ' '.join(given)} -csearch_path={name}".strip()
    return url.update_query_dict({"options": options, "application_name": name})


def _connected(url: sa.URL, name: str) -> Connection:
    try:
        return psycopg.connect(conninfo_for(url, application_name=name), prepare_threshold=None)
    except psycopg.Error as error:
        raise StoreError(f"the database cannot be reached: {error}", hint="headrace doctor says more") from error


def _inside(url: sa.URL, name: str) -> Connection:
    """A connection on the trial's search path. Raises `ConfigurationError` where only one without a path is granted: a
    pooler may refuse the option.
    """
    try:
        return _connected(_on_path(url, name), name)
    except StoreError as error:
        _connected(url, name).close()
        raise _without_path() from error


def _require_path(connection: Connection, name: str) -> None:
    """Raise `ConfigurationError` where the search path got lost: the trial would go into the real tables."""
    if connection.execute("SELECT current_setting('search_path')").fetchone() != (name,):
        raise _without_path()
    connection.rollback()


def _without_path() -> ConfigurationError:
    return ConfigurationError(
        "the connection drops the option search_path, which separates a trial from the real tables",
        hint="name the server itself instead of its pooler with --to, or profile the real load with --in-place",
    )


class _SchemaTrial(Trial):
    def __init__(self, url: sa.URL, name: str, connection: Connection) -> None:
        super().__init__(url.render_as_string(hide_password=False), name)
        self._connection = connection

    def seed(self, table: str, ids: Iterable[bytes]) -> int:
        here, there = sql.Identifier(table), sql.Identifier(self.name, table)
        self._connection.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(there, here))
        # numbered bytes of 16, so that a block of IDs is one parameter
        copy = sql.SQL(
            "INSERT INTO {} SELECT * FROM {} WHERE event_id IN (SELECT encode(substr(%(ids)s::bytea, 16 * n + 1, 16), "
            "'hex')::uuid FROM generate_series(0, length(%(ids)s::bytea) / 16 - 1) AS n) ON CONFLICT DO NOTHING"
        ).format(there, here)
        seeded = sum(max(0, self._connection.execute(copy, {"ids": block}).rowcount) for block in ids)
        self._connection.execute(sql.SQL("ANALYZE {}").format(there))
        return seeded


def _lock(connection: Connection, name: str) -> bool:
    row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [name]).fetchone()
    return bool(row and row[0])


def _drop(connection: Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def _drop_abandoned(keeper: Connection, connection: Connection) -> None:
    """Drop the schemas of trials whose processes are gone."""
    like = _SCHEMA.replace("_", r"\_") + "%"
    for (name,) in connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE %s", [like]).fetchall():
        if _lock(keeper, str(name)):
            with suppress(psycopg.errors.InsufficientPrivilege):  # another user's
                _drop(connection, str(name))


# SQLite ---------------------------------------------------------------------------------------------------------


@contextmanager
def _file(url: sa.URL, name: str) -> Iterator[Trial]:
    if url.database in (None, "", ":memory:") or str(url.database).startswith("file:"):
        with tempfile.TemporaryDirectory(prefix=_FILE) as folder:
            yield _FileTrial(Path(folder) / "trial.db", name, None)
        return
    real = Path(str(url.database)).absolute()
    path = real.with_name(f"{_FILE}{name.removeprefix(_SCHEMA)}.db")
    try:
        yield _FileTrial(path, name, real)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


class _FileTrial(Trial):
    def __init__(self, path: Path, name: str, real: Path | None) -> None:
        super().__init__(sa.URL.create("sqlite", database=str(path)).render_as_string(), name)
        self._path = path
        self._real = real

    def seed(self, table: str, ids: Iterable[bytes]) -> int:
        quoted = f'"{table.replace(chr(34), chr(34) * 2)}"'
        if self._real is None:
            raise StoreError("a database in memory has nothing to copy from")
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("ATTACH ? AS there", [str(self._real)])
            (made,) = connection.execute(
                "SELECT sql FROM there.sqlite_master WHERE type = 'table' AND name = ?", [table]
            ).fetchone()
            connection.execute(made)
            connection.execute("CREATE TEMP TABLE wanted (event_id BLOB PRIMARY KEY)")
            for block in ids:
                each = [(block[start : start + 16],) for start in range(0, len(block), 16)]
                connection.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", each)
            chosen = f"SELECT * FROM there.{quoted} WHERE event_id IN (SELECT event_id FROM wanted)"  # noqa: S608
            seeded = connection.execute(f"INSERT INTO main.{quoted} {chosen}").rowcount
            connection.commit()
        return seeded
