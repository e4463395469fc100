"""Headrace's own tables from release to release: an older database is upgraded, a newer one is refused.

    headrace_schema   absent: no tables yet, or those of the first release   ─► create and add what is missing
                      version ≤ ours, other digest                           ─► the same
                      version ≤ ours, same digest                            ─► nothing to do: two short queries
                      version > ours                                         ─► `SchemaError`: install the newer one

Changes only ever add: tables, indexes, columns that are nullable or have a default, and SQLite's AUTOINCREMENT. So a
loader of the older release that runs while the newer release adds them continues undisturbed, because it names the
columns that it writes. Any other change needs a higher `SCHEMA_VERSION` and a step of its own in `migrate`.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from headrace.errors import SchemaError
from headrace.storage.sql.numbers import catch_up, give_each_once
from headrace.storage.sql.schema import CONTRACTS, LEDGER, RECEIPTS, SCHEMA

__all__ = ["SCHEMA_VERSION", "is_current", "is_there", "migrate"]

SCHEMA_VERSION = 3
"""Raised with each release that changes Headrace's own tables. The first release had 1, and no ``headrace_schema``."""


def is_there(connection: sa.Connection, shown: str) -> bool:
    """Whether there are tables of some release. Raises `SchemaError` if a newer release has used the database."""
    names = set(sa.inspect(connection).get_table_names())
    if SCHEMA.name in names:
        _refuse_newer(_recorded(connection), shown)
    return CONTRACTS.name in names


def is_current(connection: sa.Connection, shown: str) -> bool:
    """Whether the tables are those of this release. Raises `SchemaError` if a newer release has used the database."""
    if not set(sa.inspect(connection).get_table_names()).issuperset(LEDGER.tables):
        if _has(connection, SCHEMA):
            _refuse_newer(_recorded(connection), shown)
        return False
    recorded = _recorded(connection)
    _refuse_newer(recorded, shown)
    return recorded == (SCHEMA_VERSION, _digest())


def migrate(connection: sa.Connection, shown: str, now: Any) -> None:
    """Create missing tables and columns, and record the version. The caller holds the lock on changes of tables."""
    if _has(connection, SCHEMA):
        _refuse_newer(_recorded(connection), shown)
    counted = _has(connection, RECEIPTS)
    LEDGER.create_all(connection)
    if not counted:
        catch_up(connection)  # event tables may carry the numbers of a ledger that was dropped
    inspector = sa.inspect(connection)
    for table in LEDGER.sorted_tables:
        present = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                _add(connection, column, shown)
        give_each_once(connection, table)
        indexes = {index["name"] for index in inspector.get_indexes(table.name)}
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in indexes:
                index.create(connection)
    connection.execute(sa.delete(SCHEMA).where(SCHEMA.c.version == SCHEMA_VERSION))
    connection.execute(sa.insert(SCHEMA).values(version=SCHEMA_VERSION, digest=_digest(), changed_at=now))


def _has(connection: sa.Connection, table: sa.Table) -> bool:
    return sa.inspect(connection).has_table(table.name)


def _recorded(connection: sa.Connection) -> tuple[int, str]:
    newest = sa.select(SCHEMA.c.version, SCHEMA.c.digest).order_by(SCHEMA.c.version.desc()).limit(1)
    row = connection.execute(newest).first()
    return (0, "") if row is None else (int(row.version), str(row.digest))


def _refuse_newer(recorded: tuple[int, str], shown: str) -> None:
    version, _ = recorded
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"a newer Headrace has used this database: Headrace's own tables are of version {version}, "
            f"this release knows up to {SCHEMA_VERSION}; nothing was changed",
            where=shown,
            hint="install that release or a newer one (pip install -U headrace), or load into another database",
        )


def _add(connection: sa.Connection, column: sa.Column[Any], shown: str) -> None:
    if not column.nullable and column.server_default is None:
        raise SchemaError(
            f"the table {column.table.name} has no column {column.name}",
            where=shown,
            hint="Headrace did not make this table: rename it, or load into another database",
        )
    quote = connection.dialect.identifier_preparer
    specification = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {quote.format_table(column.table)} ADD COLUMN {specification}")


def _digest() -> str:
    """What tells one set of tables, columns and indexes from another."""
    parts = [
        [table.name, *table.columns.keys(), *sorted(str(index.name) for index in table.indexes)]
        for table in LEDGER.sorted_tables
    ]
    return blake2b(repr(sorted(parts)).encode(), digest_size=8).hexdigest()
