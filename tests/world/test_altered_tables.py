"""Somebody alters the table while a loader is warm, or between two slices of one load: values stay what they were, or
the load is refused in words. Never is a row written by the types of an earlier table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from contract.pieces import batch, look, make, new_ids, open_run, piece, prepared
from contract.test_failures import Once

import headrace
from headrace.api import load_with
from headrace.errors import HeadraceError, SchemaError, StoreError
from headrace.observability.stages import Silent
from headrace.options.load import options_of
from headrace.storage import open_store
from headrace.storage.records import Existing

WAYS: tuple[Existing, ...] = ("snapshot", "conflict", "query")


class Between(Silent):
    """Acts once, after the first slice of a load was committed."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def committed(self, piece: Any, done: Any) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


def csv(folder: Path, rows: int = 50) -> str:
    path = folder / "in.csv"
    path.write_text("k,v\n" + "".join(f"{i},{i}\n" for i in range(1, rows + 1)))
    return str(path)


def altered(url: str, *statements: str) -> Between:
    """The statements between two slices, in one transaction."""
    return Between(lambda: make(url, *(["BEGIN IMMEDIATE"] if url.startswith("sqlite") else []), *statements))


def load(url: str, path: str, listener: Silent, **options: Any) -> headrace.Report:
    named: Any = {"to": url, "table": "ev", "id": ["k"], "chunk_rows": 10, **options}
    return load_with(options_of(named), [path], listener=listener)


# kinds that hold every value, as the file has it
@pytest.mark.parametrize("kind", ["double precision", "real", "numeric", "numeric(12,3)", "integer", "smallint"])
def test_a_type_that_holds_the_values_takes_them_as_they_are(postgres_url: str, tmp_path: Path, kind: str) -> None:
    report = load(postgres_url, csv(tmp_path), altered(postgres_url, f"ALTER TABLE ev ALTER COLUMN v TYPE {kind}"))
    assert report.inserted == 50
    assert look(postgres_url, "SELECT count(*), sum((v <> k)::int) FROM ev") == [(50, 0)]


# text, time and others: the rest of the file would be read in another way by a new run
@pytest.mark.parametrize(
    ("kind", "using"),
    [
        ("text", "v::text"),
        ("timestamptz", "to_timestamp(v)"),
        ("boolean", "v > 0"),
        ("date", "'2022-01-01'::date"),
        ("jsonb", "to_jsonb(v)"),
        ("uuid", "gen_random_uuid()"),
        ("bytea", "int8send(v)"),
    ],
)
def test_a_type_of_another_kind_is_refused_in_words(postgres_url: str, tmp_path: Path, kind: str, using: str) -> None:
    alter = f"ALTER TABLE ev ALTER COLUMN v TYPE {kind} USING {using}"
    with pytest.raises(SchemaError, match="column v") as raised:
        load(postgres_url, csv(tmp_path), altered(postgres_url, alter))
    assert raised.value.hint
    ((rows,),) = look(postgres_url, "SELECT count(*) FROM ev")
    assert rows in (10, 20)  # one slice may have been on its way


