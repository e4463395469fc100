"""A failure that passes is tried again whole and the slice still goes in once; one that does not says what to do."""

from __future__ import annotations

import contextlib
import pickle
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from contract.pieces import TABLE, WAYS, look, new_ids, packed, piece, prepared, reject, second_connection, stored_ids

from headrace.errors import ConfigurationError, HeadraceError, RetryableStoreError, StoreError
from headrace.storage import open_store, safe_url
from headrace.storage.records import Existing
from headrace.storage.store import Store

CANARY = "c4n4ry-p4ss"


class Once:
    """A statement hook that does `act` just before the first statement that starts with `prefix`, once armed."""

    def __init__(self, prefix: str, act: Callable[[], None], *, times: int = 1) -> None:
        self.prefix, self.act, self.left = prefix, act, 0
        self.times = times

    def arm(self) -> None:
        self.left = self.times

    def __call__(self, statement: str) -> None:
        if self.left and statement.lstrip().startswith(self.prefix):
            self.left -= 1
            self.act()


def end_other_sessions(url: str) -> None:
    """What a restart of the server does to the store's connections."""
    with second_connection(url) as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "  # waits until it is gone
                "WHERE datname = current_database() AND application_name = 'headrace'"
            )
        )


@pytest.mark.parametrize("step", ["INSERT INTO headrace_receipts", "COPY", 'COPY "headrace_rejects"', "UPDATE"])
@pytest.mark.parametrize("existing", WAYS)
def test_a_connection_the_server_ends_is_replaced_and_the_slice_run_again(
    postgres_url: str, step: str, existing: Existing
) -> None:
    hook = Once(step, lambda: end_other_sessions(postgres_url))
    with open_store(postgres_url, on_statement=hook) as store:
        prepared(store)
        hook.arm()
        done = store.events.commit(piece(new_ids(1000), existing=existing, rejects=[reject()]))
    assert (done.retries, done.already_done, done.counts.inserted) == (1, False, 1000)
    assert stored_ids(postgres_url) == new_ids(1000)
    assert look(postgres_url, "SELECT count(*) FROM headrace_rejects") == [(1,)]


def test_a_connection_that_died_while_idle_costs_nothing_but_a_new_one(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        prepared(store)
        end_other_sessions(postgres_url)
        assert store.ledger.run("nobody") is None
        end_other_sessions(postgres_url)
        assert store.events.commit(piece(new_ids(3))).counts.inserted == 3


def test_a_connection_lost_after_commit_finds_its_receipt(postgres_url: str) -> None:
    """The outcome of a COMMIT whose answer never came is unknown; the slice run again is already done."""
    with open_store(postgres_url) as store:
        prepared(store)
        lost: list[int] = []

        @sa.event.listens_for(sa.Engine, "commit")
        def lose_the_answer(connection: sa.Connection) -> None:
            driver = connection.connection.driver_connection
            if not lost and isinstance(driver, psycopg.Connection):
                lost.append(1)
                driver.execute("COMMIT")
                end_other_sessions(postgres_url)
                driver.execute("SELECT 1")  # raises: this is the answer that never comes

        try:
            done = store.events.commit(piece(new_ids(5)))
        finally:
            sa.event.remove(sa.Engine, "commit", lose_the_answer)
    assert (done.already_done, done.retries, done.counts.inserted) == (True, 1, 5)
    assert stored_ids(postgres_url) == new_ids(5)


def test_a_serialization_failure_is_run_again(postgres_url: str) -> None:
    with second_connection(postgres_url) as connection:
        connection.execute(sa.text("CREATE SEQUENCE tries"))
        connection.commit()
    with open_store(postgres_url) as store:
        prepared(store)
        _trouble(postgres_url, "40001", times=2)
        done = store.events.commit(piece(new_ids(5)))
    assert (done.retries, done.counts.inserted) == (2, 5)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
def test_trouble_that_does_not_pass_ends_after_a_bounded_number_of_tries(postgres_url: str, state: str) -> None:
    with second_connection(postgres_url) as connection:
        connection.execute(sa.text("CREATE SEQUENCE tries"))
        connection.commit()
    with open_store(postgres_url) as store:
        prepared(store)
        _trouble(postgres_url, state, times=1000)
        with pytest.raises(RetryableStoreError):
            store.events.commit(piece(new_ids(5)))
    assert look(postgres_url, "SELECT last_value FROM tries") == [(6,)]
    assert stored_ids(postgres_url) == []


def _trouble(url: str, state: str, *, times: int) -> None:
    """A trigger that fails the first `times` transactions; a sequence counts, for it is not rolled back."""
    with second_connection(url) as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'made up' USING ERRCODE = '{state}'; END IF; "
            "RETURN NULL; END $$"
        )
        connection.exec_driver_sql("CREATE TRIGGER t AFTER INSERT ON events EXECUTE FUNCTION trouble()")
        connection.commit()


