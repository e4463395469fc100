"""Triggers, rules, partitions and children of a table: what they may do goes on as before, and what they may not (leave
rows out, move them, change what makes a row this event) ends with an error that names them. Nothing is counted or
alerted that is not in the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contract.pieces import look, make, new_ids, piece, prepared, stored_ids

import headrace
from headrace import AlertRule
from headrace.errors import SchemaError, StoreError
from headrace.storage import open_store
from headrace.storage.records import Existing

WAYS: tuple[Existing, ...] = ("snapshot", "conflict", "query")
TABLE = (
    "CREATE TABLE ev (k bigint, v bigint, note text, event_id uuid PRIMARY KEY, provider text, headrace_receipt bigint)"
)
ROWS = [{"k": i, "v": i} for i in range(100)]
COUNTED = "SELECT (SELECT count(*) FROM ev), (SELECT coalesce(sum(inserted), 0) FROM headrace_receipts)"
STRAY = "SELECT count(*) FROM headrace_alerts WHERE event_id NOT IN (SELECT event_id FROM ev)"
RULE = AlertRule("big", where="v >= 90")


def trigger(
    body: str, when: str = "BEFORE INSERT", *, each: str = "ROW", table: str = "ev", more: str = ""
) -> list[str]:
    return [
        f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE {more} TRIGGER meddler {when} ON {table} {'DEFERRABLE INITIALLY DEFERRED ' if more else ''}"
        f"FOR EACH {each} EXECUTE FUNCTION f()",
    ]


MAY_NOT = {
    "swallows": trigger("IF NEW.v % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW;"),
    "swallows one of many": trigger("IF NEW.k = 50 THEN RETURN NULL; END IF; RETURN NEW;"),
    "another ID": trigger("NEW.event_id := gen_random_uuid(); RETURN NEW;"),
    "another receipt": trigger("NEW.headrace_receipt := 0; RETURN NEW;"),
    "no receipt": trigger("NEW.headrace_receipt := NULL; RETURN NEW;"),
    "another provider": trigger("NEW.provider := 'somebody'; RETURN NEW;"),
    "deletes afterwards": trigger("DELETE FROM ev WHERE event_id = NEW.event_id; RETURN NULL;", "AFTER INSERT"),
    "deletes at the end of the statement": trigger(
        "DELETE FROM ev WHERE v > 95; RETURN NULL;", "AFTER INSERT", each="STATEMENT"
    ),
    "changes IDs afterwards": trigger(
        "UPDATE ev SET event_id = gen_random_uuid() WHERE event_id = NEW.event_id; RETURN NULL;", "AFTER INSERT"
    ),
    "deletes at the end of the transaction": trigger(
        "DELETE FROM ev WHERE event_id = NEW.event_id AND NEW.v > 97; RETURN NULL;", "AFTER INSERT", more="CONSTRAINT"
    ),
    "doubles events under other IDs": trigger(
        "IF pg_trigger_depth() = 1 AND NEW.k = 7 THEN INSERT INTO ev SELECT NEW.k, NEW.v, NEW.note, gen_random_uuid(), "
        "NEW.provider, NEW.headrace_receipt; END IF; RETURN NEW;"
    ),
    "redirects into another table": [
        "CREATE TABLE other (LIKE ev)",
        *trigger("INSERT INTO other SELECT NEW.*; RETURN NULL;"),
    ],
    "redirects into a child": [
        "CREATE TABLE child (CHECK (v < 50)) INHERITS (ev)",
        *trigger("IF NEW.v < 50 THEN INSERT INTO child SELECT NEW.*; RETURN NULL; END IF; RETURN NEW;"),
    ],
}


@pytest.mark.parametrize("what", MAY_NOT)
@pytest.mark.parametrize("strategy", ["sequential", "upsert", "locked"])
def test_what_a_trigger_may_not_do_ends_with_its_name(postgres_url: str, what: str, strategy: str) -> None:
    make(postgres_url, TABLE, *MAY_NOT[what])
    how: Any = {} if strategy == "sequential" else {"mode": "parallel", "workers": 1, "strategy": strategy}
    with pytest.raises(StoreError, match="trigger meddler on ev") as raised:
        headrace.load(ROWS, to=postgres_url, table="ev", id=["k"], alerts=[RULE], **how)
    assert not raised.value.retryable
    assert raised.value.hint is not None
    # what other partitions have committed stays; nothing is counted or alerted that is not there
    kept = look(postgres_url, COUNTED)[0]
    assert kept == (0, 0) if strategy != "locked" else kept[0] == kept[1]
    assert look(postgres_url, STRAY) == [(0,)]
    # the hint works
    (cure,) = [part for part in raised.value.hint.split(": ") if part.startswith("ALTER TABLE")]
    make(postgres_url, cure.split(", and run")[0])
    headrace.load(ROWS, to=postgres_url, table="ev", id=["k"], alerts=[RULE], **how)
    assert look(postgres_url, "SELECT count(*), count(DISTINCT event_id) FROM ev") == [(100, 100)]
    assert look(postgres_url, "SELECT count(*) FROM headrace_alerts") == [(10,)]


MAY = {
    "stamps another column": trigger("NEW.note := 'stamped'; RETURN NEW;"),
    "writes elsewhere": [
        "CREATE TABLE audit (event_id uuid)",
        *trigger("INSERT INTO audit VALUES (NEW.event_id); RETURN NULL;", "AFTER INSERT"),
    ],
    "once a statement": [
        "CREATE TABLE audit (n bigint)",
        *trigger("INSERT INTO audit VALUES (1); RETURN NULL;", "AFTER INSERT", each="STATEMENT"),
    ],
    "at the end": [
        "CREATE TABLE audit (event_id uuid)",
        *trigger("INSERT INTO audit VALUES (NEW.event_id); RETURN NULL;", "AFTER INSERT", more="CONSTRAINT"),
    ],
    "disabled": [*MAY_NOT["swallows"], "ALTER TABLE ev DISABLE TRIGGER meddler"],
    "for replicas": [*MAY_NOT["swallows"], "ALTER TABLE ev ENABLE REPLICA TRIGGER meddler"],
    "at deletes": trigger("RETURN NULL;", "BEFORE DELETE"),
    "a foreign key": ["CREATE TABLE child (event_id uuid REFERENCES ev)"],
    "a child of its own rows": ["CREATE TABLE child () INHERITS (ev)"],
}


@pytest.mark.parametrize("what", MAY)
@pytest.mark.parametrize("strategy", ["sequential", "upsert"])
def test_what_a_trigger_may_do_goes_on(postgres_url: str, what: str, strategy: str) -> None:
    make(postgres_url, TABLE, *MAY[what])
    how: Any = {} if strategy == "sequential" else {"mode": "parallel", "workers": 1, "strategy": strategy}
    report = headrace.load(ROWS[:60], to=postgres_url, table="ev", id=["k"], alerts=[RULE], **how)
    assert report.inserted == 60
    report = headrace.load(ROWS, to=postgres_url, table="ev", id=["k"], alerts=[RULE], **how)
    assert (report.inserted, report.duplicate_in_store, report.alerts) == (40, 60, 10)
    assert look(postgres_url, "SELECT count(*) FROM ev") == [(100,)]


@pytest.mark.parametrize("existing", WAYS)
def test_on_the_safe_path_what_is_not_there_is_no_duplicate(postgres_url: str, existing: Existing) -> None:
    """Some are there, some are swallowed: only the former are duplicates."""
    ids = new_ids(20)
    with open_store(postgres_url) as store:
        prepared(store).events.commit(piece(ids[:5], first_row=90))
        make(
            postgres_url,
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.n = 7 THEN RETURN NULL; END IF; "
            "RETURN NEW; END $$",
            "CREATE TRIGGER meddler BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION f()",
        )
        with pytest.raises(StoreError, match="meddler"):
            store.events.commit(piece(ids, existing=existing))
        make(postgres_url, "DROP TRIGGER meddler ON events")
        done = store.events.commit(piece(ids, existing=existing))
    assert (done.counts.inserted, done.counts.duplicate_in_store) == (15, 5)
    assert stored_ids(postgres_url) == ids


def test_a_trigger_that_comes_between_two_slices_is_met(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        prepared(store).events.commit(piece(new_ids(5), first_row=90))
        make(
            postgres_url,
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.event_id := gen_random_uuid(); "
            "RETURN NEW; END $$",
            "CREATE TRIGGER meddler BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION f()",
        )
        with pytest.raises(StoreError, match="meddler"):
            store.events.commit(piece(new_ids(5, seed=1)))
    assert stored_ids(postgres_url) == new_ids(5)


def test_a_trigger_on_a_partition_is_named(postgres_url: str) -> None:
    make(
        postgres_url,
        TABLE + " PARTITION BY HASH (event_id)",
        *(f"CREATE TABLE ev_{n} PARTITION OF ev FOR VALUES WITH (MODULUS 3, REMAINDER {n})" for n in range(3)),
    )
    assert headrace.load(ROWS, to=postgres_url, table="ev", id=["k"]).inserted == 100
    make(postgres_url, *trigger("NEW.headrace_receipt := 0; RETURN NEW;", table="ev_1"))
    more = [{"k": i, "v": i} for i in range(300)]
    with pytest.raises(StoreError, match="trigger meddler on ev_1"):
        headrace.load(more, to=postgres_url, table="ev", id=["k"])
    make(postgres_url, "ALTER TABLE ev_1 DISABLE TRIGGER meddler")
    assert headrace.load(more, to=postgres_url, table="ev", id=["k"]).inserted == 200
    assert look(postgres_url, "SELECT count(*), count(DISTINCT event_id) FROM ev") == [(300, 300)]


def test_a_table_that_becomes_partitioned_is_met_as_one(postgres_url: str) -> None:
    with headrace.Engine(to=postgres_url, table="ev", id=["k"]) as engine:
        engine.ingest(ROWS)
        make(
            postgres_url,
            "ALTER TABLE ev RENAME TO old",
            "CREATE TABLE ev (LIKE old INCLUDING ALL) PARTITION BY HASH (event_id)",
            "CREATE TABLE ev_0 PARTITION OF ev FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
            "INSERT INTO ev SELECT * FROM old",
        )
        report = engine.ingest([{"k": i, "v": i} for i in range(150)])
    assert (report.inserted, report.duplicate_in_store) == (50, 100)


def test_the_same_event_in_a_child_is_found_out(postgres_url: str) -> None:
    """A key does not reach into tables that inherit: there, the same event could be once more."""
    make(postgres_url, TABLE, "CREATE TABLE child () INHERITS (ev)")
    headrace.load(ROWS[:10], to=postgres_url, table="ev", id=["k"])
    make(postgres_url, "WITH moved AS (DELETE FROM ONLY ev RETURNING *) INSERT INTO child SELECT * FROM moved")
    with pytest.raises(StoreError, match="child table child"):
        headrace.load(ROWS, to=postgres_url, table="ev", id=["k"], mode="parallel", workers=1, strategy="upsert")
    assert look(postgres_url, "SELECT count(*), count(DISTINCT event_id) FROM ev") == [(10, 10)]
    assert headrace.load(ROWS, to=postgres_url, table="ev", id=["k"]).inserted == 90  # the snapshot knows of them


@pytest.mark.parametrize("rule", ["DO INSTEAD NOTHING", "DO ALSO SELECT 1", "WHERE NEW.v > 5 DO INSTEAD NOTHING"])
def test_a_rule_is_refused_before_anything_is_changed(postgres_url: str, rule: str) -> None:
    where, _, what = rule.partition("DO ")
    make(postgres_url, TABLE, f"CREATE RULE meddler AS ON INSERT TO ev {where} DO {what}")
    with pytest.raises(SchemaError, match="rule meddler"):
        headrace.load(ROWS, to=postgres_url, table="ev", id=["k"])
    make(postgres_url, "ALTER TABLE ev DISABLE RULE meddler")
    assert headrace.load(ROWS, to=postgres_url, table="ev", id=["k"]).inserted == 100


def test_a_view_is_refused_also_with_a_trigger_that_stands_in(store_url: str) -> None:
    headrace.load(ROWS, to=store_url, table="behind", id=["k"])
    make(store_url, "CREATE VIEW ev AS SELECT * FROM behind")
    with pytest.raises(SchemaError, match="it is a view"):
        headrace.load(ROWS, to=store_url, table="ev", id=["k"])


# Revisions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "RETURN NULL;",
        "IF NEW.k = 3 THEN RETURN NULL; END IF; RETURN NEW;",
        "NEW.v := OLD.v; RETURN NEW;",
        "NEW.event_id := gen_random_uuid(); RETURN NEW;",
    ],
)
def test_a_trigger_that_keeps_a_newer_version_out_is_named(postgres_url: str, body: str) -> None:
    named: Any = {"to": postgres_url, "table": "ev", "id": ["k"], "revisions": "update", "version_column": "v"}
    headrace.load([{"k": i, "v": 1} for i in range(10)], **named)
    make(postgres_url, *trigger(body, "BEFORE UPDATE"))
    with pytest.raises(StoreError, match="meddler"):
        headrace.load([{"k": i, "v": 2} for i in range(10)], **named)
    assert look(postgres_url, "SELECT count(*), sum(v) FROM ev") == [(10, 10)]


def test_a_trigger_that_stamps_updates_goes_on(postgres_url: str) -> None:
    make(postgres_url, TABLE, *trigger("NEW.note := 'stamped'; RETURN NEW;", "BEFORE UPDATE"))
    named: Any = {"to": postgres_url, "table": "ev", "id": ["k"], "revisions": "update", "version_column": "v"}
    headrace.load([{"k": i, "v": 1} for i in range(10)], **named)
    assert headrace.load([{"k": i, "v": 2} for i in range(10)], **named).revised == 10
    assert look(postgres_url, "SELECT DISTINCT v, note FROM ev") == [(2, "stamped")]


# SQLite --------------------------------------------------------------------------------------------------------------

LITE = (
    "CREATE TABLE ev (k BIGINT, v BIGINT, note TEXT, event_id BLOB PRIMARY KEY, provider TEXT, headrace_receipt BIGINT)"
)


@pytest.mark.parametrize(
    "body",
    [
        "BEFORE INSERT ON ev WHEN NEW.k % 2 = 0 BEGIN SELECT RAISE(IGNORE); END",
        "AFTER INSERT ON ev WHEN NEW.k = 35 BEGIN DELETE FROM ev WHERE event_id = NEW.event_id; END",
        "AFTER INSERT ON ev BEGIN UPDATE ev SET event_id = randomblob(16) WHERE event_id = NEW.event_id; END",
        "AFTER INSERT ON ev BEGIN UPDATE ev SET headrace_receipt = 0 WHERE event_id = NEW.event_id; END",
        "AFTER INSERT ON ev BEGIN UPDATE ev SET provider = 'x' WHERE event_id = NEW.event_id; END",
        "AFTER INSERT ON ev WHEN NEW.k = 35 BEGIN INSERT INTO ev (k, event_id, provider, headrace_receipt) "
        "VALUES (NEW.k, randomblob(16), NEW.provider, NEW.headrace_receipt); END",
    ],
)
@pytest.mark.parametrize("some", [0, 30])
def test_sqlite_what_a_trigger_may_not_do_ends_with_its_name(sqlite_url: str, body: str, some: int) -> None:
    make(sqlite_url, LITE)
    headrace.load(ROWS[:some] or [{"k": -1, "v": -1}], to=sqlite_url, table="ev", id=["k"])
    before = look(sqlite_url, "SELECT count(*) FROM ev")
    make(sqlite_url, f"CREATE TRIGGER meddler {body}")
    how: Any = {"mode": "parallel", "workers": 1, "strategy": "upsert"} if some else {}
    with pytest.raises(StoreError, match="trigger meddler") as raised:
        headrace.load(ROWS if some else ROWS[:40], to=sqlite_url, table="ev", id=["k"], alerts=[RULE], **how)
    assert raised.value.hint is not None
    assert look(sqlite_url, "SELECT count(*) FROM ev") == before
    assert look(sqlite_url, "SELECT count(*) FROM headrace_alerts") == [(0,)]
    make(sqlite_url, 'DROP TRIGGER "meddler"')
    headrace.load(ROWS, to=sqlite_url, table="ev", id=["k"])
    assert look(sqlite_url, "SELECT count(*) FROM ev WHERE k >= 0") == [(100,)]


@pytest.mark.parametrize(
    "body",
    [
        "AFTER INSERT ON ev BEGIN UPDATE ev SET note = 'stamped' WHERE event_id = NEW.event_id; END",
        "AFTER INSERT ON ev BEGIN INSERT INTO audit VALUES (NEW.event_id); END",
        "BEFORE DELETE ON ev BEGIN SELECT RAISE(ABORT, 'no'); END",
    ],
)
def test_sqlite_what_a_trigger_may_do_goes_on(sqlite_url: str, body: str) -> None:
    make(sqlite_url, LITE, "CREATE TABLE audit (event_id BLOB)", f"CREATE TRIGGER meddler {body}")
    assert headrace.load(ROWS[:60], to=sqlite_url, table="ev", id=["k"]).inserted == 60
    report = headrace.load(ROWS, to=sqlite_url, table="ev", id=["k"], mode="parallel", workers=1, strategy="upsert")
    assert (report.inserted, report.duplicate_in_store) == (40, 60)


def test_sqlite_a_trigger_that_keeps_a_newer_version_out_is_named(sqlite_url: str) -> None:
    named: Any = {"to": sqlite_url, "table": "ev", "id": ["k"], "revisions": "update", "version_column": "v"}
    headrace.load([{"k": i, "v": 1} for i in range(10)], **named)
    make(sqlite_url, "CREATE TRIGGER meddler BEFORE UPDATE ON ev WHEN NEW.k = 3 BEGIN SELECT RAISE(IGNORE); END")
    with pytest.raises(StoreError, match="meddler"):
        headrace.load([{"k": i, "v": 2} for i in range(10)], **named)
    assert look(sqlite_url, "SELECT count(*), sum(v) FROM ev") == [(10, 10)]


@pytest.mark.parametrize("table", ["headrace_rejects", "headrace_alerts"])
def test_a_trigger_that_swallows_rejects_or_alerts_is_found_out(store_url: str, tmp_path: Path, table: str) -> None:
    (tmp_path / "in.csv").write_text("k,v\n1,1\n2,x\n3,3\n")
    more: Any = {"to": store_url, "table": "ev", "id": ["k"], "alerts": [AlertRule("all", where="true")]}
    headrace.load([{"k": 9, "v": 9}], **more)
    if store_url.startswith("sqlite"):
        make(store_url, f"CREATE TRIGGER t BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END")
    else:
        make(store_url, *trigger("RETURN NULL;", table=table))
    with pytest.raises(StoreError, match="took 0") as raised:
        headrace.load(str(tmp_path / "in.csv"), **more)
    assert raised.value.hint
    assert look(store_url, "SELECT count(*) FROM ev") == [(1,)]