def test_a_value_that_the_new_type_cannot_hold_is_refused(postgres_url: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("k,v\n" + "".join(f"{i},{2**53 + 1 if i > 20 else i}\n" for i in range(1, 51)))
    with pytest.raises(SchemaError, match="column v"):
        load(
            postgres_url,
            str(path),
            altered(postgres_url, "ALTER TABLE ev ALTER COLUMN v TYPE double precision"),
        )
    assert look(postgres_url, "SELECT count(*), sum((v <> k)::int) FROM ev") == [(20, 0)]


def test_digits_are_not_rounded_away_by_a_scale_that_got_smaller(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        prepared(store, schema=pa.schema([("n", pa.decimal128(38, 4))]))
        store.events.commit(piece(batch(new_ids(1), {"n": pa.array([Decimal("1.2345")])}), first_row=90))
        make(postgres_url, "ALTER TABLE events ALTER COLUMN n TYPE numeric(12, 2)")
        with pytest.raises(SchemaError, match="column n"):
            store.events.commit(piece(batch(new_ids(1, seed=1), {"n": pa.array([Decimal("6.7891")])})))
        done = store.events.commit(piece(batch(new_ids(1, seed=2), {"n": pa.array([Decimal("6.7800")])}), first_row=9))
    assert done.counts.inserted == 1
    assert look(postgres_url, "SELECT n FROM events ORDER BY n") == [(Decimal("1.23"),), (Decimal("6.78"),)]


@pytest.mark.parametrize("existing", WAYS)
def test_every_path_knows_the_types_under_its_lock(postgres_url: str, existing: Existing) -> None:
    def events(seed: int) -> pa.RecordBatch:
        return batch(new_ids(3, seed=seed), {"n": pa.array([101, 102, None], pa.int64())})

    with open_store(postgres_url) as store:
        prepared(store, schema=pa.schema([("n", pa.int64())]))
        store.events.commit(piece(events(1), first_row=90, existing=existing))
        make(postgres_url, "ALTER TABLE events ALTER COLUMN n TYPE double precision")
        store.events.commit(piece(events(2), existing=existing))
    assert look(postgres_url, "SELECT n FROM events WHERE n IS NOT NULL ORDER BY n") == [
        (101.0,),
        (101.0,),
        (102.0,),
        (102.0,),
    ]


@pytest.mark.parametrize("revisions", ["report", "update"])
def test_a_comparison_with_the_table_knows_the_types_under_its_lock(postgres_url: str, revisions: Any) -> None:
    named: Any = {"revisions": revisions} | ({"version_column": "v"} if revisions == "update" else {})
    with headrace.Engine(to=postgres_url, table="ev", id=["k"], **named) as engine:
        engine.ingest([{"k": i, "v": i} for i in range(5)])
        make(postgres_url, "ALTER TABLE ev ALTER COLUMN v TYPE double precision")
        report = engine.ingest([{"k": i, "v": i + 100} for i in range(5)])
    expected = 100 if revisions == "update" else 0
    assert report.revised == 5
    assert look(postgres_url, "SELECT sum(v - k) FROM ev") == [(5 * expected,)]


def test_nobody_can_alter_the_table_between_the_look_and_the_copy(postgres_url: str) -> None:
    blocked: list[str] = []

    def alter() -> None:
        for statement in (
            "ALTER TABLE events ALTER COLUMN n TYPE double precision",
            "CREATE TRIGGER t BEFORE UPDATE ON events FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "TRUNCATE events",
            "DROP TABLE events",
            "ALTER TABLE events RENAME TO other",
        ):
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("SET lock_timeout = 20")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.execute(statement)  # type: ignore[call-overload]  # a text of this test
                blocked.append(statement)

    hook = Once("COPY", alter)
    with open_store(postgres_url, on_statement=hook) as store:
        prepared(store)
        hook.arm()
        assert store.events.commit(piece(new_ids(5))).counts.inserted == 5
    assert len(blocked) == 5


def test_an_alter_that_waits_does_not_stop_loaders_that_wait_for_each_others_locks(postgres_url: str) -> None:
    """Who waits for a partition holds the table already: nobody who wants it for himself comes in between."""
    keys = [1, 2, 3]
    with open_store(postgres_url) as store:
        prepared(store)
    holder = psycopg.connect(postgres_url)
    holder.execute("LOCK TABLE events IN ROW EXCLUSIVE MODE")
    holder.execute("SELECT pg_advisory_xact_lock(2)")
    done: list[int] = []

    def commit() -> None:
        with open_store(postgres_url) as mine:
            done.append(mine.events.commit(piece(new_ids(5), existing="query", locks=keys)).retries)

    def alter() -> None:
        make(postgres_url, "ALTER TABLE events ADD COLUMN late bigint")

    loader, owner = threading.Thread(target=commit), threading.Thread(target=alter)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    loader.start()
    while look(postgres_url, waits) != [(1,)]:
        pass
    owner.start()
    while look(postgres_url, waits) != [(2,)]:
        pass
    holder.execute("INSERT INTO events (event_id, provider, headrace_receipt) VALUES (gen_random_uuid(), 'o', 0)")
    holder.commit()
    holder.close()
    loader.join()
    owner.join()
    assert done == [0]
    assert look(postgres_url, "SELECT count(*) FROM events") == [(6,)]


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_a_table_put_in_the_place_of_another_is_met_as_it_is(postgres_url: str, mode: Any) -> None:
    with headrace.Engine(to=postgres_url, table="ev", id=["k"], mode=mode, workers=2) as engine:
        engine.ingest([{"k": i, "v": i} for i in range(8)])
        make(
            postgres_url,
            "ALTER TABLE ev RENAME TO old",
            "CREATE TABLE ev (v double precision, k bigint, event_id uuid PRIMARY KEY, provider text, "
            "headrace_receipt integer)",
        )
        engine.ingest([{"k": i, "v": i} for i in range(8, 16)])
    assert look(postgres_url, "SELECT count(*), sum((v <> k)::int) FROM ev WHERE k >= 8") == [(8, 0)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["DROP TABLE ev"], "the table is gone"),
        (["ALTER TABLE ev RENAME TO other"], "the table is gone"),
        (["ALTER TABLE ev RENAME TO other", "CREATE VIEW ev AS SELECT * FROM other"], "it is a view"),
        (["ALTER TABLE ev RENAME TO other", "CREATE MATERIALIZED VIEW ev AS SELECT * FROM other"], "materialized view"),
        (["ALTER TABLE ev DROP COLUMN v"], "no column v"),
        (["ALTER TABLE ev RENAME COLUMN v TO w"], "no column v"),
        (["ALTER TABLE ev DROP COLUMN v", "ALTER TABLE ev ADD COLUMN v text"], "column v"),
        (["ALTER TABLE ev DROP COLUMN headrace_receipt"], "no column headrace_receipt"),
        (["ALTER TABLE ev DROP CONSTRAINT ev_pkey"], "no unique key on event_id"),
        (
            ["ALTER TABLE ev ADD COLUMN must bigint NOT NULL DEFAULT 1", "ALTER TABLE ev ALTER must DROP DEFAULT"],
            "must",
        ),
        (
            ["ALTER TABLE ev DROP COLUMN v", "ALTER TABLE ev ADD COLUMN v bigint GENERATED ALWAYS AS (k) STORED"],
            "column v",
        ),
        (["CREATE RULE r AS ON INSERT TO ev DO INSTEAD NOTHING"], "rule r"),
        (["CREATE RULE r AS ON INSERT TO ev DO ALSO SELECT 1"], "rule r"),
    ],
)
def test_a_change_between_two_slices_is_told_in_words(
    postgres_url: str, tmp_path: Path, change: list[str], said: str
) -> None:
    with pytest.raises(HeadraceError) as raised:
        load(postgres_url, csv(tmp_path), altered(postgres_url, *change))
    assert said in str(raised.value)
    assert raised.value.hint
    assert "defect" not in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        ["ALTER TABLE ev ENABLE ROW LEVEL SECURITY", "ALTER TABLE ev FORCE ROW LEVEL SECURITY"],  # not for a superuser
        ["ALTER TABLE ev ADD COLUMN loaded timestamptz NOT NULL DEFAULT now()"],
        [
            "ALTER TABLE ev ADD COLUMN tags text[]",
            "ALTER TABLE ev ADD COLUMN twice bigint GENERATED ALWAYS AS (v) STORED",
        ],
        ["ALTER TABLE ev DROP CONSTRAINT ev_pkey", "CREATE UNIQUE INDEX other ON ev (event_id) INCLUDE (k)"],
        ["CREATE DOMAIN whole AS bigint CHECK (VALUE > 0)", "ALTER TABLE ev ALTER COLUMN v TYPE whole"],
        ["ALTER TABLE ev SET UNLOGGED", "CREATE INDEX ON ev (v)", "ANALYZE ev"],
    ],
)
def test_a_change_that_hurts_no_row_goes_unnoticed(postgres_url: str, tmp_path: Path, change: list[str]) -> None:
    assert load(postgres_url, csv(tmp_path), altered(postgres_url, *change)).inserted == 50
    assert look(postgres_url, "SELECT count(*), sum((v <> k)::int) FROM ev") == [(50, 0)]


