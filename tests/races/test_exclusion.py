"""What keeps writers out of each other's way: slices sorted by ID, locks on partitions, whatever the chunk."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pyarrow as pa
import pytest
from contract.pieces import TABLE, look, new_ids, piece, prepared

import headrace
from headrace.errors import LockTimeoutError
from headrace.storage import open_store
from headrace.storage.locks import lock_keys
from headrace.storage.records import Slice
from headrace.storage.sqlite.events import SqliteEvents
from headrace.storage.store import Store


def test_the_safe_path_inserts_in_the_order_of_the_ids(postgres_url: str) -> None:
    """Two writers that insert the same events in two orders deadlock; whoever hands them over, they go in sorted."""
    ids = new_ids(200)
    random.Random(1).shuffle(ids)
    with open_store(postgres_url) as store:
        prepared(store).events.commit(piece(ids, existing="conflict"))
    stored = [row[0].bytes for row in look(postgres_url, f"SELECT event_id FROM {TABLE} ORDER BY ctid")]  # noqa: S608
    assert stored == sorted(ids)


@pytest.mark.parametrize("strategy", ["sequential", "partitioned", "upsert", "locked"])
def test_every_slice_is_sorted_by_id_when_the_store_gets_it(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    slices: list[Slice] = []
    commit = SqliteEvents.commit

    def seen(store: Store, given: Slice) -> object:
        slices.append(given)
        return commit(store, given)  # type: ignore[arg-type]

    monkeypatch.setattr(SqliteEvents, "commit", seen)
    rows = pa.table({"n": random.Random(2).sample(range(10**6), 3000)})
    with ThreadPoolExecutor(2) as pool:
        how = {} if strategy == "sequential" else {"mode": "parallel", "strategy": strategy, "executor": pool}
        headrace.load(rows, to=sqlite_url, table="t", chunk_rows=500, **how)  # type: ignore[arg-type]
    for given in slices:
        ids = given.events.column("event_id").to_pylist() if given.events.num_rows else []
        assert ids == sorted(ids)
    assert sum(given.events.num_rows for given in slices) == 3000


def test_a_loader_waits_for_whoever_holds_its_partition_and_for_nobody_else(postgres_url: str) -> None:
    """A lock on anything but the partition, on the chunk for example, would let this load pass."""
    with ThreadPoolExecutor(1) as pool, psycopg.connect(postgres_url) as other:
        how = {"to": postgres_url, "table": "t", "mode": "parallel", "strategy": "locked", "executor": pool}
        how |= {"partitions": 8, "lock_timeout": 0.2}
        headrace.load([{"n": n} for n in range(100)], **how)  # type: ignore[arg-type]
        for partition in range(8):
            for key in lock_keys("t", partition, 8):
                other.execute("SELECT pg_advisory_xact_lock(%s)", [key])
        with pytest.raises(LockTimeoutError):
            headrace.load([{"n": n} for n in range(100, 200)], **how)  # type: ignore[arg-type]
        assert headrace.load([{"n": 1}], **{**how, "table": "u"}).inserted == 1  # type: ignore[arg-type]
        other.rollback()
        assert headrace.load([{"n": n} for n in range(200)], **how).inserted == 100  # type: ignore[arg-type]
