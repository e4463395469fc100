"""Numbers of receipts, rejects and alerts: each number is used once, whatever is deleted, restored or counted anew.

PostgreSQL counts in a sequence and SQLite, by AUTOINCREMENT, in ``sqlite_sequence``. Both can fall behind what is in
use: the ledger was emptied, dropped or restored from an older copy, a sequence was set back. The unique key of the
number says so, or SQLite's count of a receipt's own rows; then `catch_up` takes the counters beyond everything that
carries a number, and the slice is committed anew.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from headrace.errors import StoreError
from headrace.storage.records import EVENT_ID, RECEIPT
from headrace.storage.sql.schema import ALERTS, RECEIPTS, REJECTS

__all__ = ["NUMBERED", "NumberTakenError", "catch_up", "give_each_once"]

NUMBERED = (RECEIPTS, REJECTS, ALERTS)
_KEPT = "headrace_numbered"  # where a table's rows wait while it is made anew


class NumberTakenError(StoreError):
    """A number that was just assigned is already in use."""


def give_each_once(connection: sa.Connection, table: sa.Table) -> None:
    """Make an SQLite `table` of an older release anew, one that counts by AUTOINCREMENT: without it the greatest number
    is given again once its row is gone.

    Columns, indexes and triggers of others stay. The caller holds the lock on changes of tables.
    """
    if connection.dialect.name != "sqlite" or table not in NUMBERED:
        return
    found = connection.execute(
        sa.text("SELECT type, sql FROM sqlite_master WHERE tbl_name = :t AND sql IS NOT NULL"), {"t": table.name}
    ).all()
    if any(kind == "table" and "AUTOINCREMENT" in sql.upper() for kind, sql in found):
        return
    quote = connection.dialect.identifier_preparer.quote
    columns = sa.inspect(connection).get_columns(table.name)
    names = ", ".join(quote(column["name"]) for column in columns)
    # never renamed: that would ask every view on the table, which looks for it meanwhile
    connection.exec_driver_sql(f"CREATE TABLE {_KEPT} AS SELECT {names} FROM {table.name}")  # noqa: S608 - quoted names
    connection.exec_driver_sql(f"DROP TABLE {table.name}")
    connection.execute(sa.schema.CreateTable(table))
    for column in columns:
        if column["name"] not in table.columns:
            added = f"{quote(column['name'])} {column['type'].compile(connection.dialect)}"
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {_KEPT}")  # noqa: S608
    connection.exec_driver_sql(f"DROP TABLE {_KEPT}")
    for kind, sql in found:
        if kind in ("index", "trigger"):
            connection.exec_driver_sql(sql)


def catch_up(connection: sa.Connection) -> None:
    """Take each counter beyond the numbers that are in use, in the ledger and in the event tables."""
    carried = [sa.select(sa.func.max(table.c.receipt_id)) for table in (RECEIPTS, REJECTS, ALERTS)]
    carried += [
        sa.select(sa.func.max(sa.column(RECEIPT))).select_from(sa.table(one)) for one in _event_tables(connection)
    ]
    _skip_to(connection, RECEIPTS, _greatest(connection, carried))
    for table in (REJECTS, ALERTS):
        _skip_to(connection, table, _greatest(connection, [sa.select(sa.func.max(_number(table)))]))


def _number(table: sa.Table) -> sa.Column[Any]:
    (column,) = table.primary_key.columns
    return column


def _greatest(connection: sa.Connection, asked: list[sa.Select[Any]]) -> int:
    return max(int(connection.execute(one).scalar() or 0) for one in asked)


def _event_tables(connection: sa.Connection) -> list[str]:
    """The tables whose rows carry receipts, found without the ledger, which may have been emptied."""
    if connection.dialect.name == "postgresql":
        text = (
            "SELECT c.relname FROM pg_class c JOIN pg_attribute r ON r.attrelid = c.oid AND r.attname = :receipt "
            "JOIN pg_attribute i ON i.attrelid = c.oid AND i.attname = :id WHERE c.relkind IN ('r', 'p') "
            "AND pg_table_is_visible(c.oid) AND has_table_privilege(c.oid, 'SELECT') AND NOT c.relispartition"
        )
    else:
        text = (
            "SELECT t.name FROM sqlite_master AS t WHERE t.type = 'table' AND :receipt IN "
            "(SELECT name FROM pragma_table_info(t.name)) AND :id IN (SELECT name FROM pragma_table_info(t.name))"
        )
    return list(connection.scalars(sa.text(text), {"receipt": RECEIPT, "id": EVENT_ID}))


def _skip_to(connection: sa.Connection, table: sa.Table, greatest: int) -> None:
    if not greatest:
        return
    if connection.dialect.name == "postgresql":
        text = (
            "SELECT setval(pg_get_serial_sequence(:t, :c), :greatest) FROM pg_sequences WHERE "
            "format('%I.%I', schemaname, sequencename)::regclass = pg_get_serial_sequence(:t, :c)::regclass "
            "AND coalesce(last_value, 0) < :greatest"
        )
        connection.execute(sa.text(text), {"t": table.name, "c": _number(table).name, "greatest": greatest})
        return
    given = {"t": table.name, "greatest": greatest}
    known = sa.text("UPDATE sqlite_sequence SET seq = max(seq, :greatest) WHERE name = :t")
    if not connection.execute(known, given).rowcount:
        connection.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:t, :greatest)"), given)
