"""Contracts, runs, receipts and rejects: what the ledger is told it says again, to every process."""

from __future__ import annotations

import datetime as dt
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pytest
from contract.pieces import RUN, TABLE, batch, look, make, new_ids, open_run, piece, prepared, reject

from headrace.storage import open_store
from headrace.storage.records import Address, Counts, RunRecord
from headrace.storage.rejects import Reject
from headrace.storage.store import Store

A_RUN = RunRecord(RUN, TABLE, "acme", "job", "key", '["in.csv"]', "parallel", "partitioned", 2, "0.1", shape="{}")


def test_the_first_contract_pinned_stays(store: Store) -> None:
    assert store.ledger.pinned_contract(TABLE) is None
    assert store.ledger.pin_contract(TABLE, '{"version": 1}') == '{"version": 1}'
    assert store.ledger.pin_contract(TABLE, '{"version": 2}') == '{"version": 1}'
    assert store.ledger.pinned_contract(TABLE) == '{"version": 1}'
    assert store.ledger.tables() == [TABLE]


def test_processes_that_pin_at_once_all_get_the_same_contract(store_url: str) -> None:
    def pin(number: int) -> str:
        with open_store(store_url) as store:
            store.ledger.prepare()
            return store.ledger.pin_contract(TABLE, str(number))

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(pin, range(6)))) == 1


