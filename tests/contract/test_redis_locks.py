"""Locks in a real Redis: they exclude, end with their lease, and are no fence: the unique key is."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from contract.pieces import Pause, look, new_ids, packed, piece, prepared, stored_ids
from support.needs import program

import headrace
from headrace.errors import ConfigurationError, HeadraceError, LockTimeoutError, StoreError
from headrace.storage import open_store
from headrace.storage.locks import RedisLocks, lock_keys
from headrace.storage.records import Committed, Counts

CANARY = "c4n4ry-p4ss"
KEYS = lock_keys("events", 0, 8)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server that this test process started, with a password and without persistence."""
    redis_server, port = program("redis-server"), _free_port()
    settings = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "requirepass": CANARY}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    with (tmp_path_factory.mktemp("redis") / "log").open("wb") as log:
        server = subprocess.Popen([redis_server, *words], stdout=log, stderr=log, cwd=Path(log.name).parent)
        url = f"redis://:{CANARY}@127.0.0.1:{port}/0"
        try:
            _wait_for(url, server)
            yield url
        finally:
            server.terminate()
            server.wait(30)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                assert server.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.05)
            else:
                return


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A second pair of eyes on an empty Redis."""
    with redis.Redis.from_url(redis_url) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def locks(redis_url: str, client: redis.Redis) -> Iterator[RedisLocks]:
    opened = RedisLocks(redis_url)
    yield opened
    opened.close()


def names(client: redis.Redis) -> list[str]:
    return sorted(key.decode() for key in client.scan_iter())


def _no_canary(error: BaseException) -> None:
    seen: BaseException | None = error
    while seen is not None:
        assert CANARY not in str(seen)
        assert CANARY not in repr(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    assert CANARY.encode() not in pickle.dumps(error)


def test_locks_are_held_inside_and_gone_outside(locks: RedisLocks, client: redis.Redis) -> None:
    with locks.hold(KEYS, 1.0) as waited:
        assert waited == 0.0
        assert names(client) == sorted(f"headrace:lock:{key % 2**64:016x}" for key in KEYS)
        assert all(0 < client.pttl(name) <= 60_000 for name in names(client))
    assert names(client) == []
    with pytest.raises(ZeroDivisionError), locks.hold(KEYS, 1.0):
        raise ZeroDivisionError
    assert names(client) == []


def test_who_shares_a_key_waits_and_says_how_long(redis_url: str, locks: RedisLocks) -> None:
    def wait_for_it() -> float:
        other = RedisLocks(redis_url)
        with other.hold([*KEYS[3:], *lock_keys("others", 0, 8)], 60.0) as waited:
            pass
        other.close()
        return waited

    with ThreadPoolExecutor(1) as pool:
        with locks.hold(KEYS[:4], 1.0), locks.hold(lock_keys("elsewhere", 0, 8), 1.0) as apart:
            assert apart == 0.0
            waiting = pool.submit(wait_for_it)
            time.sleep(0.3)
            assert not waiting.done()
        assert waiting.result() > 0.0


def test_a_lock_that_is_not_granted_in_time_says_so_and_leaves_nothing(
    redis_url: str, locks: RedisLocks, client: redis.Redis
) -> None:
    last = max(KEYS)
    with locks.hold([last], 1.0):
        held = names(client)
        other = RedisLocks(redis_url)
        with pytest.raises(LockTimeoutError) as raised, other.hold(KEYS, 0.1, where="table events, partition 3"):
            pytest.fail("it was granted")
        other.close()
        assert names(client) == held == [f"headrace:lock:{last % 2**64:016x}"]
    error = raised.value
    assert (error.retryable, error.exit_code) == (False, 1)
    assert held[0] in error.what
    assert "0.1 s" in error.what
    assert str(error.where).endswith("/0, table events, partition 3")
    assert "--lock-timeout" in str(error.hint)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own
    _no_canary(error)


def test_a_lock_that_outlives_its_lease_duplicates_nothing(
    store_url: str, redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The holder has found its events absent and is about to write, when its lease ends and another loader comes."""
    ids = new_ids(30)
    with open_store(store_url) as store:
        prepared(store)
    about_to_write = Pause('COPY "events"' if store_url.startswith("postgresql") else "BEGIN IMMEDIATE")

    def slow_loader() -> Committed:
        mine = RedisLocks(redis_url, lease=0.2)
        with open_store(store_url, on_statement=about_to_write) as store, mine.hold(KEYS, 1.0, where="table events"):
            about_to_write.arm()
            committed = store.events.commit(piece(ids, existing="query"))
        mine.close()
        return committed

    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO, "headrace.locks"):
        slow: Future[Committed] = pool.submit(slow_loader)
        about_to_write.wait_until_there(slow)
        yours = RedisLocks(redis_url)
        with open_store(store_url) as store, yours.hold(KEYS, 60.0):
            quick = store.events.commit(piece(ids[10:], first_row=100, existing="query"))
            about_to_write.go()
            done = slow.result()
            assert len(names(client)) == len(KEYS), "whose lease has run out does not release another's lock"
        yours.close()
    assert quick.counts == Counts(read=20, inserted=20)
    assert done.counts == Counts(read=30, inserted=10, duplicate_in_store=20)
    assert packed(done.inserted_ids or b"") == ids[:10]
    assert stored_ids(store_url) == ids
    assert look(store_url, "SELECT sum(inserted) FROM headrace_receipts") == [(30,)]
    warned = [record for record in caplog.records if record.name == "headrace.locks"]
    assert len(warned) == len(KEYS)
    assert {record.levelno for record in warned} == {logging.WARNING}
    assert all("lease" in record.getMessage() and CANARY not in record.getMessage() for record in warned)


