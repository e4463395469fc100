"""Statements that go to PostgreSQL together: one round trip for all of them, however far away the server is.

    BEGIN ─► receipt ─► locks ─► SAVEPOINT ─┐
                                            ├─► one message ─► run in order, up to the first that fails ─► the answers
    books ─► COMMIT ────────────────────────┘

They are one query of the simple protocol. The server leaves out all that stands behind a statement that fails, COMMIT
included, so that nothing is ever committed of which a statement before COMMIT failed.

libpq's pipeline would do the same, but psycopg sends a Flush behind it. Where that arrives when COMMIT is done (another
process had the processor, a packet was sent again), a pooler in transaction mode takes it for the beginning of a new
transaction: it gives this client a session of the server, and has it back only after the client's next transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa
from psycopg import sql

from headrace.errors import StoreError

__all__ = ["BEGIN", "COMMIT", "Cursor", "Driver", "Rows", "Say", "Statement", "alone", "driver_of", "plain", "together"]

Cursor = psycopg.Cursor[tuple[Any, ...]]
Driver = psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]
Say = Callable[[str], None]


class Statement(NamedTuple):
    """A statement as psycopg takes it, and the values of its parameters."""

    text: sql.Composed | sql.SQL | bytes
    values: Mapping[str, Any] | None = None


BEGIN = Statement(sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED"))
COMMIT = Statement(sql.SQL("COMMIT"))


def driver_of(connection: sa.Connection) -> Driver:
    """Psycopg's own connection behind one of SQLAlchemy's."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise StoreError(f"SQLAlchemy gave a {type(driver).__name__}, not a psycopg connection")
    return driver


def plain(statement: sa.Insert | sa.Update, dialect: sa.Dialect) -> Statement:
    """One of SQLAlchemy's statements, which itself waits for each answer. Its values go out as they are."""
    compiled = statement.compile(dialect=dialect)
    return Statement(compiled.string.encode(), compiled.params)


def alone(driver: Driver, statement: Statement, say: Say) -> Cursor:
    """Send one statement, told to `say` before. Its answer comes in binary: half the bytes where they are IDs."""
    cursor = driver.cursor()
    say(_written(statement, cursor).decode())
    return cursor.execute(statement.text, statement.values, binary=True)


def together(driver: Driver, statements: Sequence[Statement], say: Say) -> list[Rows]:
    """Send `statements` at once, all told to `say` before. Returns the rows that each answered, if any.

    One of them may have parameters. Raises what the first raised that failed; those behind it were not run. The
    connection must be in autocommit mode where BEGIN is among them: else psycopg begins by itself, and waits for the
    answer.
    """
    cursor = psycopg.ClientCursor(driver)
    values = next((one.values for one in statements if one.values is not None), None)
    sent = []
    for statement in statements:
        written = _written(statement, cursor)
        say(written.decode())
        # beside a statement with parameters a per cent sign begins one
        sent.append(written.replace(b"%", b"%%") if values is not None and statement.values is None else written)
    cursor.execute(b";\n".join(sent), values)
    answers = [_rows(cursor)]
    while cursor.nextset():
        answers.append(_rows(cursor))
    return answers


def _written(statement: Statement, cursor: Cursor) -> bytes:
    return statement.text if isinstance(statement.text, bytes) else statement.text.as_bytes(cursor)


def _rows(cursor: Cursor) -> Rows:
    return [] if cursor.description is None else cursor.fetchall()