def test_a_real_deadlock_is_run_again(postgres_url: str) -> None:
    """Another session holds an event's key and waits for the receipt's; ours holds the receipt's and waits for it."""
    ids = new_ids(3)
    other = psycopg.connect(postgres_url, autocommit=False)
    waiting = threading.Event()

    def cross() -> None:
        other.execute("SET LOCAL deadlock_timeout = '10min'")  # it is always ours that the server ends
        other.execute("INSERT INTO events (event_id, provider, headrace_receipt) VALUES (%s, 'o', 0)", [_uuid(ids[1])])
        thread.start()
        waiting.wait(60)

    def wait_for_ours() -> None:
        waiting.set()
        with contextlib.suppress(psycopg.Error):
            other.execute(
                "INSERT INTO headrace_receipts (run_id, table_name, provider, source, first_row, row_count, digest, "
                "committed_at) VALUES ('run-1', 'events', 'o', 'in.csv', 0, 1, 'd', now())"
            )
        other.rollback()

    thread = threading.Thread(target=wait_for_ours)
    hook = Once("COPY", cross)
    with open_store(postgres_url, on_statement=hook) as store, other:
        prepared(store)
        hook.arm()
        done = store.events.commit(piece(ids))
        thread.join(30)
    assert done.retries == 1
    assert stored_ids(postgres_url) == ids


def _uuid(packed_id: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=packed_id)


def test_a_lock_that_is_not_granted_in_time_is_asked_for_again(postgres_url: str) -> None:
    url = postgres_url + "&options=-clock_timeout%3D100"
    blocker = psycopg.connect(postgres_url)

    def release() -> None:
        seen.append(1)
        if len(seen) == 2:
            blocker.rollback()

    seen: list[int] = []
    hook = Once("LOCK TABLE", release, times=10)
    with open_store(url, on_statement=hook) as store, blocker:
        prepared(store)
        blocker.execute("LOCK TABLE events")
        hook.arm()
        done = store.events.commit(piece(new_ids(3)))
    assert done.retries == 1
    assert stored_ids(postgres_url) == new_ids(3)


