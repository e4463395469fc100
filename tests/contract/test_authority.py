"""Promise 1: the unique key alone decides what is a duplicate, whatever the snapshot said."""

from __future__ import annotations

import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from contract.pieces import SCHEMA, WAYS, new_ids, open_run, packed, piece, prepared, second_connection, stored_ids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.storage import open_store
from headrace.storage.records import Committed, Counts, Existing


@pytest.mark.parametrize("existing", WAYS)
@pytest.mark.parametrize("held", [0, 1, 50, 99, 100])
def test_exactly_the_absent_events_go_in(store_url: str, held: int, existing: Existing) -> None:
    ids = new_ids(100)
    mixed = ids[::2] + ids[1::2]
    present, absent = mixed[:held], mixed[held:]
    with open_store(store_url) as store:
        prepared(store)
        store.events.commit(piece(sorted(present), first_row=1000))
        done = store.events.commit(piece(ids, existing=existing))
    assert done.counts == Counts(read=100, inserted=100 - held, duplicate_in_store=held)
    if held:
        assert packed(done.inserted_ids or b"") == sorted(absent)
    else:
        assert done.inserted_ids is None
    assert stored_ids(store_url) == ids


# one database serves all examples, each in a table of its own
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(slices=st.lists(st.tuples(st.sets(st.integers(0, 40)), st.sampled_from(WAYS)), max_size=8))
def test_any_overlapping_slices_add_up_to_their_union(store_url: str, slices: list[tuple[set[int], Existing]]) -> None:
    ids, union, run = new_ids(41), set[int](), uuid.uuid4().hex
    with open_store(store_url) as store:
        store.ledger.prepare()
        store.tables.create_or_widen(run, SCHEMA, time_index=None)
        open_run(store, run_id=run, table=run)
        for number, (chosen, existing) in enumerate(slices):
            wanted = [ids[at] for at in sorted(chosen)]
            done = store.events.commit(piece(wanted, first_row=number * 100, existing=existing, table=run, run_id=run))
            went_in = wanted if done.inserted_ids is None else packed(done.inserted_ids)
            assert went_in == [ids[at] for at in sorted(chosen - union)]
            assert done.counts.inserted == len(went_in)
            union |= chosen
    assert stored_ids(store_url, run) == [ids[at] for at in sorted(union)]


def test_another_writer_between_snapshot_and_copy_is_found_out_exactly(postgres_url: str) -> None:
    ids = new_ids(30)
    taken = ids[5:12]

    def other_writer(statement: str) -> None:
        if statement.startswith("COPY") and not armed.is_set():
            armed.set()
            with second_connection(postgres_url) as connection:
                insert = sa.text("INSERT INTO events (event_id, provider, headrace_receipt) VALUES (:id, 'other', 0)")
                connection.execute(insert, [{"id": uuid.UUID(bytes=one)} for one in taken])
                connection.commit()

    armed = threading.Event()
    armed.set()
    with open_store(postgres_url, on_statement=other_writer) as store:
        prepared(store)
        armed.clear()
        done = store.events.commit(piece(ids))
    assert done.path == "safe"
    assert done.counts == Counts(read=30, inserted=23, duplicate_in_store=7)
    assert packed(done.inserted_ids or b"") == ids[:5] + ids[12:]
    assert stored_ids(postgres_url) == ids


def test_writers_that_overlap_insert_every_event_exactly_once(store_url: str) -> None:
    """Four loaders, each believing all its events to be new, with shuffled overlapping slices."""
    seed, ids = 20_260_101, new_ids(600)
    with open_store(store_url) as store:
        prepared(store)
    start = threading.Barrier(4)

    def load(number: int) -> list[Committed]:
        chance = random.Random(seed + number)
        with open_store(store_url) as store:
            open_run(store, run_id=f"run-{number}x")
            start.wait()
            return [
                store.events.commit(
                    piece(
                        sorted(chance.sample(ids, 200)),
                        first_row=at * 1000,
                        existing=chance.choice(WAYS),
                        run_id=f"run-{number}x",
                    )
                )
                for at in range(8)
            ]

    with ThreadPoolExecutor(4) as pool:
        done = [one for loaded in pool.map(load, range(4)) for one in loaded]
    stored = stored_ids(store_url)
    assert len(stored) == len(set(stored)) == sum(one.counts.inserted for one in done), f"seed {seed}"
    assert all(one.counts.balanced for one in done)
