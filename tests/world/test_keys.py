"""What is not the authority over duplicates is not taken for it, at the start and under a warm engine; the statement
that the error advises makes one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from contract.pieces import look, make, new_ids, piece, prepared

import headrace
from headrace.errors import SchemaError
from headrace.storage import open_store

TABLE = "CREATE TABLE ev (k bigint, event_id uuid, provider text, headrace_receipt bigint)"
TWICE = "'00000000-0000-8000-8000-000000000000'"


def invalid(url: str) -> None:
    """What a CREATE UNIQUE INDEX CONCURRENTLY leaves that has failed."""
    make(url, TABLE, f"INSERT INTO ev VALUES (0, {TWICE}, 'x', NULL), (0, {TWICE}, 'x', NULL)")  # noqa: S608
    with psycopg.connect(url, autocommit=True) as connection, suppress(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY bad ON ev (event_id)")
    make(url, "DELETE FROM ev")


NO_KEYS: dict[str, list[str]] = {
    "none": [TABLE],
    "an index that is not unique": [TABLE, "CREATE INDEX ON ev (event_id)"],
    "partial": [TABLE, "CREATE UNIQUE INDEX ON ev (event_id) WHERE k > 0"],
    "an expression": [TABLE, "CREATE UNIQUE INDEX ON ev ((event_id::text))"],
    "more columns": [TABLE, "CREATE UNIQUE INDEX ON ev (event_id, k)"],
    "another column": [TABLE, "CREATE UNIQUE INDEX ON ev (k)"],
    "deferrable": [TABLE, "ALTER TABLE ev ADD UNIQUE (event_id) DEFERRABLE"],
    "deferred": [TABLE, "ALTER TABLE ev ADD PRIMARY KEY (event_id) DEFERRABLE INITIALLY DEFERRED"],
    "a deferrable one beside a good one": [
        TABLE,
        "ALTER TABLE ev ADD UNIQUE (event_id)",
        "ALTER TABLE ev ADD UNIQUE (event_id) DEFERRABLE",
    ],
    "an exclusion": [TABLE, "ALTER TABLE ev ADD EXCLUDE USING hash (event_id WITH =)"],
    "invalid": [],
}


@pytest.mark.parametrize("what", NO_KEYS)
def test_what_is_no_key_is_refused_and_the_advised_statement_makes_one(postgres_url: str, what: str) -> None:
    invalid(postgres_url) if what == "invalid" else make(postgres_url, *NO_KEYS[what])
    with pytest.raises(SchemaError, match="no unique key on event_id") as raised:
        headrace.load([{"k": 1}], to=postgres_url, table="ev", id=["k"])
    assert look(postgres_url, "SELECT count(*) FROM ev") == [(0,)]
    advice = str(raised.value.hint).removesuffix("; or load into another table")
    make(postgres_url, *advice.removeprefix("remove the duplicate rows, then ").split("; "))
    for _ in range(2):
        headrace.load([{"k": 1}, {"k": 2}], to=postgres_url, table="ev", id=["k"])
    how: Any = {"mode": "parallel", "workers": 1, "strategy": "upsert"}
    assert headrace.load([{"k": 1}, {"k": 3}], to=postgres_url, table="ev", id=["k"], **how).inserted == 1
    assert look(postgres_url, "SELECT count(*), count(DISTINCT event_id) FROM ev") == [(3, 3)]


@pytest.mark.parametrize(
    "key",
    [
        "ALTER TABLE ev ADD PRIMARY KEY (event_id)",
        "CREATE UNIQUE INDEX ON ev (event_id DESC)",
        "CREATE UNIQUE INDEX ON ev (event_id) INCLUDE (k)",
        "ALTER TABLE ev ALTER COLUMN event_id SET NOT NULL, ADD UNIQUE (event_id), REPLICA IDENTITY FULL",
    ],
)
def test_what_decides_is_taken(postgres_url: str, key: str) -> None:
    make(postgres_url, TABLE, key)
    with headrace.Engine(to=postgres_url, table="ev", id=["k"]) as one:
        one.ingest([{"k": 1}])
        headrace.load([{"k": 2}], to=postgres_url, table="ev", id=["k"])  # this one's snapshot does not know
        report = one.ingest([{"k": 1}, {"k": 2}, {"k": 3}])
    assert (report.inserted, report.duplicate_in_store) == (1, 2)
    assert look(postgres_url, "SELECT count(*), count(DISTINCT event_id) FROM ev") == [(3, 3)]


@pytest.mark.parametrize("kind", ["bytea", "text", "varchar(36)", "char(36)", "bigint", "uuid[]", "jsonb"])
def test_an_id_column_that_is_no_uuid_is_refused(postgres_url: str, kind: str) -> None:
    make(postgres_url, TABLE.replace("uuid", f"{kind} PRIMARY KEY"))
    with pytest.raises(SchemaError, match="event_id is of type") as raised:
        headrace.load([{"k": 1}], to=postgres_url, table="ev", id=["k"])
    assert raised.value.hint
    # as advised: first the column is renamed, then what is lacking is added
    make(postgres_url, "ALTER TABLE ev RENAME COLUMN event_id TO old_id")
    with pytest.raises(SchemaError, match="no column event_id") as raised:
        headrace.load([{"k": 1}], to=postgres_url, table="ev", id=["k"])
    make(postgres_url, str(raised.value.hint).split(";")[0], "ALTER TABLE ev DROP COLUMN old_id")
    assert headrace.load([{"k": 1}], to=postgres_url, table="ev", id=["k"]).inserted == 1


@pytest.mark.parametrize("change", ["provider TYPE jsonb USING NULL", "headrace_receipt TYPE text"])
def test_the_other_columns_of_headrace_must_be_what_they_are(postgres_url: str, change: str) -> None:
    make(postgres_url, TABLE, "ALTER TABLE ev ADD PRIMARY KEY (event_id)", f"ALTER TABLE ev ALTER COLUMN {change}")
    with pytest.raises(SchemaError, match="is of type"):
        headrace.load([{"k": 1}], to=postgres_url, table="ev", id=["k"])


def test_a_key_that_goes_while_an_engine_is_warm_is_missed(store_url: str) -> None:
    with open_store(store_url) as store:
        if store_url.startswith("postgresql"):
            prepared(store).events.commit(piece(new_ids(3), first_row=90))
            make(store_url, "ALTER TABLE events DROP CONSTRAINT events_pkey")
        else:
            make(
                store_url,
                "CREATE TABLE events (n BIGINT, t TIMESTAMP, s TEXT, event_id BLOB, provider TEXT, "
                "headrace_receipt BIGINT)",
                "CREATE UNIQUE INDEX it ON events (event_id)",
            )
            prepared(store).events.commit(piece(new_ids(3), first_row=90))
            make(store_url, "DROP INDEX it")
        with pytest.raises(SchemaError, match="no unique key on event_id"):
            store.events.commit(piece(new_ids(3)))
        make(store_url, "CREATE UNIQUE INDEX again ON events (event_id)")
        assert store.events.commit(piece(new_ids(3))).counts.duplicate_in_store == 3


# SQLite --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ddl",
    [
        "k BIGINT, event_id BLOB",
        "k BIGINT, event_id BLOB, UNIQUE (event_id, k)",
        "k BIGINT, event_id BLOB, PRIMARY KEY (k, event_id)",
    ],
)
@pytest.mark.parametrize("index", ["", "(event_id) WHERE k > 0", "(lower(event_id))", "(k)"])
def test_sqlite_what_is_no_key_is_refused_and_the_advised_statement_makes_one(
    sqlite_url: str, ddl: str, index: str
) -> None:
    columns, _, constraint = ddl.partition("event_id BLOB")
    made = f"CREATE TABLE ev ({columns}event_id BLOB, provider TEXT, headrace_receipt BIGINT{constraint})"
    make(sqlite_url, made, *([f"CREATE UNIQUE INDEX i ON ev {index}"] if index else []))
    with pytest.raises(SchemaError, match="no unique key on event_id") as raised:
        headrace.load([{"k": 1}], to=sqlite_url, table="ev", id=["k"])
    make(sqlite_url, *str(raised.value.hint).removesuffix("; or load into another table").split("; "))
    for _ in range(2):
        headrace.load([{"k": 1}, {"k": 2}], to=sqlite_url, table="ev", id=["k"])
    assert look(sqlite_url, "SELECT count(*), count(DISTINCT event_id) FROM ev") == [(2, 2)]


@pytest.mark.parametrize("kind", ["TEXT", "INTEGER", "TEXT COLLATE NOCASE", "UUID", "REAL"])
def test_sqlite_an_id_column_that_is_no_blob_is_refused(sqlite_url: str, kind: str) -> None:
    made = f"CREATE TABLE ev (k BIGINT, event_id {kind} PRIMARY KEY, provider TEXT, headrace_receipt BIGINT)"
    make(sqlite_url, made)
    with pytest.raises(SchemaError, match="event_id is of type") as raised:
        headrace.load([{"k": 1}], to=sqlite_url, table="ev", id=["k"])
    assert raised.value.hint


@pytest.mark.parametrize(
    "made",
    [
        "k BIGINT, event_id BLOB COLLATE NOCASE PRIMARY KEY, provider TEXT, headrace_receipt BIGINT)",
        "k BIGINT, event_id PRIMARY KEY, provider TEXT, headrace_receipt BIGINT) WITHOUT ROWID",
        "k INT, event_id BLOB PRIMARY KEY, provider TEXT, headrace_receipt INT) STRICT",
        "k INT, event_id ANY UNIQUE, provider TEXT, headrace_receipt INT) STRICT",
        "k INT, event_id BLOB PRIMARY KEY ON CONFLICT REPLACE, provider TEXT, headrace_receipt INT)",
        'k INT, "event_id" BLOB, provider TEXT, headrace_receipt INT, UNIQUE ("event_id") ON CONFLICT IGNORE)',
        "k INT, /* ON CONFLICT REPLACE */ event_id BLOB UNIQUE, provider TEXT DEFAULT 'ON CONFLICT REPLACE', "
        "headrace_receipt INT)",
        "k INT UNIQUE ON CONFLICT ABORT, event_id BLOB UNIQUE, provider TEXT, headrace_receipt INT)",
    ],
)
def test_sqlite_what_decides_is_taken(sqlite_url: str, made: str) -> None:
    make(sqlite_url, f"CREATE TABLE ev ({made}")
    with headrace.Engine(to=sqlite_url, table="ev", id=["k"]) as one:
        one.ingest([{"k": 1}])
        headrace.load([{"k": 2}], to=sqlite_url, table="ev", id=["k"])
        report = one.ingest([{"k": 1}, {"k": 2}, {"k": 3}])
    assert (report.inserted, report.duplicate_in_store) == (1, 2)
    assert look(sqlite_url, "SELECT count(*), count(DISTINCT event_id) FROM ev") == [(3, 3)]


@pytest.mark.parametrize(
    "clause",
    [
        "k BIGINT UNIQUE ON CONFLICT REPLACE, v BIGINT",
        "k BIGINT PRIMARY KEY ON CONFLICT IGNORE, v BIGINT",
        "k BIGINT, v BIGINT NOT NULL on /* */ conflict\nreplace DEFAULT 7",
        "k BIGINT, v BIGINT, UNIQUE (k, v) ON CONFLICT REPLACE",
        "k BIGINT, v BIGINT, UNIQUE (event_id, k) ON CONFLICT REPLACE",
    ],
)
def test_sqlite_a_constraint_that_deletes_rows_or_leaves_them_out_is_refused(sqlite_url: str, clause: str) -> None:
    columns = "event_id BLOB UNIQUE, provider TEXT, headrace_receipt BIGINT"
    before, _, behind = clause.partition(", UNIQUE")
    make(sqlite_url, f"CREATE TABLE ev ({before}, {columns}{', UNIQUE' + behind if behind else ''})")
    with pytest.raises(SchemaError, match=r"ON CONFLICT (REPLACE|IGNORE)") as raised:
        headrace.load([{"k": 1, "v": 1}, {"k": 1, "v": 2}], to=sqlite_url, table="ev", id=["k", "v"])
    assert raised.value.hint
    assert look(sqlite_url, "SELECT count(*) FROM ev") == [(0,)]


@pytest.mark.parametrize("lacking", ["event_id", "provider", "headrace_receipt"])
def test_what_is_lacking_is_advised_and_no_more(store_url: str, lacking: str) -> None:
    kinds = {"event_id": "uuid UNIQUE", "provider": "text", "headrace_receipt": "bigint"}
    kinds |= {} if store_url.startswith("postgresql") else {"event_id": "BLOB UNIQUE"}
    there = ", ".join(f"{name} {kind}" for name, kind in kinds.items() if name != lacking)
    make(
        store_url,
        f"CREATE TABLE ev (id integer PRIMARY KEY, k bigint, {there})",
        "INSERT INTO ev (id, k) VALUES (1, 9)",
    )
    with pytest.raises(SchemaError, match=f"no column {lacking}") as raised:
        headrace.load([{"id": 2, "k": 1}], to=store_url, table="ev", id=["k"])
    make(store_url, *str(raised.value.hint).removesuffix("; or load into another table").split("; "))
    for inserted in (1, 0):  # the row that was there before has no ID, and is nobody's
        report = headrace.load([{"id": 2, "k": 1}], to=store_url, table="ev", id=["k"])
        assert report.inserted == inserted
    assert look(store_url, "SELECT count(*), count(event_id) FROM ev") == [(2, 1)]
    with open_store(store_url) as store:
        assert len(b"".join(one.ids for one in store.events.holdings("ev"))) == 16
