"""What goes to PostgreSQL together is together or not at all, and costs an exact number of round trips.

A proxy counts how often the server says that it is the client's turn again; no time is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa
from contract.pieces import TABLE, Pause, look, new_ids, piece, prepared, second_connection, stored_ids
from support.proxy import Proxy, proxied

from headrace import Engine
from headrace.errors import RetryableStoreError, StoreError
from headrace.storage import open_store
from headrace.storage.locks import lock_keys
from headrace.storage.postgres import connecting, slice_transaction
from headrace.storage.postgres.one_message import BEGIN, Statement, together
from headrace.storage.records import Existing

KEYS = lock_keys(TABLE, 0, 8)
KEPT = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM headrace_receipts)"
OPENING = 1  # BEGIN, the table's lock, receipt, locks, what the table is like, savepoint
ASIDE = 1  # DROP and CREATE of the temporary table
COPY = 2  # the statement, and the rows
QUESTION = 1
CLOSING = 1  # books, COMMIT
WAYS: dict[Existing, tuple[Sequence[int], int]] = {
    "snapshot": ((), OPENING + COPY + CLOSING),
    "conflict": ((), OPENING + ASIDE + COPY + QUESTION + CLOSING),
    "query": (KEYS, OPENING + ASIDE + COPY + QUESTION + COPY + CLOSING),
}


@pytest.fixture
def far(postgres_url: str) -> Iterator[Proxy]:
    with proxied(postgres_url) as proxy:
        yield proxy


def turns(far: Proxy, existing: Existing, locks: Sequence[int] = ()) -> int:
    """The round trips of a commit by a store that has met the table."""
    with open_store(far.url) as store:
        prepared(store).events.commit(piece(new_ids(5, seed=1), first_row=900))
        before = far.turns
        done = store.events.commit(piece(new_ids(100), existing=existing, locks=locks))
        assert (done.counts.inserted, done.retries) == (100, 0)
        return far.turns - before


@pytest.mark.parametrize("existing", WAYS)
def test_a_commit_takes_an_exact_number_of_round_trips(far: Proxy, existing: Existing) -> None:
    locks, expected = WAYS[existing]
    assert turns(far, existing, locks) == expected


def test_each_chunk_of_a_sequential_load_takes_four_round_trips(far: Proxy) -> None:
    def load(chunks: int, start: int) -> int:
        rows = pa.table({"key": pa.array(range(start, start + 10 * chunks), pa.int64())})
        before = far.turns
        assert engine.ingest(rows).inserted == 10 * chunks
        return far.turns - before

    with Engine(to=far.url, table="t", id=["key"], chunk_rows=10) as engine:
        load(1, 0)
        load(1, 500)  # the first load into a table with rows looks at their IDs
        assert load(5, 1000) - load(2, 2000) == 3 * 4


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = slice_transaction.together

    def apart(driver: Any, statements: Sequence[Statement], say: Any) -> Any:
        return [rows for one in statements for rows in at_once(driver, [one], say)]

    monkeypatch.setattr(slice_transaction, "together", apart)


def always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "IDLE_SECONDS", 0.0)


@pytest.mark.parametrize(("take_away", "more"), [(one_by_one, 7), (always_asked, 1)])
def test_negative_control_the_round_trips_are_more_without(
    far: Proxy, monkeypatch: pytest.MonkeyPatch, take_away: Callable[[pytest.MonkeyPatch], None], more: int
) -> None:
    take_away(monkeypatch)
    assert turns(far, "snapshot") == WAYS["snapshot"][1] + more


def test_a_per_cent_sign_is_one_beside_a_statement_with_parameters(postgres_url: str) -> None:
    said: list[str] = []
    with psycopg.connect(postgres_url, autocommit=True) as driver:
        asked = [
            Statement(b"SELECT %(n)s::BIGINT %% 4", {"n": 7}),
            Statement(b"SELECT '%s', 7 % 4"),
            BEGIN,
        ]
        assert together(driver, asked, said.append) == [[(3,)], [("%s", 3)], []]
        assert together(driver, asked[1:], said.append) == [[("%s", 3)], []]
    assert said[1:3] == said[3:] == ["SELECT '%s', 7 % 4", "BEGIN ISOLATION LEVEL READ COMMITTED"]


def fail(url: str, state: str, on: str, *, times: int = 1000, more: str = "") -> None:
    """A trigger by which the first `times` of what `on` names fail with SQLSTATE `state`."""
    with second_connection(url) as connection:
        connection.execute(sa.text("CREATE SEQUENCE tries"))
        connection.exec_driver_sql(
            "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'made up' USING ERRCODE = '{state}'; END IF; "
            "RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE CONSTRAINT TRIGGER trouble AFTER {on} {more} FOR EACH ROW EXECUTE FUNCTION trouble()"
        )
        connection.commit()


AT_THE_RECEIPT = ("INSERT ON headrace_receipts", "")
AT_THE_BOOKS = ("UPDATE ON headrace_receipts", "")
AT_COMMIT = ("INSERT ON headrace_receipts", "DEFERRABLE INITIALLY DEFERRED")


@pytest.mark.parametrize(("on", "more"), [AT_THE_RECEIPT, AT_THE_BOOKS, AT_COMMIT])
@pytest.mark.parametrize(("state", "kind"), [("P0001", StoreError), ("40001", RetryableStoreError)])
def test_a_commit_sent_with_a_statement_that_fails_commits_nothing(
    postgres_url: str, on: str, more: str, state: str, kind: type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.storage.sql.retry.FIRST_PAUSE", 0.001)
    sent: list[str] = []
    with open_store(postgres_url, on_statement=sent.append) as store:
        prepared(store)
        fail(postgres_url, state, on, more=more)
        with pytest.raises(StoreError, match="made up") as caught:
            store.events.commit(piece(new_ids(5)))
    assert type(caught.value) is kind
    assert "aborted" not in str(caught.value)  # the first failure is told, not what it did to the statements behind it
    assert sent[-1] == ("SAVEPOINT headrace_events" if (on, more) == AT_THE_RECEIPT else "COMMIT")  # on its way it was
    assert look(postgres_url, KEPT) == [(0, 0)]


@pytest.mark.parametrize(("on", "more"), [AT_THE_RECEIPT, AT_THE_BOOKS, AT_COMMIT])
def test_a_failure_that_passes_is_run_again_wherever_it_comes(postgres_url: str, on: str, more: str) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
        fail(postgres_url, "40001", on, times=1, more=more)
        done = store.events.commit(piece(new_ids(1)))
    assert (done.retries, done.already_done, done.counts.inserted) == (1, False, 1)
    assert look(postgres_url, KEPT) == [(1, 1)]


def end_the_others(url: str) -> None:
    ended = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'headrace'"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"{ended} AND datname = current_database()")


def test_a_connection_that_died_in_silence_fails_its_first_statement_and_is_replaced(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_has_word", lambda _: False)
    with open_store(postgres_url) as store:
        prepared(store)
        end_the_others(postgres_url)
        done = store.events.commit(piece(new_ids(5)))
        assert (done.retries, done.already_done, done.counts.inserted) == (1, False, 5)
        assert store.events.commit(piece(new_ids(5, seed=1), first_row=90)).retries == 0


def test_a_connection_whose_server_said_goodbye_is_replaced_before_it_is_used(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
        end_the_others(postgres_url)
        assert store.ledger.runs() != []  # what only reads is not run again
        end_the_others(postgres_url)
        assert store.events.commit(piece(new_ids(5))).retries == 0


def test_a_server_that_ends_what_it_has_just_opened_is_waited_for(postgres_url: str) -> None:
    """As one does that goes down while connections that died before are being replaced."""
    opened: list[object] = []

    def end_the_first(driver: object, _record: object) -> None:
        opened.append(driver)
        if len(opened) == 1:
            end_the_others(postgres_url)

    with open_store(postgres_url) as store:
        prepared(store)
        end_the_others(postgres_url)
        sa.event.listen(store.database.engine, "connect", end_the_first)  # the pool's own event
        done = store.events.commit(piece(new_ids(5)))
    assert (done.retries, len(opened), done.counts.inserted) == (1, 2, 5)


HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"


def locks_on_the_safe_path(url: str) -> int:
    """How many locks a slice still holds on the safe path that had to wait for one, and whose COPY was refused."""
    ids, about_to_copy, about_to_insert = new_ids(10), Pause('COPY "events"'), Pause("WITH inserted")
    with psycopg.connect(url) as other, ThreadPoolExecutor(1) as pool, open_store(url) as store:
        prepared(store).events.commit(piece(new_ids(1, seed=9), first_row=900))
        other.execute("SELECT pg_advisory_xact_lock(%s)", [KEYS[2]])

        def hook(statement: str) -> None:
            if statement.startswith("SELECT pg_advisory_xact_lock"):
                other.rollback()
            about_to_copy(statement)
            about_to_insert(statement)

        def commit() -> Any:
            with open_store(url, on_statement=hook) as mine:
                about_to_copy.arm()
                about_to_insert.arm()
                return mine.events.commit(piece(ids, existing="query", locks=KEYS))

        work = pool.submit(commit)
        about_to_copy.wait_until_there(work)
        store.events.commit(piece(ids[3:6], first_row=100, existing="conflict"))
        about_to_copy.go()
        about_to_insert.wait_until_there(work)
        ((held,),) = look(url, HELD)
        about_to_insert.go()
        done = work.result()
    assert (done.path, done.counts.inserted) == ("safe", 7)
    assert stored_ids(url) == sorted([*ids, *new_ids(1, seed=9)])
    return int(held)


def test_locks_that_were_waited_for_are_held_on_the_safe_path_too(postgres_url: str) -> None:
    assert locks_on_the_safe_path(postgres_url) == len(KEYS)


def test_a_clock_too_coarse_for_the_wait_lets_no_lock_go(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_transaction, "monotonic", lambda: 7.0)
    assert locks_on_the_safe_path(postgres_url) == len(KEYS)


def test_negative_control_a_savepoint_before_the_locks_lets_them_go(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = slice_transaction.together

    def without(driver: Any, statements: Sequence[Any], say: Any) -> Any:
        moved = len(statements) == 2 and statements[1] == slice_transaction.SAVEPOINT
        return at_once(driver, statements[:1] if moved else statements, say)

    monkeypatch.setattr(slice_transaction, "together", without)
    assert locks_on_the_safe_path(postgres_url) < len(KEYS)
