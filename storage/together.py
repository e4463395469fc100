"""Statements that go to PostgreSQL together: one round trip for all of them, however far away the server is.

    BEGIN ─► receipt ─► locks ─► SAVEPOINT ─┐
                                            ├─► sent at once ─► run in order, up to the first that fails ─► the answers
    books ─► COMMIT ────────────────────────┘

libpq calls this a pipeline. One mark, the sync, ends it: the server skips all between a statement that fails and the
mark, COMMIT included, so that nothing is ever committed of which a statement before COMMIT failed. Statements travel
unnamed, so that a pooler in transaction mode knows of nothing between two transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa
from psycopg import sql

__all__ = ["BEGIN", "COMMIT", "Cursor", "Statement", "plain", "together"]

Cursor = psycopg.Cursor[tuple[Any, ...]]


class Statement(NamedTuple):
    """A statement as psycopg takes it, and the values of its parameters."""

    text: sql.Composed | sql.SQL | bytes
    values: Mapping[str, Any] | None = None


BEGIN = Statement(sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED"))
COMMIT = Statement(sql.SQL("COMMIT"))


def plain(statement: sa.Insert | sa.Update, dialect: sa.Dialect) -> Statement:
    """One of SQLAlchemy's statements, which itself waits for each answer. Its values go out as they are."""
    compiled = statement.compile(dialect=dialect)
    return Statement(compiled.string.encode(), compiled.params)


def together(
    driver: psycopg.Connection[Any], statements: Sequence[Statement], say: Callable[[str], None]
) -> list[Cursor]:
    """Send `statements` at once; each is told to `say` before. Returns their answers, to be fetched from.

    Raises what the first raised that failed; those behind it were not run. The connection must be in autocommit mode
    where BEGIN is among them: else psycopg begins by itself, and waits for the answer.
    """
    cursors = []
    with driver.pipeline():
        for text, values in statements:
            cursor = driver.cursor()
            say(text.decode() if isinstance(text, bytes) else text.as_string(cursor))
            cursors.append(cursor.execute(text, values, binary=True))
    return cursors