def test_a_run_comes_back_as_it_was_started_with_the_servers_time(store: Store) -> None:
    started = store.ledger.start_run(A_RUN)
    assert started.started_at is not None
    assert started.started_at.utcoffset() == dt.timedelta(0)
    assert abs(started.started_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    assert started == replace(A_RUN, started_at=started.started_at)
    assert store.ledger.run(RUN) == started


def test_a_finished_run_holds_the_sum_of_its_receipts(store: Store) -> None:
    prepared(store)
    store.events.commit(piece(new_ids(10), rejects=[reject()]))
    store.events.commit(piece(new_ids(15), first_row=100))
    done = store.ledger.finish_run(RUN, status="done", seconds=2.5)
    whole = Counts(read=26, inserted=10 + len(set(new_ids(15)) - set(new_ids(10))), rejected=1)
    assert done.counts == replace(whole, duplicate_in_store=26 - whole.inserted - 1)
    assert (done.status, done.chunks, done.seconds) == ("done", 2, 2.5)
    assert done.finished_at is not None
    assert store.ledger.run(RUN) == done


def test_a_run_without_receipts_has_empty_books(store: Store) -> None:
    store.ledger.start_run(A_RUN)
    failed = store.ledger.finish_run(RUN, status="failed", seconds=1.0, error="nul \0 and \ud800")
    assert (failed.counts, failed.chunks, failed.status) == (Counts(), 0, "failed")
    assert failed.error == "nul \\u0000 and \\ud800"


def test_the_newest_unfinished_run_of_a_job_is_found_and_opened_again(store: Store) -> None:
    assert store.ledger.unfinished_runs(TABLE, "job", limit=9) == []
    for number, status in enumerate(["failed", "interrupted", "done"]):
        run = replace(A_RUN, run_id=f"run-{number}")
        store.ledger.start_run(run)
        store.ledger.finish_run(run.run_id, status=status, seconds=1.0)  # type: ignore[arg-type]  # one of the literals
    store.ledger.start_run(replace(A_RUN, run_id="other", job="another"))
    store.ledger.start_run(replace(A_RUN, run_id="elsewhere", table="another"))
    found = store.ledger.unfinished_runs(TABLE, "job", limit=9)
    assert [(one.run_id, one.status) for one in found] == [
        ("run-1", "interrupted"),
        ("run-0", "failed"),
        ("other", "running"),
    ]
    now = store.ledger.reopen_run("run-1")
    assert now.utcoffset() == dt.timedelta(0)
    again = store.ledger.run("run-1")
    assert again is not None
    assert again.status == "running"
    assert store.ledger.finish_run("run-1", status="done", seconds=2.0).seconds == 3.0


def test_runs_are_listed_newest_first(store: Store) -> None:
    for number in range(4):
        store.ledger.start_run(replace(A_RUN, run_id=f"run-{number}", table=f"t{number % 2}"))
    assert [run.run_id for run in store.ledger.runs()] == ["run-3", "run-2", "run-1", "run-0"]
    assert [run.run_id for run in store.ledger.runs(table="t1", limit=1)] == ["run-3"]


def test_a_run_is_found_by_a_prefix_only_if_it_is_unique_or_whole(store: Store) -> None:
    for run_id in ("abc", "abcd", "a%c", "xyz"):
        store.ledger.start_run(replace(A_RUN, run_id=run_id))
    assert [one and one.run_id for one in map(store.ledger.run, ("x", "xyz", "ab", "a%", "abc", "nope"))] == [
        "xyz",
        "xyz",
        None,
        "a%c",
        "abc",
        None,
    ]


def test_receipts_say_where_when_and_how_many(store: Store) -> None:
    prepared(store)
    done = [store.events.commit(piece(new_ids(4, seed=n), first_row=n * 10, digest=f"d{n}")) for n in range(3)]
    receipts = store.ledger.receipts(RUN)
    assert [receipt.receipt_id for receipt in receipts] == [one.receipt_id for one in done]
    assert [receipt.address for receipt in receipts] == [Address("in.csv", n * 10, 4) for n in range(3)]
    assert [receipt.digest for receipt in receipts] == ["d0", "d1", "d2"]
    assert [receipt.counts for receipt in receipts] == [one.counts for one in done]
    assert all(receipt.committed_at.utcoffset() == dt.timedelta(0) for receipt in receipts)


def test_the_partitions_of_a_chunk_have_a_receipt_each(store: Store) -> None:
    prepared(store)
    parts = [piece(new_ids(4 + n, seed=n), partition=n, digest=f"d{n}") for n in (0, 2, 1)]
    done = [store.events.commit(part) for part in parts]
    again = [store.events.commit(part) for part in parts]
    assert [one.already_done for one in done + again] == [False] * 3 + [True] * 3
    assert [one.receipt_id for one in again] == [one.receipt_id for one in done]
    assert [one.counts for one in again] == [one.counts for one in done]
    receipts = store.ledger.receipts(RUN)
    assert [(one.partition, one.digest, one.counts.inserted) for one in receipts] == [
        (0, "d0", 4),
        (2, "d2", 6),
        (1, "d1", 5),
    ]
    run = store.ledger.finish_run(RUN, status="done", seconds=1.0)
    assert (run.chunks, run.counts.inserted) == (3, 15)


def test_a_receipt_of_an_early_version_names_its_chunks(store: Store, store_url: str) -> None:
    prepared(store)
    store.events.commit(piece(new_ids(8), partition=1))
    store.events.commit(piece(new_ids(8), partition=2))
    spans = '[["in.csv", 0, 3], ["na\u00efve \\"b\\".csv", 10, 4]]'
    make(store_url, "UPDATE headrace_receipts SET spans = '" + spans + "' WHERE partition = 1")  # noqa: S608 - the test's own text
    first, second = store.ledger.receipts(RUN)
    assert first.chunks == (Address("in.csv", 0, 3), Address('na\u00efve "b".csv', 10, 4))
    assert second.chunks == (second.address,)


def test_a_receipt_names_table_and_provider(store_url: str) -> None:
    with open_store(store_url) as store:
        prepared(store).events.commit(piece(new_ids(1)))
    assert look(store_url, "SELECT table_name, provider FROM headrace_receipts") == [(TABLE, "acme")]


HARD_TEXTS = ["", "nul \0 inside", "lone \ud800 surrogate", "naïve 🜁", 'it\'s "quoted" \\0', "x" * 100_000]


@pytest.mark.parametrize("text", HARD_TEXTS, ids=range(len(HARD_TEXTS)))
def test_any_text_of_a_reject_can_be_kept(store: Store, text: str) -> None:
    prepared(store)
    store.events.commit(piece([], rejects=[reject(0, raw=text, reason=text, record=text, column=text)]))
    (kept,) = store.rejects.find()
    shown = text.replace("\0", "\\u0000").replace("\ud800", "\\ud800")
    assert (kept.reject.raw, kept.reject.reason, kept.reject.record, kept.reject.column) == (shown,) * 4


def test_rejects_come_back_whole_and_oldest_first(store: Store) -> None:
    prepared(store)
    bare = Reject("b.csv", None, None, None, "cannot be split", "raw", None, "prepare")
    store.events.commit(piece([], rejects=[reject(0), bare, reject(2, record='{"n": null}')]))
    kept = store.rejects.find()
    assert [one.reject for one in kept] == [reject(0), bare, reject(2, record='{"n": null}')]
    assert {(one.run_id, one.table, one.provider, one.state) for one in kept} == {(RUN, TABLE, "acme", "kept")}
    assert all(one.created_at.utcoffset() == dt.timedelta(0) for one in kept)
    assert [one.reject_id for one in kept] == sorted(one.reject_id for one in kept)


def test_rejects_are_chosen_by_table_run_ids_state_and_number(store: Store) -> None:
    prepared(store)
    store.events.commit(piece([], rejects=[reject(n) for n in range(5)]))
    ids = [one.reject_id for one in store.rejects.find()]
    assert store.rejects.discard(ids[:2]) == 2
    assert store.rejects.discard(ids[:3]) == 1
    assert store.rejects.discard([]) == 0

    def found(**chosen: object) -> list[int]:
        return [one.reject_id for one in store.rejects.find(**chosen)]  # type: ignore[arg-type]  # the protocol's names

    assert found() == found(table=TABLE) == found(run_id=RUN) == ids[3:]
    assert found(table="other") == found(run_id="other") == found(ids=[]) == []
    assert found(state=None) == ids
    assert found(state="discarded") == ids[:3]
    assert found(state=None, limit=2) == ids[:2]
    assert found(state=None, ids=[ids[1], ids[4], 10**9]) == [ids[1], ids[4]]


@pytest.mark.slow
def test_more_rejects_than_a_statement_takes_parameters_are_found_and_settled(store: Store) -> None:
    many = 70_000  # PostgreSQL takes 65,535 parameters, SQLite 32,766
    prepared(store)
    store.events.commit(piece([], rejects=[reject(n) for n in range(many)]))
    kept = store.rejects.find()
    ids = [one.reject_id for one in kept]
    assert len(ids) == len(store.rejects.find(ids=ids)) == many
    store.events.commit(piece([], first_row=many, replayed=kept[: many - 10]))
    assert store.rejects.discard(ids) == 10


def test_an_event_is_traced_to_its_receipt_and_run(store: Store) -> None:
    prepared(store)
    ids = new_ids(3)
    done = store.events.commit(piece(ids, first_row=7))
    origin = store.origin(TABLE, ids[1])
    assert origin is not None
    assert (origin.row["n"], origin.row["s"], origin.row["provider"]) == (1, "1", "acme")
    assert origin.receipt is not None
    assert (origin.receipt.receipt_id, origin.receipt.address) == (done.receipt_id, Address("in.csv", 7, 3))
    assert origin.run is not None
    assert origin.run.run_id == RUN
    assert store.origin(TABLE, uuid.uuid4().bytes) is None


def test_a_traced_event_shows_canonical_values_on_both_databases(store: Store) -> None:
    schema = pa.schema([("t", pa.timestamp("us", tz="UTC")), ("d", pa.date32()), ("b", pa.bool_())])
    prepared(store, schema=schema)
    values = [dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)], [dt.date(2020, 1, 2)], [True]
    columns = {field.name: pa.array(value, field.type) for field, value in zip(schema, values, strict=True)}
    ids = new_ids(1)
    store.events.commit(piece(batch(ids, columns)))
    origin = store.origin(TABLE, ids[0])
    assert origin is not None
    shown = {name: str(origin.row[name])[:19] for name in ("t", "d")}
    assert shown == {"t": "2020-01-02T03:04:05", "d": "2020-01-02"}


def test_an_event_of_nobodys_receipt_has_a_row_but_no_origin(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
        one = uuid.uuid4()
        make(postgres_url, f"INSERT INTO events VALUES ('{one}', 1, now(), 's', 'p', 0)")  # noqa: S608
        origin = store.origin(TABLE, one.bytes)
    assert origin is not None
    assert origin.receipt is None
    assert origin.run is None


def test_the_stores_facts_are_told_without_the_password(store: Store) -> None:
    facts = store.checks.describe()
    assert facts
    assert all(isinstance(value, str) and value for value in facts.values())
    open_run(store)
