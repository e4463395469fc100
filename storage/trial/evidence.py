"""Evidence from a table, without the store's own methods: some rows, and whether its key works."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from headrace.storage.records import EVENT_ID
from headrace.storage.store import Store

__all__ = ["refuses_again", "some_rows"]


def some_rows(store: Store, table: str, limit: int) -> list[dict[str, object]]:
    """Up to `limit` rows of `table` as the driver gives them, the event ID as 16 bytes."""
    rows: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(sa.table(table)).limit(limit)
    with store.database.reading() as connection:
        found = [dict(row) for row in connection.execute(rows).mappings()]
    for row in found:
        event_id = row[EVENT_ID]
        row[EVENT_ID] = event_id.bytes if isinstance(event_id, UUID) else bytes(event_id)
    return found


def refuses_again(url: str, table: str) -> bool | None:
    """Whether `table` refuses a row that it holds when that is inserted once more; ``None`` if it holds none.

    The attempt is rolled back.
    """
    parsed = sa.make_url(url)
    driver = "sqlite+pysqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg"
    engine = sa.create_engine(parsed.set(drivername=driver), poolclass=sa.NullPool, hide_parameters=True)
    events = sa.table(table)
    one: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(events).limit(1)
    with engine.connect() as connection, connection.begin() as transaction:
        names = list(connection.execute(one).keys())
        if connection.execute(one).first() is None:
            return None
        target = sa.table(table, *map(sa.column, names))
        again = sa.insert(target).from_select(names, sa.select(*target.c).limit(1))
        try:
            connection.execute(again)
        except sa.exc.IntegrityError:
            return True
        finally:
            transaction.rollback()
    return False
