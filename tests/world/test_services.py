"""Services outlive what passes: a server that restarts, takes no writes or no connections; and end on what does not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.servers import OwnPostgres, own_postgres

import headrace as library
from headrace.delivery.dispatcher import Delivered, Dispatcher
from headrace.delivery.sinks import FunctionSink
from headrace.errors import ConfigurationError, HeadraceError, RefusedStoreError, StoreError
from headrace.loading.database import open_existing
from headrace.polling.config_file import read_settings
from headrace.polling.service import Wanted, serve
from headrace.runtime.reopening import Renewed
from headrace.storage.sql import retry as retries

WITHIN = 120.0  # seconds, for a machine under load; never what is tested


@pytest.fixture(scope="module")
def server(postgres_server: str) -> Iterator[OwnPostgres]:
    with own_postgres() as opened:
        yield opened


@pytest.fixture
def own_url(server: OwnPostgres) -> str:
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS world WITH (FORCE)")
        admin.execute("CREATE DATABASE world")
    return server.url.replace("/postgres?", "/world?")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction gives up at once: what is left to outlast is the service's."""
    monkeypatch.setattr(retries, "SERVER_AWAY", 0.0)
    monkeypatch.setattr(retries, "TRIES", 1)


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN
    while not there():
        ended = [one.failed for one in threading.enumerate() if isinstance(one, Running) and one.failed]
        assert time.monotonic() < end, f"it did not come to that: {ended}"
        time.sleep(0.02)


