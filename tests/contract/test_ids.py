"""Existing IDs: every one of the range asked for, once, in blocks of bounded size, by one statement."""

from __future__ import annotations

import datetime as dt
import uuid

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from contract.pieces import TABLE, batch, make, new_ids, open_run, packed, piece, prepared

from headrace.storage import open_store
from headrace.storage.digest import Digest
from headrace.storage.id_sums import IdSum
from headrace.storage.records import IdRange, TimeRange
from headrace.storage.store import Store

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("count", [0, 1, 9_999, 10_000, 10_001, 25_000])
def test_every_id_comes_once_in_bounded_blocks(store: Store, count: int) -> None:
    ids = new_ids(count)
    prepared(store).events.commit(piece(ids))
    blocks = list(store.events.fetch_ids(TABLE))
    assert packed(iter(blocks)) == ids
    along_the_key = list(store.events.fetch_ids(TABLE, IdRange()))
    assert packed(iter(along_the_key)) == ids
    assert all(0 < len(block) <= 16 * 10_000 and len(block) % 16 == 0 for block in [*blocks, *along_the_key])


def test_a_range_of_ids_includes_its_low_end_only(store: Store) -> None:
    ids = new_ids(100)
    prepared(store).events.commit(piece(ids))
    for low, high in [(None, None), (10, None), (None, 20), (10, 20), (20, 10), (0, 99)]:
        where = IdRange(None if low is None else ids[low], None if high is None else ids[high])
        assert packed(store.events.fetch_ids(TABLE, where)) == ids[low:high], (low, high)


def test_a_range_of_time_includes_its_low_end_and_nulls(store: Store) -> None:
    ids = new_ids(100)
    seconds = [None if n % 10 == 0 else n * 1_000_000 for n in range(100)]
    columns = {"n": pa.array(range(100), pa.int64()), "t": pa.array(seconds, pa.timestamp("us", tz="UTC"))}
    prepared(store).events.commit(piece(batch(ids, columns)))
    berlin = dt.timezone(dt.timedelta(hours=2))
    for low, high in [(None, None), (10, None), (None, 20), (11, 21), (50, 40)]:
        edges = [None if one is None else (EPOCH + dt.timedelta(seconds=one)).astimezone(berlin) for one in (low, high)]
        expected = [one for n, one in enumerate(ids) if n % 10 == 0 or ((low or 0) <= n and (high is None or n < high))]
        assert packed(store.events.fetch_ids(TABLE, TimeRange("t", *edges))) == expected, (low, high)


def test_a_limit_bounds_the_number_of_ids(store: Store) -> None:
    ids = new_ids(30_000)
    prepared(store).events.commit(piece(ids))
    for limit in (0, 1, 9_999, 10_000, 10_001, 30_000, 40_000):
        for where in (None, IdRange()):
            found = packed(store.events.fetch_ids(TABLE, where, limit=limit))
            assert len(set(found)) == len(found) == min(limit, 30_000)
            assert set(found) <= set(ids)


def test_one_statement_brings_them_all(store_url: str) -> None:
    statements: list[str] = []
    with open_store(store_url, on_statement=statements.append) as store:
        prepared(store).events.commit(piece(new_ids(25_000)))
        statements.clear()
        list(store.events.fetch_ids(TABLE))
    assert len([one for one in statements if not one.startswith("BEGIN")]) == 1


def test_a_reader_that_stops_early_leaves_the_store_usable(store: Store) -> None:
    ids = new_ids(30_000)
    prepared(store).events.commit(piece(ids))
    blocks = store.events.fetch_ids(TABLE)
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]  # a generator, as every iterator here is
    assert store.events.commit(piece(new_ids(5, seed=1), first_row=50_000)).counts.inserted == 5
    assert len(packed(store.events.fetch_ids(TABLE))) == 30_005


