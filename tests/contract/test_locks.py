"""Locks save work and guard nothing: who shares a key waits, so long and no longer; no event is lost or doubled.

In SQLite the file's own lock stands for all keys, so only PostgreSQL can show that other keys do not wait.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
from contract.pieces import (
    SCHEMA,
    WAYS,
    Pause,
    Stop,
    look,
    make,
    new_ids,
    open_run,
    packed,
    piece,
    prepared,
    stored_ids,
)
from support.program import scaled

from headrace.errors import LockTimeoutError
from headrace.storage import open_store
from headrace.storage.locks import lock_keys
from headrace.storage.records import Committed, Counts, Slice

KEYS = lock_keys("events", 0, 64)
# just before the statement that waits for a lock, and just before the last one of a transaction
WAITING = ("SELECT pg_advisory_xact_lock", "BEGIN IMMEDIATE")
LAST = ("UPDATE headrace_receipts",)
ADVISORY = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
IDLE = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
locked = partial(piece, existing="query", locks=KEYS)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def start(pool: ThreadPoolExecutor, url: str, slice_: Slice, hook: Pause) -> Future[Committed]:
    """Commit `slice_` in a thread with a store of its own; returns when it has come to where `hook` stops it."""

    def commit() -> Committed:
        with open_store(url, on_statement=hook) as store:
            hook.arm()
            return store.events.commit(slice_)

    started = pool.submit(commit)
    hook.wait_until_there(started)
    return started


# Waiting -------------------------------------------------------------------------------------------------------------


def test_who_shares_a_key_waits_and_says_how_long(store_url: str, pool: ThreadPoolExecutor) -> None:
    ids = new_ids(30)
    with open_store(store_url) as store:
        prepared(store)
    holder, waiter = Pause(*LAST), Pause(*WAITING)
    first = start(pool, store_url, locked(ids[:20]), holder)
    second = start(pool, store_url, locked(ids[10:], first_row=100), waiter)
    waiter.go()
    time.sleep(0.2)
    assert not second.done()
    holder.go()
    first.result()
    assert second.result().lock_seconds >= 0.2, "it began before the pause and was granted after it"
    assert second.result().counts == Counts(read=20, inserted=10, duplicate_in_store=10)
    assert packed(second.result().inserted_ids or b"") == ids[20:]
    assert stored_ids(store_url) == ids


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("others", lock_keys("others", 0, 1)),
        ("events", lock_keys("events", 1, 2)),
        ("events", lock_keys("events", 7, 8)),
        ("events", []),
    ],
)
def test_other_tables_and_other_partitions_do_not_wait(
    postgres_url: str, pool: ThreadPoolExecutor, table: str, keys: list[int]
) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
        store.tables.create_or_widen("others", SCHEMA, time_index=None)
        holder = Pause(*LAST)
        first = start(pool, postgres_url, piece(new_ids(5), existing="query", locks=lock_keys("events", 0, 2)), holder)
        other = piece(new_ids(5, seed=1), first_row=100, table=table, existing="query", locks=keys)
        assert store.events.commit(other).lock_seconds == 0.0
        assert not first.done()
        holder.go()
        assert first.result().lock_seconds == 0.0


def test_loaders_with_different_numbers_of_partitions_exclude_each_other(
    postgres_url: str, pool: ThreadPoolExecutor
) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
    holder, waiter = Pause(*LAST), Pause(*WAITING)
    first = start(pool, postgres_url, locked(new_ids(5), locks=lock_keys("events", 0, 2)), holder)
    second = start(pool, postgres_url, locked(new_ids(5), first_row=9, locks=lock_keys("events", 1, 3)), waiter)
    waiter.go()
    holder.go()
    assert first.result().counts.inserted == 5
    assert second.result().counts.duplicate_in_store == 5
    assert second.result().lock_seconds > 0


def test_a_receipt_that_exists_is_found_without_waiting(postgres_url: str, pool: ThreadPoolExecutor) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
        store.events.commit(locked(new_ids(3), first_row=50))
        holder = Pause(*LAST)
        first = start(pool, postgres_url, locked(new_ids(5)), holder)
        again = store.events.commit(locked(new_ids(3), first_row=50))
        assert (again.already_done, again.lock_seconds) == (True, 0.0)
        holder.go()
        first.result()


@pytest.mark.parametrize("key", [-(2**63), -1, 0, 1, 2**31, 2**63 - 1])
def test_any_64_bit_key_is_taken_and_waited_for(postgres_url: str, pool: ThreadPoolExecutor, key: int) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
        holder = Pause(*LAST)
        first = start(pool, postgres_url, locked(new_ids(5), locks=[key]), holder)
        with pytest.raises(LockTimeoutError, match=f"lock {key} "):
            store.events.commit(locked(new_ids(5), first_row=9, locks=[key], lock_timeout=0.01))
        holder.go()
        first.result()


def test_locks_are_taken_ascending_so_that_nobody_waits_in_a_circle(postgres_url: str) -> None:
    ids, keys = new_ids(200), lock_keys("events", 0, 1)
    with open_store(postgres_url) as store:
        prepared(store)

    def load(number: int) -> list[Committed]:
        chance = random.Random(number)
        with open_store(postgres_url) as store:
            slices = [
                locked(
                    sorted(chance.sample(ids, 20)),
                    first_row=number * 1000 + at,
                    locks=chance.sample(keys, 40),  # in whatever order they are named
                )
                for at in range(scaled(100))
            ]
            return [store.events.commit(slice_) for slice_ in slices]

    with ThreadPoolExecutor(3) as threads:
        done = [one for loaded in threads.map(load, range(3)) for one in loaded]
    assert not sum(one.retries for one in done), "the server ended a deadlock"
    assert sum(one.counts.inserted for one in done) == len(stored_ids(postgres_url))


# Not in time ---------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_not_granted_in_time_says_so_and_leaves_nothing(
    store_url: str, pool: ThreadPoolExecutor
) -> None:
    late = locked(new_ids(5), first_row=100, lock_timeout=0.1, partition=3)
    with open_store(store_url) as store:
        prepared(store)
        holder = Pause(*LAST)
        first = start(pool, store_url, locked(new_ids(5)), holder)
        with pytest.raises(LockTimeoutError) as raised:
            store.events.commit(late)
        _says_everything(raised.value)
        if store_url.startswith("postgresql"):
            assert str(KEYS[0]) in str(raised.value)
            assert look(store_url, ADVISORY) == look(store_url, IDLE) == [(1,)], "those of the holder alone"
        holder.go()
        first.result()
        assert look(store_url, "SELECT first_row FROM headrace_receipts") == [(0,)]
        if store_url.startswith("postgresql"):
            assert look(store_url, ADVISORY) == look(store_url, IDLE) == [(0,)]
        assert store.events.commit(late).counts.duplicate_in_store == 5


def _says_everything(error: LockTimeoutError) -> None:
    assert (error.retryable, error.exit_code) == (False, 1)
    assert "table events, partition 3" in str(error.where)
    said = re.search(r"lock.* was not granted within (\d+\.\d) s", error.what)
    assert said is not None
    assert 0.1 <= float(said[1]) < 20, "its own time, not the connection's 30 s"
    assert "--lock-timeout" in str(error.hint)


def test_the_time_to_wait_is_for_all_locks_together_and_the_refused_one_is_named(
    postgres_url: str, pool: ThreadPoolExecutor
) -> None:
    """The first lock is waited for and granted, the last is not; those in between are free again."""
    low, middle, high = sorted(lock_keys("events", 0, 1))[:3]
    with open_store(postgres_url) as store:
        prepared(store)
        holders = [Pause(*LAST), Pause(*LAST)]
        held = [
            start(pool, postgres_url, locked(new_ids(5, seed=n), first_row=n, locks=[key]), holders[n])
            for n, key in enumerate([low, high])
        ]
        waiter = Pause(*WAITING)
        late = start(
            pool, postgres_url, locked(new_ids(5), first_row=9, locks=[high, middle, low], lock_timeout=2.0), waiter
        )
        waiter.go()
        time.sleep(0.2)
        holders[0].go()
        with pytest.raises(LockTimeoutError, match=f"lock {high} was not granted"):
            late.result()
        allowed = [int(one.split()[-1]) for one in waiter.seen if one.startswith("SET LOCAL lock_timeout =")]
        assert allowed[0] == 2000
        assert 0 < allowed[1] <= 1800
        done = store.events.commit(locked(new_ids(5, seed=7), first_row=70, locks=[low, middle], lock_timeout=0.01))
        assert done.lock_seconds == 0.0
        holders[1].go()
        assert [one.result().counts.inserted for one in held] == [5, 5]


def test_what_waits_after_the_locks_waits_as_the_session_is_set(postgres_url: str, pool: ThreadPoolExecutor) -> None:
    url = postgres_url + "&options=-clock_timeout%3D7s"
    with open_store(url) as store:
        prepared(store)
    make(
        postgres_url,
        "CREATE TABLE seen (setting text)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO seen VALUES (current_setting('lock_timeout')); RETURN NULL; END $$",
        "CREATE TRIGGER t AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )
    holder, waiter = Pause(*LAST), Pause(*WAITING)
    first = start(pool, url, locked(new_ids(2)), holder)
    second = start(pool, url, locked(new_ids(2, seed=1), first_row=9), waiter)
    waiter.go()
    holder.go()
    assert first.result().lock_seconds == 0.0 < second.result().lock_seconds
    assert look(postgres_url, "SELECT setting FROM seen") == [("7s",), ("7s",)]


def test_a_file_waits_for_others_as_long_as_before(sqlite_url: str, pool: ThreadPoolExecutor) -> None:
    with open_store(sqlite_url) as store:
        prepared(store)
        holder = Pause(*LAST)
        first = start(pool, sqlite_url, locked(new_ids(5)), holder)
        with pytest.raises(LockTimeoutError):
            store.events.commit(locked(new_ids(5), first_row=9, lock_timeout=0.0))
        holder.go()
        first.result()
        store.events.commit(locked(new_ids(5), first_row=9, lock_timeout=0.0))
        with store.database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 30_000


# Nothing lost, nothing doubled ---------------------------------------------------------------------------------------


def test_a_holder_that_rolls_back_after_others_waited_loses_no_event(store_url: str, pool: ThreadPoolExecutor) -> None:
    with open_store(store_url) as store:
        prepared(store)
    holder, waiters = Pause(*LAST, then=Stop()), [Pause(*WAITING), Pause(*WAITING)]
    everything: list[bytes] = []
    with (
        open_store(store_url, on_statement=holder) as mine,
        open_store(store_url, on_statement=waiters[0]) as second,
        open_store(store_url, on_statement=waiters[1]) as third,
    ):
        for number in range(scaled(200, default=8)):
            ids = new_ids(6, seed=number)
            everything += ids
            holder.arm()
            held = pool.submit(mine.events.commit, locked(ids, first_row=number * 10))
            holder.wait_until_there(held)
            waiting = []
            for at, (store, hook) in enumerate(zip((second, third), waiters, strict=True)):
                hook.arm()
                chosen = locked(ids[at : at + 5], first_row=number * 10 + at + 1)
                waiting.append(pool.submit(store.events.commit, chosen))
                hook.wait_until_there(waiting[-1])
                hook.go()
            holder.go()
            with pytest.raises(Stop):
                held.result()
            assert sum(one.result().counts.inserted for one in waiting) == 6, f"round {number}"
    assert stored_ids(store_url) == sorted(everything)


def test_a_writer_without_locks_beside_a_query_is_found_out_exactly(
    postgres_url: str, pool: ThreadPoolExecutor
) -> None:
    """It comes between the query, which found nothing of its events, and the COPY."""
    ids = new_ids(30)
    with open_store(postgres_url) as store:
        prepared(store)
        store.events.commit(locked(ids[25:], first_row=500))
        holder = Pause('COPY "events"')
        first = start(pool, postgres_url, locked(ids), holder)
        store.events.commit(piece(ids[5:12], first_row=100, existing="conflict"))
        holder.go()
        done = first.result()
    assert done.path == "safe"
    assert done.counts == Counts(read=30, inserted=18, duplicate_in_store=12)
    assert packed(done.inserted_ids or b"") == ids[:5] + ids[12:25]
    assert stored_ids(postgres_url) == ids


@pytest.mark.parametrize("held", [0, 1, 29, 30])
def test_a_query_under_locks_needs_no_safe_path(store_url: str, held: int) -> None:
    ids = new_ids(30)
    with open_store(store_url) as store:
        prepared(store).events.commit(piece(ids[:held], first_row=100))
        done = store.events.commit(locked(ids))
    assert done.path == "fast"
    assert (done.counts.inserted, done.counts.duplicate_in_store) == (30 - held, held)
    assert (done.inserted_ids is None) == (held == 0)
    assert held == 0 or packed(done.inserted_ids or b"") == ids[held:]
    assert stored_ids(store_url) == ids


def test_writers_with_and_without_locks_duplicate_nothing(store_url: str) -> None:
    seed, ids = 20_260_202, new_ids(400)
    with open_store(store_url) as store:
        prepared(store)
    together = threading.Barrier(4)

    def load(number: int) -> list[Committed]:
        chance, run_id = random.Random(seed + number), f"run-{number}x"
        locks = [] if number == 0 else lock_keys("events", 0, number)
        with open_store(store_url) as store:
            open_run(store, run_id=run_id)
            together.wait()
            return [
                store.events.commit(
                    piece(
                        sorted(chance.sample(ids, 100)),
                        first_row=at * 1000,
                        existing="query" if locks else chance.choice(WAYS),
                        locks=locks,
                        run_id=run_id,
                    )
                )
                for at in range(8)
            ]

    with ThreadPoolExecutor(4) as threads:
        done = [one for loaded in threads.map(load, range(4)) for one in loaded]
    stored = stored_ids(store_url)
    assert len(stored) == len(set(stored)) == sum(one.counts.inserted for one in done), f"seed {seed}"
    assert all(one.counts.balanced for one in done)
