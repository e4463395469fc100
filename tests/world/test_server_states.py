"""A server in a state that passes (read-only, a timeout, a statement that somebody ended) is waited for; the slice goes
in once. One that stays so is told with what to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from contract.pieces import batch, look, make, new_ids, piece, prepared, stored_ids
from contract.test_failures import Once, _trouble, end_other_sessions
from psycopg import sql
from support.delivery import outbox

from headrace.delivery.dispatcher import Dispatcher, Sent
from headrace.errors import ConnectionLostError, RetryableStoreError, StoreError
from headrace.storage import open_store
from headrace.storage.sql import retry as retries

IDS = new_ids(20)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


def with_setting(url: str, name: str, value: str) -> str:
    return f"{url}&options=-c{name}%3D{value}"


def read_only(url: str, *, on: bool) -> None:
    """What every new session of this database finds."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only TO off")
        name = connection.execute("SELECT current_database()").fetchone()
        value = sql.SQL("on" if on else "off")
        alter = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        connection.execute(alter.format(sql.Identifier(str(name and name[0])), value))


class Tries:
    """Acts when the `number`th transaction begins."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.left, self.act = number, act

    def __call__(self, statement: str) -> None:
        if statement.startswith("BEGIN"):
            self.left -= 1
            if self.left == 0:
                self.act()


def test_a_server_that_is_read_only_for_a_while_is_waited_for(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
    read_only(postgres_url, on=True)
    hook = Tries(3, lambda: read_only(postgres_url, on=False))
    with open_store(postgres_url, on_statement=hook) as store:
        done = store.events.commit(piece(IDS))
        assert done.counts.inserted == len(IDS)
        # the session in which that third try failed had begun while the server was read-only
        assert done.retries == 3
    assert stored_ids(postgres_url) == IDS


def test_a_server_that_stays_read_only_is_told_with_what_to_do(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "SERVER_AWAY", 0.2)
    with open_store(postgres_url) as store:
        prepared(store)
        read_only(postgres_url, on=True)
        end_other_sessions(postgres_url)
        with pytest.raises(ConnectionLostError, match="read-only") as raised:
            store.events.commit(piece(IDS))
        assert "standby" in str(raised.value.hint)
    assert stored_ids(postgres_url) == []


@pytest.mark.parametrize("state", ["25006", "25P03", "57P05", "57P01", "40003", "57014", "25P04"])
def test_a_state_that_passes_is_run_again(postgres_url: str, state: str) -> None:
    make(postgres_url, "CREATE SEQUENCE tries")
    with open_store(postgres_url) as store:
        prepared(store)
        _trouble(postgres_url, state, times=2)
        done = store.events.commit(piece(IDS))
    assert (done.retries, done.counts.inserted) == (2, len(IDS))


@pytest.mark.parametrize("state", ["57014", "25P04"])
def test_what_a_timeout_ends_each_time_is_given_up_with_the_setting_named(postgres_url: str, state: str) -> None:
    make(postgres_url, "CREATE SEQUENCE tries")
    with open_store(postgres_url) as store:
        prepared(store)
        _trouble(postgres_url, state, times=1000)
        with pytest.raises(RetryableStoreError) as raised:
            store.events.commit(piece(IDS))
    assert look(postgres_url, "SELECT last_value FROM tries") == [(retries.TRIES,)]
    assert "timeout" in str(raised.value.hint)


def test_a_statement_that_its_timeout_ends_once_is_run_again(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as blocker:
        hook = Tries(2, blocker.rollback)
        with open_store(with_setting(postgres_url, "statement_timeout", "500"), on_statement=hook) as store:
            prepared(store)
            blocker.execute("LOCK TABLE events")
            done = store.events.commit(piece(IDS))
    assert (done.retries, done.counts.inserted) == (1, len(IDS))


def test_a_statement_that_an_administrator_cancels_is_run_again(postgres_url: str) -> None:
    cancel = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'headrace' AND wait_event_type = 'Lock' AND datname = current_database()"
    )

    def cancel_it() -> None:
        while look(postgres_url, cancel) != [(True,)]:
            time.sleep(0.01)
        blocker.rollback()

    with psycopg.connect(postgres_url) as blocker, open_store(postgres_url) as store:
        prepared(store)
        blocker.execute("LOCK TABLE events")
        thread = threading.Thread(target=cancel_it)
        thread.start()
        done = store.events.commit(piece(IDS))
        thread.join()
    assert (done.retries, done.counts.inserted) == (1, len(IDS))


def test_a_transaction_that_was_ended_for_being_idle_is_run_again(postgres_url: str) -> None:
    url = with_setting(postgres_url, "idle_in_transaction_session_timeout", "100")
    hook = Once("COPY", lambda: time.sleep(0.5))
    with open_store(url, on_statement=hook) as store:
        prepared(store)
        hook.arm()
        done = store.events.commit(piece(IDS))
    assert (done.retries, done.counts.inserted) == (1, len(IDS))


def test_a_session_that_was_ended_for_being_idle_is_replaced(postgres_url: str) -> None:
    with open_store(with_setting(postgres_url, "idle_session_timeout", "50")) as store:
        prepared(store)
        time.sleep(0.3)
        assert store.events.commit(piece(IDS)).counts.inserted == len(IDS)


class _Taken:
    at_once = 100

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def send(self, alerts: Any) -> list[Sent]:
        self._stop.set()
        return [Sent("taken") for _ in alerts]


@pytest.mark.parametrize("state", ["25006", "57014", "25P03"])
def test_delivery_goes_on_when_such_a_state_has_passed(
    postgres_url: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "TRIES", 1)
    monkeypatch.setattr(retries, "SERVER_AWAY", 0.0)
    outbox(postgres_url, 3)
    make(
        postgres_url,
        "CREATE SEQUENCE tries",
        "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') <= 3 THEN "
        f"RAISE EXCEPTION 'made up' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$",
        "CREATE TRIGGER t AFTER UPDATE ON headrace_alerts EXECUTE FUNCTION trouble()",
    )
    stop = threading.Event()
    with open_store(postgres_url) as store:
        done = Dispatcher(store, _Taken(stop)).run(0.01, stop)
    assert done.delivered == 3


@pytest.mark.parametrize(
    ("column", "constraint", "said"),
    [
        ("n bigint CHECK (n < 5)", "events_n_check", "CHECK constraint, events_n_check,"),
        ("n bigint UNIQUE, m bigint", "", "another unique key"),
        ("n bigint NOT NULL", "", "may not be null, n,"),
        ("n bigint REFERENCES other (n)", "events_n_fkey", "foreign key, events_n_fkey,"),
    ],
)
def test_a_constraint_that_refuses_a_row_is_named_with_what_to_do(
    postgres_url: str, column: str, constraint: str, said: str
) -> None:
    make(
        postgres_url,
        "CREATE TABLE other (n bigint PRIMARY KEY)",
        f"CREATE TABLE events (event_id uuid PRIMARY KEY, {column}, provider text, headrace_receipt bigint)",
    )
    values = pa.array([7, 7, None], pa.int64())
    with open_store(postgres_url) as store:
        prepared(store, schema=pa.schema([("n", pa.int64())]))
        with pytest.raises(StoreError) as raised:
            store.events.commit(piece(batch(IDS[:3], {"n": values})))
    assert said in str(raised.value.hint)
    assert not raised.value.retryable
    assert stored_ids(postgres_url) == []


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("n BIGINT CHECK (n < 5)", "CHECK constraint"),
        ("n BIGINT UNIQUE", "another unique key"),
        ("n BIGINT NOT NULL", "may not be null"),
    ],
)
def test_a_constraint_of_sqlite_is_said_with_what_to_do(sqlite_url: str, column: str, said: str) -> None:
    make(
        sqlite_url,
        f"CREATE TABLE events (event_id BLOB PRIMARY KEY, {column}, provider TEXT, headrace_receipt BIGINT)",
    )
    values = pa.array([7, 7, None] if "UNIQUE" in column else [7, 8, None], pa.int64())
    with open_store(sqlite_url) as store:
        prepared(store, schema=pa.schema([("n", pa.int64())]))
        with pytest.raises(StoreError) as raised:
            store.events.commit(piece(batch(IDS[:3], {"n": values})))
    assert said in str(raised.value.hint)
    assert stored_ids(sqlite_url) == []