def test_the_ledger_says_what_each_receipt_brought_and_the_table_what_it_holds(store: Store) -> None:
    prepared(store)
    store.tables.create_or_widen("other", pa.schema([("n", pa.int64())]), time_index=None)
    open_run(store, run_id="second")
    open_run(store, run_id="foreign", key="other key")
    open_run(store, run_id="elsewhere", table="other")
    store.events.commit(piece(new_ids(10, seed=1)))
    store.events.commit(piece(new_ids(10, seed=2), run_id="second"))
    store.events.commit(piece(new_ids(10, seed=3), run_id="foreign"))
    again = sorted(new_ids(10, seed=3)[:4] + new_ids(6, seed=4))
    store.events.commit(piece(again, run_id="foreign", first_row=10, existing="conflict"))
    entries = list(store.ledger.entries(TABLE))
    books = [(entry.inputs_key, entry.inserted) for entry in entries]
    assert books == [("key", 10), ("key", 10), ("other key", 10), ("other key", 6)]
    brought = [*(new_ids(10, seed=seed) for seed in (1, 2, 3)), new_ids(6, seed=4)]
    for entry, ids in zip(entries, brought, strict=True):
        assert held_under(store, entry.receipt_id) == ids
        assert entry.digest == Digest.of_packed(b"".join(ids)).to_bytes()
    assert list(store.ledger.entries("other")) == []


def held_under(store: Store, receipt_id: int) -> list[bytes]:
    """The IDs that the table holds under a receipt, sorted."""
    found = [
        block.ids[16 * at : 16 * at + 16]
        for block in store.events.holdings(TABLE)
        for at, receipt in enumerate(block.receipts)
        if receipt == receipt_id
    ]
    return sorted(found)


def test_a_ledger_of_an_earlier_version_gets_the_column_it_lacks(store_url: str) -> None:
    with open_store(store_url) as store:
        prepared(store).events.commit(piece(new_ids(3)))
    make(store_url, "ALTER TABLE headrace_receipts DROP COLUMN inserted_digest", "DROP TABLE headrace_schema")
    with open_store(store_url) as store:
        store.ledger.prepare()
        store.events.commit(piece(new_ids(2, seed=1), first_row=3))
        assert [entry.digest is None for entry in store.ledger.entries(TABLE)] == [True, False]


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
def test_a_time_range_is_utc_whatever_the_sessions_zone(postgres_url: str, kind: str) -> None:
    early, late = sorted(uuid.uuid4() for _ in range(2))
    make(
        postgres_url,
        f"CREATE TABLE events (event_id uuid PRIMARY KEY, provider text, headrace_receipt bigint, t {kind})",
        f"INSERT INTO events VALUES ('{early}', 'p', 0, '2020-01-01 00:00:00+00')",  # noqa: S608
        f"INSERT INTO events VALUES ('{late}', 'p', 0, '2020-01-02 00:00:00+00')",  # noqa: S608
    )
    with open_store(postgres_url + "&options=-ctimezone%3DAsia/Tokyo") as store:
        day = dt.datetime(2020, 1, 2, tzinfo=dt.UTC)
        assert packed(store.events.fetch_ids(TABLE, TimeRange("t", low=day))) == [late.bytes]
        assert packed(store.events.fetch_ids(TABLE, TimeRange("t", high=day))) == [early.bytes]


def test_the_server_sums_ids_as_we_do(postgres_url: str) -> None:
    """What a proof rests on: PostgreSQL's own hash of a uuid, over ranges that do not meet."""
    ids = np.frombuffer(np.random.default_rng(7).bytes(16 * 500), dtype=np.uint8).reshape(-1, 16).copy()
    ids[0], ids[1], ids[2, 8:] = 0, 255, 0
    with open_store(postgres_url) as store:
        store.ledger.prepare()
        store.tables.create_or_widen("t", pa.schema([("n", pa.int64())]), time_index=None)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            for one in ids:
                row = (uuid.UUID(bytes=one.tobytes()),)
                connection.execute("INSERT INTO t (event_id, provider, headrace_receipt) VALUES (%s, 'p', 1)", row)
        assert store.events.id_sum("t", [None]) == IdSum.of(ids)
        assert store.events.id_sum("t", []) == IdSum()
        first = ids[:, 0]
        ranges = [IdRange(bytes([0x20]) + bytes(15), bytes([0x40]) + bytes(15)), IdRange(bytes([0xF0]) + bytes(15))]
        assert store.events.id_sum("t", ranges) == IdSum.of(ids[((first >= 0x20) & (first < 0x40)) | (first >= 0xF0)])
