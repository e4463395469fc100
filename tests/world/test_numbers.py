"""A number of an alert, a reject or a receipt is given once, whatever is pruned, emptied, restored or counted anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from contract.test_upgrades import first_release
from support.program import Headrace

import headrace as library
from headrace import AlertRule
from headrace.storage import open_store
from headrace.storage.outbox import Attempt
from headrace.storage.store import Store

BAD: list[dict[str, object]] = [{"k": 1, "v": "7"}, {"k": 2, "v": "oops"}]


def loaded(url: str, keys: Sequence[int]) -> int:
    rule = AlertRule("all", where="true")
    report = library.load([{"k": k} for k in keys], to=url, table="ev", id=["k"], alerts=[rule])
    return report.inserted


def slow_dispatcher(store: Store, url: str) -> Attempt:
    """What a dispatcher has to say of its alert, long after another has settled it and somebody has pruned it."""
    loaded(url, [1])
    (held,) = store.outbox.claim("slow", limit=1, seconds=-1)
    (again,) = store.outbox.claim("quick", limit=1, seconds=60)
    store.outbox.settle("quick", [Attempt(again.alert_id, "delivered", key=again.key)])
    assert store.outbox.prune(-1) == 1
    return Attempt(held.alert_id, "delivered", key=held.key)


def states(store: Store) -> list[tuple[str, int]]:
    return [(one.state, one.attempts) for one in store.outbox.find()]


def settled(late: Attempt) -> list[Attempt]:
    """With the key, as the dispatcher says it, and without."""
    return [late, Attempt(late.alert_id, late.state)]


@pytest.mark.parametrize("after", ["nothing", "vacuum", "reopened"])
def test_a_late_delivered_of_a_pruned_alert_is_not_said_of_a_new_one(
    store_url: str, headrace: Headrace, after: str
) -> None:
    with open_store(store_url) as store:
        store.ledger.prepare()
        late = slow_dispatcher(store, store_url)
        if after == "vacuum" and store_url.startswith("sqlite"):
            store.database.engine.raw_connection().execute("VACUUM")
        if after == "reopened":
            store.close()
        loaded(store_url, [2])
        for one in settled(late):
            store.outbox.settle("slow", [one])
        assert states(store) == [("pending", 0)]
        assert store.outbox.find()[0].alert_id > late.alert_id


@pytest.mark.parametrize("claimed", [False, True])
def test_nor_where_the_database_was_told_to_count_anew(store_url: str, headrace: Headrace, claimed: bool) -> None:
    with open_store(store_url) as store:
        store.ledger.prepare()
        late = slow_dispatcher(store, store_url)
        if store_url.startswith("sqlite"):
            headrace.query("DELETE FROM sqlite_sequence WHERE name = 'headrace_alerts'")
        else:
            headrace.query("TRUNCATE headrace_alerts RESTART IDENTITY")
        loaded(store_url, [2])
        if claimed:
            store.outbox.claim("another", limit=1, seconds=60)
        assert store.outbox.find()[0].alert_id == late.alert_id, "the database was told so"
        for one in settled(late):
            store.outbox.settle("slow", [one])
        assert states(store) == [("pending", int(claimed))]


@pytest.mark.parametrize("how", ["set back", "emptied", "dropped"])
def test_a_load_goes_on_where_the_ledger_counts_behind_what_is_there(
    store_url: str, headrace: Headrace, how: str
) -> None:
    """A restore brings rows with their numbers; the counter may be an older one."""
    lite = store_url.startswith("sqlite")

    def load(rows: list[dict[str, object]]) -> library.Report:
        rule = AlertRule("all", where="true")
        return library.load(rows, to=store_url, table="ev", id=["k"], types={"v": "integer"}, alerts=[rule])

    load(BAD)
    tables = [("headrace_receipts", "receipt_id"), ("headrace_rejects", "reject_id"), ("headrace_alerts", "alert_id")]
    for table, column in tables:
        if how == "dropped":
            headrace.query(f"DROP TABLE {table}")
        elif how == "emptied":
            headrace.query(f"DELETE FROM {table}")  # noqa: S608 - our own names
        if how != "dropped":
            set_back = f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), 1, false)"
            headrace.query(f"DELETE FROM sqlite_sequence WHERE name = '{table}'" if lite else set_back)  # noqa: S608
    report = load([*BAD, {"k": 3, "v": "9"}, {"k": 4, "v": "bad"}])
    assert (report.inserted, report.duplicate_in_store, report.rejected) == (1, 1, 2)
    receipts = headrace.query("SELECT k, headrace_receipt FROM ev ORDER BY k")
    assert [k for k, _ in receipts] == [1, 3]
    if how != "emptied":  # there, nothing but every row of the table could say which numbers are in use
        assert len({receipt for _, receipt in receipts}) == 2, "one number, two loads"
    assert headrace.query("SELECT alerts FROM headrace_receipts ORDER BY receipt_id DESC LIMIT 1") == [(1,)]


def test_the_ledger_of_an_older_release_counts_on_and_keeps_what_was_added_to_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    first_release(sqlite_url)
    headrace = Headrace(sqlite_url, tmp_path)
    for statement in (
        "ALTER TABLE headrace_rejects ADD COLUMN note TEXT",
        "UPDATE headrace_rejects SET note = 'mine'",
        "CREATE INDEX mine ON headrace_rejects (note)",
        "CREATE VIEW kept AS SELECT * FROM headrace_rejects WHERE state = 'kept'",
        "CREATE TRIGGER told AFTER DELETE ON headrace_rejects BEGIN SELECT 1; END",
    ):
        headrace.query(statement)
    with open_store(sqlite_url) as store:
        store.ledger.prepare()
        store.ledger.prepare()
    assert headrace.query("SELECT reject_id, note, raw FROM kept") == [(1, "mine", "x")]
    theirs = "SELECT count(*) FROM sqlite_master WHERE name IN ('mine', 'told', 'ix_headrace_rejects_run_id')"
    assert headrace.query(theirs) == [(3,)]
    headrace.query("DELETE FROM headrace_rejects")
    (tmp_path / "bad.csv").write_text("n\nx\n")
    headrace.load(tmp_path / "bad.csv", "--table", "t", expect=3)
    assert headrace.query("SELECT reject_id FROM headrace_rejects") == [(2,)]
