"""Database errors as Headrace's errors: final or retryable by type and SQLSTATE, never by the message's text."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc

from headrace.errors import (
    ConnectionLostError,
    HeadraceError,
    RefusedStoreError,
    RetryableStoreError,
    StoreError,
)
from headrace.storage.sql.numbers import NUMBERED, NumberTakenError

__all__ = ["is_busy", "refused", "translated"]

# PostgreSQL, appendix A of its manual: serialization failure, deadlock, lock not available, and what a slow moment or a
# person ends: a statement (timeout or cancel), a transaction
_PASSING_STATES = {"40001", "40P01", "55P03", "57014", "25P04"}
# a server going down or coming up, too many connections, a session or a transaction that it thought idle, an outcome
# that is not known, and the class of lost connections; one that may only be read: a standby that is about to take over
_AWAY_STATES = {"57P01", "57P02", "57P03", "53300", "57P05", "25P03", "40003", "25006"}
_AWAY_CLASS = "08"
# no such table, column, schema or database, no privilege, no such user: a statement that waiting makes no better
_REFUSED_CLASSES = ("42", "3F", "3D", "28")
_UNIQUE = "23505"
_NUMBERS = {(table.name, f"{table.name}_pkey") for table in NUMBERED}
_SQLITE_KINDS = {
    **dict.fromkeys((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), RetryableStoreError),
    **dict.fromkeys((sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT), RefusedStoreError),
}
_PRIMARY_CODE = 0xFF  # SQLite's extended result codes carry the primary one in the low byte

_HINTS = {
    "25006": "the server accepts no writes: it is a standby, or default_transaction_read_only is on for this user or "
    "database; when it accepts writes, run the same command again to resume",
    "25P03": "idle_in_transaction_session_timeout ended the session; raise it for this user, or lower --chunk-rows",
    "25P04": "transaction_timeout ended the transaction; raise it for this user, or lower --chunk-rows",
    "57014": "statement_timeout or a user ended the statement; raise it for this user, or lower --chunk-rows; "
    "the same command again resumes",
    "57P05": "idle_session_timeout ended the session; run the same command again to resume",
    "2200H": "raise the sequence's MAXVALUE, then run the same command again to resume",
    "42P01": "it was dropped, renamed or moved to a schema outside the search_path: put it back, or run the same "
    "command again, which makes it anew",
    "42501": "the user lacks a privilege: it must create tables and insert into them",
    "53100": "the server's disk is full: free space, then run the same command again to resume",
    "P0001": "a trigger or function in the database raised this: mend it, or leave such rows out with --select, then "
    "run the same command again to resume",
    "55P03": "another session holds a lock; run the same command again to resume",
}
_CONSTRAINT = "{} refuses a row: leave such rows out or correct them with --select, or change the constraint"
_CONSTRAINTS = {
    "23502": "a column that may not be null",
    "23503": "a foreign key",
    "23505": "another unique key than that of event_id",
    "23514": "a CHECK constraint",
    "23P01": "an exclusion constraint",
}
_SQLITE_CONSTRAINTS = {
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "a column that may not be null",
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "a foreign key",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "another unique key than that of event_id",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "another unique key than that of event_id",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "a CHECK constraint",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "a trigger",
}
_SQLITE_HINTS = {
    sqlite3.SQLITE_BUSY: "another process is writing to this file; run the same command again to resume",
    sqlite3.SQLITE_CANTOPEN: "does its folder exist, and may you write there?",
    sqlite3.SQLITE_NOTADB: "this file is not an SQLite database: name another with --to sqlite:///FILE",
    sqlite3.SQLITE_READONLY: "this file or its folder may not be written",
    sqlite3.SQLITE_FULL: "the disk is full: free space, then run the same command again to resume",
}
_REFUSED = "does the database exist (createdb NAME), and are user and password right? See HEADRACE_DATABASE_URL"
_UNREACHABLE = "is the server running, and are host and port right?"
_RESUME = "when it is reachable, run the same command again to resume"


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise the database's errors inside as `StoreError` or `RetryableStoreError` at `where` (a URL or a table)."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, psycopg.Error, sqlite3.Error) as error:
        raise _translate(error, where) from error


def _translate(error: Exception, where: str) -> HeadraceError:
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None else error
    if isinstance(cause, psycopg.Error):
        return _from_postgres(cause, where)
    if isinstance(cause, sqlite3.Error):
        return _from_sqlite(cause, where)
    return StoreError(f"the database layer failed: {cause}", where=where)


def _from_postgres(error: psycopg.Error, where: str) -> HeadraceError:
    state = error.sqlstate
    what = (error.diag.message_primary or str(error)).strip()
    # a context says which column a COPY was at
    said = [part.replace("\n", "; ") for part in (error.diag.message_detail, error.diag.context) if part]
    what = f"{what} ({'; '.join(said)})" if said else what
    kind = _kind_of(error, state)
    hint = _hint(state or "", error.diag.constraint_name or error.diag.column_name)
    if hint is None and issubclass(kind, RetryableStoreError):
        hint = _RESUME
    return kind(f"PostgreSQL reports: {what}", where=where, hint=hint)


def _hint(state: str, name: str | None) -> str | None:
    if state in _CONSTRAINTS:
        return _CONSTRAINT.format(f"{_CONSTRAINTS[state]}, {name}," if name else _CONSTRAINTS[state])
    return _HINTS.get(state)


def _kind_of(error: psycopg.Error, state: str | None) -> type[StoreError]:
    if state == _UNIQUE and (error.diag.table_name, error.diag.constraint_name) in _NUMBERS:
        return NumberTakenError
    if state is None:  # libpq's own: it lost the connection, or could not make one
        return ConnectionLostError if isinstance(error, psycopg.OperationalError) else StoreError
    if state in _AWAY_STATES or state.startswith(_AWAY_CLASS):
        return ConnectionLostError
    if state in _PASSING_STATES:
        return RetryableStoreError
    return RefusedStoreError if state.startswith(_REFUSED_CLASSES) else StoreError


def refused(error: StoreError, conninfo: str) -> StoreError:
    """Why a connection could not be opened. libpq keeps no SQLSTATE of it, but a ping needs neither user nor database:
    a server that answers the ping has refused *us*, and will again.
    """
    answer = psycopg.pq.PGconn.ping(conninfo.encode())
    if answer == psycopg.pq.Ping.OK:
        return RefusedStoreError(error.what, where=error.where, hint=_REFUSED)
    return ConnectionLostError(error.what, where=error.where, hint=_UNREACHABLE)


def is_busy(error: sqlalchemy.exc.DBAPIError | sqlite3.Error) -> bool:
    """Whether SQLite refused because another process holds the file's lock."""
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    return isinstance(cause, sqlite3.Error) and _primary_code(cause) == sqlite3.SQLITE_BUSY


def _primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY_CODE


def _from_sqlite(error: sqlite3.Error, where: str) -> HeadraceError:
    code = _primary_code(error)
    kind = _SQLITE_KINDS.get(code, StoreError)
    broken = _SQLITE_CONSTRAINTS.get(getattr(error, "sqlite_errorcode", 0))
    hint = _SQLITE_HINTS.get(code) if broken is None else _CONSTRAINT.format(broken)
    return kind(f"SQLite reports: {error}", where=where, hint=hint)