def test_a_server_that_is_gone_at_the_release_costs_a_warning(
    redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The events are committed by then; nothing is gained by failing."""
    mine = RedisLocks(redis_url)
    with caplog.at_level(logging.WARNING, "headrace.locks"), mine.hold(KEYS[:1], 1.0):
        client.config_set("requirepass", f"{CANARY}-changed")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    client.config_set("requirepass", CANARY)
    mine.close()
    (record,) = caplog.records
    assert "ends with its lease" in record.getMessage()
    assert CANARY not in record.getMessage()


def test_a_server_that_cannot_be_reached_is_a_store_error_with_a_hint() -> None:
    locks = RedisLocks(f"redis://user:{CANARY}@127.0.0.1:{_free_port()}/3")
    with pytest.raises(StoreError) as raised, locks.hold(KEYS, 1.0, where="table events"):
        pytest.fail("it was granted")
    locks.close()
    assert "table events" in str(raised.value.where)
    assert raised.value.hint
    _no_canary(raised.value)


def test_a_wrong_password_is_a_store_error_that_does_not_tell_it(redis_url: str) -> None:
    locks = RedisLocks(redis_url.replace(CANARY, f"{CANARY}-wrong"))
    with pytest.raises(StoreError) as raised, locks.hold(KEYS, 1.0):
        pytest.fail("it was granted")
    locks.close()
    _no_canary(raised.value)


@pytest.mark.parametrize(
    "url", [f"{CANARY}@host", f"http://u:{CANARY}@h", f"redis://u:{CANARY}/x@h", f"redis://h:6379?db={CANARY}", ""]
)
def test_a_url_that_cannot_be_read_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RedisLocks(url)
    assert "redis://" in str(raised.value.hint)
    _no_canary(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://u:{CANARY}@h:5/2", "redis://h:5/2"),
        (f"rediss://:{CANARY}@h", "redis://h:6379/0"),
        (f"redis://h?password={CANARY}", "redis://h:6379/0"),
        (f"unix://u:{CANARY}@/run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert RedisLocks(url).url == shown


def test_a_lease_that_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lease"):
        RedisLocks("redis://h", lease=0)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(HeadraceError) as raised:
        RedisLocks("redis://h")
    assert isinstance(raised.value, ConfigurationError)
    assert raised.value.hint == "pip install 'headrace[redis]'"


def test_whole_loads_share_the_locks(store_url: str, redis_url: str, tmp_path: Path) -> None:
    """Two loaders of the same events, whose locks lie in Redis, through the command line's own path."""
    events = tmp_path / "events.csv"
    events.write_text("\n".join(["key", *map(str, range(500))]) + "\n")

    def load(partitions: int) -> headrace.Report:
        return headrace.load(
            events,
            to=store_url,
            table="t",
            id=["key"],
            mode="parallel",
            strategy="locked",
            workers=2,
            partitions=partitions,
            chunk_rows=100,
            locks=redis_url,
            resume=False,
        )

    with ThreadPoolExecutor(2) as loaders:
        reports = list(loaders.map(load, (2, 4)))
    assert sum(report.inserted for report in reports) == 500
    assert all(report.read == 500 for report in reports)
    held = redis.Redis.from_url(redis_url)
    ours = {f"headrace:lock:{key % 2**64:016x}".encode() for part in (0, 1) for key in lock_keys("t", part, 2)}
    assert len(ours) == 64
    assert ours.isdisjoint(held.keys("headrace:lock:*"))  # another test's may still have its lease
    held.close()