def test_an_sqlite_file_that_stays_locked_is_a_failure_that_passes(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store, second_connection(sqlite_url) as other:
        prepared(store)
        engine = store.database.engine

        @sa.event.listens_for(engine, "checkout")
        def impatient(connection: object, *_: object) -> None:
            connection.execute("PRAGMA busy_timeout = 5")  # type: ignore[attr-defined]

        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(RetryableStoreError, match="locked") as raised:
            store.events.commit(piece(new_ids(3)))
        other.rollback()
        assert raised.value.hint
        assert store.events.commit(piece(new_ids(3))).counts.inserted == 3


# Opening -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [f"mysql://u:{CANARY}@h/d", f"mssql+pyodbc://u:{CANARY}@h/d", "oracle://h/d"])
def test_another_database_is_refused_and_the_two_are_named(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_store(url)
    assert "postgresql://" in str(raised.value)
    assert "sqlite:///" in str(raised.value)
    _no_canary(raised.value)


@pytest.mark.parametrize(
    "url", ["", "events.csv", f"postgresql:/u:{CANARY}@h", f"//u:{CANARY}@h", f"postgresql://u:{CANARY}@h:port/d"]
)
def test_a_url_that_cannot_be_read_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_store(url)
    _no_canary(raised.value)


def _no_canary(error: BaseException) -> None:
    """No password in the message, in what crosses a process border, or in what a traceback would show of it."""
    seen: BaseException | None = error
    while seen is not None:
        assert CANARY not in str(seen)
        assert CANARY not in repr(seen)
        seen = seen.__cause__ or seen.__context__
    assert CANARY.encode() not in pickle.dumps(error)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_spelling_of_postgresql_opens(postgres_url: str, scheme: str) -> None:
    with open_store(postgres_url.replace("postgresql", scheme, 1)) as store:
        store.ledger.prepare()


@pytest.mark.parametrize(
    "where",
    [
        f"postgresql://u:{CANARY}@127.0.0.1:1/d",
        f"postgresql://u:{CANARY}@no-such-host.invalid/d",
        f"postgresql://u@/d?host=/nowhere&password={CANARY}",
    ],
)
def test_a_server_that_cannot_be_reached_is_a_store_error_with_a_hint(where: str) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(where)
    assert raised.value.hint
    _no_canary(raised.value)


def test_a_database_that_does_not_exist_is_final_and_says_how_to_make_it(postgres_url: str) -> None:
    url = postgres_url.replace("postgres:@", f"postgres:{CANARY}@").replace("/test_", "/absent_")
    with pytest.raises(StoreError) as raised:
        open_store(url)
    assert not raised.value.retryable
    assert "createdb" in str(raised.value.hint)
    _no_canary(raised.value)


def test_a_user_who_may_not_connect_is_final_with_a_hint(postgres_url: str) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(postgres_url.replace("postgres:@", f"nobody:{CANARY}@"))
    assert not raised.value.retryable
    assert raised.value.hint
    _no_canary(raised.value)


def test_a_failing_statement_does_not_tell_the_password(postgres_url: str) -> None:
    url = postgres_url.replace("postgres:@", f"postgres:{CANARY}@")
    with open_store(url) as store:
        assert CANARY not in store.url
        assert CANARY not in "".join(store.checks.describe().values())
        with pytest.raises(StoreError) as raised:
            store.ledger.runs()  # no ledger yet
    _no_canary(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{CANARY}@h:5/d", "postgresql://u@h:5/d"),
        (f"postgresql://h/d?user=u&password={CANARY}", "postgresql://h/d?user=u"),
        (f"postgresql://h/d?sslpassword={CANARY}", "postgresql://h/d"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        (f"no url {CANARY}", "the database URL"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert safe_url(url) == shown


def _absent_folder(folder: Path) -> Path:
    return folder / "absent" / "headrace.db"


def _no_database(folder: Path) -> Path:
    (folder / "data.db").write_text("n,t\n1,2\n" * 1000)
    return folder / "data.db"


def _a_folder(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize("made", [_absent_folder, _no_database, _a_folder])
def test_an_sqlite_file_that_cannot_be_opened_is_final_with_a_hint(
    tmp_path: Path, made: Callable[[Path], Path]
) -> None:
    path = made(tmp_path)
    with pytest.raises(StoreError) as raised, open_store(f"sqlite:///{path}") as store:
        store.ledger.prepare()
    assert not raised.value.retryable
    assert raised.value.hint
    assert str(path) in str(raised.value)


@pytest.fixture
def read_only(tmp_path: Path) -> str:
    path = tmp_path / "headrace.db"
    with open_store(f"sqlite:///{path}") as store:
        prepared(store).events.commit(piece(new_ids(3)))
    return f"sqlite:///file:{path}?mode=ro&uri=true"


def test_a_read_only_file_refuses_writes_with_a_hint(read_only: str) -> None:
    with pytest.raises(StoreError) as raised, open_store(read_only) as store:
        store.events.commit(piece(new_ids(1), first_row=9))
    assert not raised.value.retryable
    assert raised.value.hint


def test_who_only_looks_needs_no_right_to_write(read_only: str) -> None:
    with open_store(read_only) as store:
        store.ledger.prepare()
        assert [run.run_id for run in store.ledger.runs()] == ["run-1"]
        assert packed(store.events.fetch_ids(TABLE)) == new_ids(3)


def test_who_only_looks_waits_for_no_writer(store_url: str) -> None:
    with open_store(store_url) as writer, open_store(store_url) as reader:
        prepared(writer)
        seen: list[int] = []

        def look_in(statement: str) -> None:
            if statement.startswith("UPDATE"):
                reader.ledger.prepare()
                seen.append(len(reader.ledger.runs()))

        with open_store(store_url, on_statement=look_in) as loader:
            loader.events.commit(piece(new_ids(3)))
    assert seen == [1]


def test_an_sqlite_store_in_memory_works_for_one_process() -> None:
    with open_store("sqlite://") as store:
        prepared(store)
        assert store.events.commit(piece(new_ids(10))).counts.inserted == 10
        assert len(b"".join(store.events.fetch_ids(TABLE))) == 160


def test_a_store_may_be_used_by_one_thread_after_another(store: Store) -> None:
    prepared(store)
    thread = threading.Thread(target=store.events.commit, args=(piece(new_ids(10)),))
    thread.start()
    thread.join()
    assert store.events.commit(piece(new_ids(10))).already_done


def test_closing_twice_is_closing_once(store_url: str) -> None:
    store = open_store(store_url)
    store.close()
    store.close()


def test_every_error_survives_a_process_border(store: Store) -> None:
    with pytest.raises(HeadraceError) as raised:
        list(store.events.fetch_ids("absent"))
    again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own
    assert str(again) == str(raised.value)
