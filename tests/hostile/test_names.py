"""Hostile names of tables, columns and providers are only names: none is executed, each comes back as it was given."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from support.evidence import Record, keep
from support.program import scaled

from headrace import Engine, HeadraceError, load
from headrace.errors import ConfigurationError, InputError, SchemaError

SEED = 20260101
HEADS = [
    "",
    "x",
    'x"',
    "x'",
    "x`",
    "x]",
    "x)",
    "x;",
    "x\\",
    "x--",
    "x/*",
    "é",
    "😀",
    "X",
    " ",
    "x\n",
    "x\t",
    "%",
    "%s",
    "$1",
]
ATTACKS = [
    "; DROP TABLE canary; --",
    '"; DROP TABLE canary; --',
    "'; DROP TABLE canary; --",
    '") VALUES (1); DELETE FROM canary; --',
    "') ON CONFLICT DO NOTHING; DELETE FROM canary; --",
    '" (n) SELECT 1; UPDATE canary SET n = 0; --',
    "\\'; DROP TABLE canary; --",
    '\\"; DROP TABLE canary; --',
    "$$; DROP TABLE canary; $$",
    "*/ DROP TABLE canary /*",
    "%(table)s",
    ":name",
    "{table}",
    "?",
    "\u202e; elbat pord",
    "../../etc/passwd",
    "[bold]x[/bold]",
    "\x1b[2J",
    "-- ",
    "' || (SELECT 1) || '",
]
RESERVED = [
    "select",
    "table",
    "User",
    "order",
    "group",
    "event",
    "source",
    "batch",
    "c0",
    "r0",
    "excluded",
    "rowid",
    "oid",
]
RESERVED += ["headrace_slices", "receipts", "runs", "NULL", "true", "_", "1", "1e5", "a.b", "public.canary"]


def names() -> list[str]:
    """Three hundred, no two alike for a database that does not tell upper from lower case."""
    every = list({(head + attack).lower(): head + attack for head in HEADS for attack in ATTACKS}.values())
    random.Random(SEED).shuffle(every)
    return [*RESERVED, *every][:300]


def engine_of(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)


@pytest.fixture
def database(store_url: str) -> Iterator[sa.Engine]:
    engine = engine_of(store_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE canary (n INTEGER)")
        connection.exec_driver_sql("INSERT INTO canary VALUES (1), (2), (3)")
    yield engine
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT n FROM canary ORDER BY n").all() == [(1,), (2,), (3,)]


def rows_in(database: sa.Engine, table: str, columns: list[str]) -> list[tuple[Any, ...]]:
    asked = sa.select(*map(sa.column, columns)).select_from(sa.table(table)).order_by(sa.column("v"))
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(asked)]


def test_no_name_is_executed(store_url: str, database: sa.Engine) -> None:
    print("seed", SEED)
    chosen = names()
    assert len({name.lower() for name in chosen}) == 300
    # whole, all of them on each store; otherwise a part on the two together
    count = 300 if scaled(10) == 10 else scaled(300) // 2
    tried = random.Random(f"{SEED} {store_url.partition(':')[0]}").sample(chosen, count)
    loaded = []
    with ThreadPoolExecutor(2) as pool:
        for number, name in enumerate(tried):
            how: dict[str, Any] = {"to": store_url, "table": name, "provider": name, "id": ["v", name]}
            if number % 3:  # every way that writes
                how |= {"mode": "parallel", "executor": pool, "strategy": ("upsert", "locked")[number % 2]}
            second = f"{name}2"
            load([{"v": 1, name: "x"}], **how)
            assert load([{"v": 1, name: "x"}, {"v": 2, name: "y", second: "z"}], **how).inserted == 1
            assert rows_in(database, name, ["v", name, second, "provider"]) == [
                (1, "x", None, name),
                (2, "y", "z", name),
            ]
            loaded.append(name)
    tables = {name for name in sa.inspect(database).get_table_names() if not name.startswith("headrace_")}
    tables |= {name for name in loaded if name.startswith("headrace_")}
    assert tables == {"canary", *loaded}
    store = store_url.partition(":")[0]
    keep(Record("a hostile name", "of table, columns and provider", store, len(tried), 0, 0, 0, SEED, 2))


@pytest.mark.parametrize("name", ["a\0b", "\ud800", ""])
def test_what_no_database_can_hold_is_refused_before_anything_is_made(
    store_url: str, database: sa.Engine, name: str
) -> None:
    kinds = (ConfigurationError, SchemaError, InputError)
    with pytest.raises(kinds):
        load([{"v": 1}], to=store_url, table="t", provider=name)
    with pytest.raises(kinds):
        load([{"v": 1, name: 2}], to=store_url, table="t")
    if name:
        with pytest.raises(kinds):
            load([{"v": 1}], to=store_url, table=name)
    assert not sa.inspect(database).has_table("t")


def test_a_table_that_is_headraces_own_is_not_written_to(store_url: str, database: sa.Engine) -> None:
    with Engine(to=store_url) as engine:
        engine.ingest([{"v": 1}], table="t")
        for own in ("headrace_runs", "headrace_receipts", "headrace_slice", "Headrace_Repeats", "canary"):
            with pytest.raises(HeadraceError):
                engine.ingest([{"v": 1}], table=own)