class Running(threading.Thread):
    """A service in a thread: `work` of its own until `stop`; `failed` is what ended it."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(daemon=True)
        self.url, self.folder, self.over = url, folder, threading.Event()
        self.failed: HeadraceError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.serve()
        except HeadraceError as error:
            self.failed = error

    def serve(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self.over.set()
        self.join(WITHIN)
        assert not self.is_alive()


class Polling(Running):
    """``headrace run --every`` over one file, to which a line is added for each piece of work."""

    def __init__(self, url: str, folder: Path) -> None:
        self.rows, self.loaded = 1, 0
        self.file = folder / "feed.csv"
        self.file.write_text("k\n0\n")
        toml = folder / "headrace.toml"
        toml.write_text(f'database = "{url}"\n[providers.p]\npath = "feed.csv"\nid = ["k"]\ninterval = "1s"\n')
        self.settings = read_settings(toml)
        super().__init__(url, folder)

    def serve(self) -> None:
        def tell(one: Any) -> None:
            self.loaded += one.counts.inserted

        serve(self.settings, Wanted(force=True), tell, every=0.05, stop=self.over)

    def give(self) -> None:
        self.file.write_text("k\n" + "".join(f"{k}\n" for k in range(self.rows + 1)))
        self.rows += 1

    def done(self) -> bool:
        return self.loaded == self.rows


class Delivering(Running):
    """``headrace alerts deliver --every``."""

    def __init__(self, url: str, folder: Path) -> None:
        self.alerts, self.taken, self.result = 0, list[str](), Delivered()
        super().__init__(url, folder)
        self.give()

    def serve(self) -> None:
        sink = FunctionSink(lambda alert: self.taken.append(alert["key"]))
        with Renewed(lambda: open_existing(self.url)) as store:
            self.result = Dispatcher(store, sink, lease=1.0).run(0.05, self.over)

    def give(self) -> None:
        rule = library.AlertRule("all", where="true")
        until(lambda: self.raised(rule))
        self.alerts += 1

    def raised(self, rule: library.AlertRule) -> bool:
        try:
            library.load([{"k": self.alerts}], to=self.url, table="told", id=["k"], alerts=[rule])
        except StoreError:
            return False
        return True

    def done(self) -> bool:
        return len(set(self.taken)) == self.alerts


SERVICES = [Polling, Delivering]


@contextmanager
def killed(server: OwnPostgres) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def altered(server: OwnPostgres, on: str, off: str) -> Iterator[None]:
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(on)
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'world'")
        try:
            yield
        finally:
            admin.execute(off)


def read_only(server: OwnPostgres) -> Any:
    option = "default_transaction_read_only"
    return altered(server, f"ALTER DATABASE world SET {option} = on", f"ALTER DATABASE world RESET {option}")


def closed(server: OwnPostgres) -> Any:
    allow = "ALTER DATABASE world ALLOW_CONNECTIONS"
    return altered(server, f"{allow} false", f"{allow} true")


@pytest.mark.parametrize("trouble", [killed, read_only, closed])
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_goes_on_when_the_servers_trouble_has_passed(
    server: OwnPostgres,
    own_url: str,
    tmp_path: Path,
    service: type[Polling | Delivering],
    trouble: Callable[[OwnPostgres], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = service(own_url, tmp_path)
    until(running.done)
    for _ in range(2):
        caplog.clear()
        with trouble(server):
            until(lambda: sum(one.levelno >= logging.WARNING for one in caplog.records) >= 2)
            assert running.is_alive(), running.failed
        running.give()
        until(running.done)
    running.end()
    assert running.failed is None
    if isinstance(running, Delivering):
        assert running.result.delivered == running.alerts, "told as often as it was settled"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_is_started_before_its_server_waits_for_it(
    server: OwnPostgres, own_url: str, tmp_path: Path, service: type[Polling | Delivering]
) -> None:
    before = service(own_url, tmp_path)
    until(before.done)
    before.end()
    server.kill()
    try:
        running = service.__new__(service)
        running.__dict__.update({name: value for name, value in vars(before).items() if not name.startswith("_")})
        threading.Thread.__init__(running, daemon=True)
        running.over = threading.Event()
        running.start()
        time.sleep(0.3)
        assert running.is_alive(), running.failed
    finally:
        server.start()
    running.give()
    until(running.done)
    running.end()
    assert running.failed is None


@pytest.mark.parametrize("service", SERVICES)
def test_a_table_that_is_gone_ends_a_service_in_words(
    server: OwnPostgres, own_url: str, tmp_path: Path, service: type[Polling | Delivering]
) -> None:
    running = service(own_url, tmp_path)
    until(running.done)
    with psycopg.connect(own_url, autocommit=True) as admin:
        admin.execute("DROP TABLE headrace_providers, headrace_alerts")
    running.join(WITHIN)
    assert isinstance(running.failed, RefusedStoreError)
    assert "does not exist" in str(running.failed)


@pytest.mark.parametrize("service", SERVICES)
def test_a_database_that_was_never_there_ends_a_service_at_once(
    server: OwnPostgres, tmp_path: Path, service: type[Polling | Delivering]
) -> None:
    url = server.url.replace("/postgres?", "/nowhere?")
    running = Polling(url, tmp_path) if service is Polling else _only_delivering(url, tmp_path)
    running.join(WITHIN)
    assert isinstance(running.failed, RefusedStoreError)


class _OnlyDelivering(Delivering):
    def give(self) -> None:
        """Nothing."""


def _only_delivering(url: str, folder: Path) -> Running:
    return _OnlyDelivering(url, folder)


def test_a_service_opens_the_file_that_was_put_in_the_place_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    running = Polling(f"sqlite:///{file}", tmp_path)
    until(running.done)
    for one in tmp_path.glob("x.db*"):
        one.unlink()
    running.loaded = 0
    until(running.done)
    running.end()
    assert running.failed is None


def test_what_was_sent_while_the_database_failed_is_settled_before_anything_is_sent(
    own_url: str, tmp_path: Path, server: OwnPostgres
) -> None:
    running = Delivering(own_url, tmp_path)
    until(running.done)
    running.end()
    running.give()
    stop, sent = threading.Event(), list[str]()

    def take(alert: dict[str, Any]) -> None:
        sent.append(alert["key"])
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("ALTER DATABASE world SET default_transaction_read_only = on")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'world'")

    with Renewed(lambda: open_existing(own_url)) as store:
        dispatcher = Dispatcher(store, FunctionSink(take), lease=60.0)
        with pytest.raises(StoreError) as failed:
            dispatcher.drain()
        assert store.outlasts(failed.value)
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("ALTER DATABASE world RESET default_transaction_read_only")
        assert dispatcher.drain(stop) == Delivered(delivered=1)
    assert len(sent) == 1, "sent once, though the first settling failed"


def test_a_wrong_setting_is_never_outlasted() -> None:
    opened = Renewed(lambda: open_existing("sqlite:///nowhere/x.db"))
    with pytest.raises(ConfigurationError) as error:
        opened.use()
    assert not opened.outlasts(error.value)
