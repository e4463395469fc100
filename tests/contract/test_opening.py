"""How often a database is opened: a connection is a process of the server, and costs it more than a small load."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

import headrace
from headrace.execution import tasks

ROWS = [{"key": 1, "at": "2026-01-01T00:00:00"}]


@pytest.fixture
def opened() -> Iterator[list[object]]:
    """Every connection that this process opens through a pool."""
    connections: list[object] = []

    def note(driver: object, _record: object) -> None:
        connections.append(driver)

    sa.event.listen(sa.Pool, "connect", note)
    yield connections
    sa.event.remove(sa.Pool, "connect", note)


def test_a_load_opens_its_database_once(store_url: str, opened: list[object]) -> None:
    how: Any = {"to": store_url, "table": "t", "id": ["key"]}
    headrace.load(ROWS, timezone="Europe/Vienna", **how)  # a new database, if it is a file
    assert len(opened) == 1
    assert headrace.load(ROWS, **how).duplicate_in_store == 1  # in the time zone of the stored contract
    assert len(opened) == 2


def test_a_workers_connection_is_closed_when_its_thread_ends(sqlite_url: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        store = pool.submit(tasks._store, sqlite_url).result()
        assert pool.submit(tasks._store, sqlite_url).result() is store
        assert store.database.engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    assert store.database.engine.pool.checkedin() == 0  # type: ignore[attr-defined]
