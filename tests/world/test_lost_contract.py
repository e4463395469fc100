"""The row of ``headrace_contracts`` is gone, and the events are not: the ledger was dropped, emptied or restored
from an older copy. The IDs tell by which identity they were made; another identity would bring each event again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from contract.pieces import look, make
from support.program import Headrace

import headrace as package
from headrace.errors import ContractError, UsageError

LOST = {
    "deleted": "DELETE FROM headrace_contracts",
    "renamed": "UPDATE headrace_contracts SET table_name = 'other'",
}
ROWS = [{"k": i, "at": datetime(2024, 1, i, tzinfo=UTC), "v": i / 2} for i in range(1, 8)]


def load(url: str, rows: object = ROWS, **named: Any) -> package.Report:
    return package.load(rows, to=url, table="ev", **named)


def count(url: str) -> int:
    ((rows,),) = look(url, "SELECT count(*) FROM ev")
    return int(rows)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize(
    ("first", "later"),
    [
        ({"id": ["k"]}, {}),
        ({}, {"id": ["k"]}),
        ({"id": ["k", "at"], "time": "at"}, {"id": ["k", "at"]}),
        ({"id": ["k"]}, {"id": ["k"], "scope": "global"}),
        ({"id": ["k"]}, {"id": ["k"], "hash": "blake2b"}),
    ],
)
def test_another_identity_is_refused(store_url: str, lost: str, first: dict[str, Any], later: dict[str, Any]) -> None:
    load(store_url, **first)
    make(store_url, LOST[lost])
    with pytest.raises(ContractError, match="come in a second time") as raised:
        load(store_url, **later)
    assert raised.value.hint
    assert load(store_url, **first).duplicate_in_store == len(ROWS)
    assert load(store_url).duplicate_in_store == len(ROWS)
    assert count(store_url) == len(ROWS)


def test_the_whole_ledger_may_go(headrace: Headrace, tmp_path: Path) -> None:
    (tmp_path / "ev.csv").write_text("k,v\n1,0.5\n2,1.5\n")
    headrace.load(tmp_path / "ev.csv", "--table", "ev", "--id", "k")
    postgres = headrace.url.startswith("postgresql")
    listed = "SELECT tablename FROM pg_tables" if postgres else "SELECT name FROM sqlite_master WHERE type = 'table'"
    tables = [name for (name,) in look(headrace.url, listed) if name.startswith("headrace_")]
    make(headrace.url, *(f"DROP TABLE {name}{' CASCADE' if postgres else ''}" for name in tables))
    assert "--id" in headrace.run("load", tmp_path / "ev.csv", "--table", "ev", expect=2).stderr
    assert not [name for (name,) in look(headrace.url, listed) if name.startswith("headrace_")]
    report = headrace.load(tmp_path / "ev.csv", "--table", "ev", "--id", "k")
    assert (report["inserted"], report["duplicate_in_store"]) == (0, 2)


def test_a_row_that_was_changed_by_hand_is_no_reason_to_refuse(store_url: str) -> None:
    load(store_url, id=["k"])
    make(store_url, LOST["deleted"], "UPDATE ev SET k = k + 100 WHERE k < 7")
    assert load(store_url, id=["k"]).duplicate_in_store == len(ROWS)


def test_rows_that_no_load_has_brought_tell_nothing(store_url: str) -> None:
    columns = "k bigint, at timestamp, v double precision, provider text, headrace_receipt bigint"
    make(store_url, f"CREATE TABLE ev (event_id {'uuid' if 'post' in store_url else 'BLOB'} UNIQUE, {columns})")
    load(store_url, id=["k"])
    make(store_url, LOST["deleted"], "UPDATE ev SET headrace_receipt = NULL")
    assert load(store_url, id=["k", "v"]).inserted == len(ROWS)


def test_another_provider_s_events_are_asked_about(store_url: str) -> None:
    load(store_url, id=["k"], provider="usgs")
    make(store_url, LOST["deleted"], "DELETE FROM headrace_receipts")
    with pytest.raises(UsageError, match="usgs"):
        load(store_url, id=["k"])
    assert load(store_url, id=["k"], provider="usgs").duplicate_in_store == len(ROWS)


# The stored contract is a belief as well ----------------------------------------------------------------------

RESTORED = {
    "another contract": "UPDATE headrace_contracts "
    """SET contract = REPLACE(contract, '["k","integer"]', '["v","float"]')""",
    "IDs changed by hand": "UPDATE ev SET event_id = {other}",
}


def changed(url: str, what: str) -> None:
    other = "gen_random_uuid()" if url.startswith("postgresql") else "randomblob(16)"
    make(url, RESTORED[what].format(other=other))


@pytest.mark.parametrize("what", RESTORED)
@pytest.mark.parametrize("first", [{"id": ["k"]}, {"id": ["k"], "time": "at"}, {"id": ["k"], "scope": "global"}])
def test_a_contract_that_gives_the_events_other_ids_is_refused(
    store_url: str, what: str, first: dict[str, Any]
) -> None:
    load(store_url, **first)
    changed(store_url, what)
    before = look(store_url, "SELECT contract FROM headrace_contracts")
    with pytest.raises(ContractError, match="come in a second time") as raised:
        load(store_url)
    assert raised.value.hint
    assert look(store_url, "SELECT contract FROM headrace_contracts") == before
    assert count(store_url) == len(ROWS)


@pytest.mark.parametrize("what", RESTORED)
def test_a_warm_engine_refuses_as_well(store_url: str, what: str) -> None:
    with package.Engine(to=store_url, table="ev", id=["k"]) as engine:
        engine.ingest(ROWS)
        engine.ingest(ROWS)
        changed(store_url, what)
        with pytest.raises(ContractError):
            engine.ingest(ROWS)
    assert count(store_url) == len(ROWS)


def test_rows_without_identity_do_not_tell_that_the_contract_is_another(store_url: str) -> None:
    blank = [{"k": None, "v": float(i)} for i in range(5)]
    load(store_url, [*blank, {"k": 1, "v": 0.5}], id=["k"], missing_id="keep-whole-row")
    make(store_url, "DELETE FROM ev WHERE k = 1")
    report = load(store_url, [*blank, {"k": 1, "v": 0.5}], id=["k"], missing_id="keep-whole-row")
    assert (report.inserted, report.duplicate_in_store) == (1, 5)


def test_some_rows_with_their_ids_are_enough(store_url: str) -> None:
    load(store_url, id=["k"])
    make(store_url, "UPDATE ev SET k = k + 100 WHERE k < 7")
    assert load(store_url).duplicate_in_store == len(ROWS)