def test_row_security_that_holds_for_the_loader_is_refused_in_words(postgres_url: str) -> None:
    make(
        postgres_url,
        "CREATE TABLE ev (k bigint, event_id uuid PRIMARY KEY, provider text, headrace_receipt bigint)",
        "ALTER TABLE ev ENABLE ROW LEVEL SECURITY",
        "DROP ROLE IF EXISTS headrace_guest",
        "CREATE ROLE headrace_guest LOGIN",
        "GRANT ALL ON SCHEMA public TO headrace_guest",
        "GRANT ALL ON ev TO headrace_guest",
    )
    url = postgres_url.replace("postgres:@", "headrace_guest:@")
    try:
        with pytest.raises(SchemaError, match="row security"):
            headrace.load([{"k": 1}], to=url, table="ev", id=["k"])
    finally:
        make(postgres_url, "DROP OWNED BY headrace_guest CASCADE", "DROP ROLE headrace_guest")


# SQLite --------------------------------------------------------------------------------------------------------------

REMADE = (
    "ALTER TABLE ev RENAME TO old; "
    "CREATE TABLE ev (event_id BLOB PRIMARY KEY, k BIGINT, v {kind}, provider TEXT, headrace_receipt BIGINT)"
)


@pytest.mark.parametrize("kind", ["DOUBLE", "BIGINT", "INT"])
def test_sqlite_a_table_made_anew_takes_the_values_as_they_are(sqlite_url: str, tmp_path: Path, kind: str) -> None:
    change = REMADE.format(kind=kind).split("; ")
    report = load(sqlite_url, csv(tmp_path), altered(sqlite_url, *change))
    assert report.inserted == 50
    ((rows, wrong),) = look(sqlite_url, "SELECT count(*), sum(v <> k) FROM ev")
    assert rows in (40, 30)  # one slice may have been on its way
    assert wrong == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (REMADE.format(kind="TEXT"), "column v"),
        (REMADE.format(kind="BLOB"), "column v"),
        ("DROP TABLE ev", "the table is gone"),
        ("ALTER TABLE ev RENAME TO old", "the table is gone"),
        ("ALTER TABLE ev RENAME TO old; CREATE VIEW ev AS SELECT * FROM old", "it is a view"),
        ("ALTER TABLE ev RENAME COLUMN v TO w", "no column v"),
        (REMADE.format(kind="BIGINT").replace("BLOB PRIMARY KEY", "BLOB"), "no unique key"),
        (REMADE.format(kind="BIGINT").replace("BLOB PRIMARY", "INTEGER PRIMARY"), "event_id is of type"),
        (REMADE.format(kind="BIGINT GENERATED ALWAYS AS (k)"), "column v"),
        (REMADE.format(kind="BIGINT, must TEXT NOT NULL"), "must"),
    ],
)
def test_sqlite_a_change_between_two_slices_is_told_in_words(
    sqlite_url: str, tmp_path: Path, change: str, said: str
) -> None:
    with pytest.raises((SchemaError, StoreError)) as raised:
        load(sqlite_url, csv(tmp_path), altered(sqlite_url, *change.split("; ")))
    assert said in str(raised.value)
    assert raised.value.hint
    assert "SQLite reports" not in str(raised.value)


def test_sqlite_a_warm_engine_meets_a_table_made_anew(sqlite_url: str) -> None:
    with headrace.Engine(to=sqlite_url, table="ev", id=["k"], mode="parallel", workers=2) as engine:
        engine.ingest([{"k": i, "v": i} for i in range(8)])
        make(sqlite_url, *REMADE.format(kind="DOUBLE").split("; "))
        engine.ingest([{"k": i, "v": i} for i in range(8, 16)])
    assert look(sqlite_url, "SELECT count(*), sum(v <> k) FROM ev WHERE k >= 8") == [(8, 0)]


def test_a_first_look_costs_as_much_as_any_other(store_url: str) -> None:
    """A store that has never met the table commits as well: what it needs to know comes with the commit's beginning."""
    with open_store(store_url) as store:
        prepared(store)
    with open_store(store_url) as other:
        open_run(other, run_id="run-2")
        assert other.events.commit(piece(new_ids(3), run_id="run-2")).counts.inserted == 3
