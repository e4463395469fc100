"""COPY into PostgreSQL: Arrow in binary, plain rows as text. How many rows the server took is what it says itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

from headrace.storage.postgres.one_message import Driver, Say

__all__ = ["copy_in", "copy_rows_in", "names_of"]

# Rows encoded at once: the server works on one block while the next is encoded. Measured from 1,024 to 16,384, all
# within the noise of COPYing bytes encoded beforehand; small blocks also bound memory and let other threads run.
ROWS_PER_BLOCK = 4_096


def copy_in(driver: Driver, table: sql.Identifier, events: pa.RecordBatch, say: Say) -> int:
    """COPY `events`, whose columns are as wide as the table's; returns how many rows the server took."""
    cursor = driver.cursor()
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, names_of(events.schema.names))
    say(statement.as_string(cursor))
    encoder = ArrowToPostgresBinaryEncoder(events.schema)
    with cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        for start in range(0, events.num_rows, ROWS_PER_BLOCK):
            copy.write(encoder.write_batch(events.slice(start, ROWS_PER_BLOCK)))
        copy.write(encoder.finish())
    return cursor.rowcount


def copy_rows_in(driver: Driver, table: sql.Identifier, rows: Sequence[dict[str, Any]], say: Say) -> int:
    """COPY rows of equal columns; returns how many of them the server took."""
    cursor = driver.cursor()
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(table, names_of(list(rows[0])))
    say(statement.as_string(cursor))
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(tuple(row.values()))
    return cursor.rowcount


def names_of(names: Sequence[str]) -> sql.Composed:
    """The names of columns, as a list of SQL."""
    return sql.SQL(", ").join(map(sql.Identifier, names))
