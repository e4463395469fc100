"""Clocks that were wrong for a moment, a host's or the database server's: that costs time, a poll or a repetition, and
never an event.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.feeds import Answer, feeds_server
from support.polling import START, FakeClock, Rounds, rounds
from support.program import Headrace

import headrace as library
from headrace.loading import run
from headrace.loading.open_run import OpenRun
from headrace.polling.config_file import read_settings
from headrace.polling.poll import Round
from headrace.polling.service import Wanted, serve
from headrace.storage import open_store
from headrace.storage.outbox import Attempt
from headrace.storage.providers import ProviderState
from headrace.storage.store import Store

FILE = 'database = "{}"\n[providers.p]\npath = "p.csv"\nid = ["k"]\ninterval = "5m"\ntable = "ev"\n'
JUMPS = [timedelta(minutes=10), timedelta(hours=5), timedelta(days=365)]


@pytest.fixture
def go(store_url: str, tmp_path: Path) -> Iterator[Rounds]:
    give(tmp_path, 1)
    with rounds(tmp_path, FILE.format(store_url)) as opened:
        yield opened


def give(folder: Path, rows: int) -> None:
    (folder / "p.csv").write_text("k\n" + "".join(f"{k}\n" for k in range(rows)))


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("goes", ["loaded", "failed", "empty"])
def test_a_poll_under_a_clock_that_is_ahead_stops_no_provider(
    go: Rounds, tmp_path: Path, jump: timedelta, goes: str
) -> None:
    go.clock.moment += jump
    if goes == "failed":
        (tmp_path / "p.csv").unlink()
    elif goes == "empty":
        give(tmp_path, 0)
    assert go.one().outcome == goes
    go.clock.moment -= jump
    give(tmp_path, 2)
    assert go.one().outcome == "loaded"
    assert go.one().outcome == "not due", "a right clock is believed again"
    assert go.one(300).polled


def test_a_poll_under_a_clock_that_is_behind_stops_no_provider(go: Rounds, tmp_path: Path) -> None:
    go()
    go.clock.moment -= timedelta(days=365)
    give(tmp_path, 2)
    assert go.one().outcome == "loaded"
    assert go.one().outcome == "not due"
    go.clock.moment += timedelta(days=365)
    give(tmp_path, 3)
    assert go.one().outcome == "loaded"


def test_two_hosts_whose_clocks_differ_by_seconds_poll_no_more_often(
    store_url: str, tmp_path: Path, go: Rounds
) -> None:
    polled = 0
    other = FakeClock(START + timedelta(seconds=45))
    with rounds(tmp_path, FILE.format(store_url), clock=other) as ahead:
        for _ in range(40):
            polled += go.one(30).polled + ahead.one(30).polled
    assert polled <= 2 + 40 * 30 / 285, "twenty minutes, every five"


def test_what_a_server_asked_for_and_what_a_quiet_feed_waits_is_believed(sqlite_url: str, tmp_path: Path) -> None:
    text = FILE.format(sqlite_url)
    with feeds_server() as feeds, rounds(tmp_path, text.replace('path = "p', f'url = "{feeds.url}/p')) as go:
        feeds.answers["/p.csv"] = Answer(b"", 503, {"Retry-After": "7200"})
        assert go.one().outcome == "failed"
        assert [go.one(600).polled for _ in range(13)] == [False] * 11 + [True, False]
        feeds.answers["/p.csv"] = Answer(b"k\n")
        waits = [minutes(go) for _ in range(8)][1:]
        assert waits == sorted(waits)
        assert waits[-1] > 60, "longer and longer"


def minutes(go: Rounds) -> int:
    for minute in range(1, 1000):
        if go.one(60).polled:
            return minute
    raise AssertionError("it was never polled")


def test_an_interval_that_the_file_has_shortened_holds_at_once(store_url: str, tmp_path: Path) -> None:
    give(tmp_path, 1)
    text, clock = FILE.format(store_url), FakeClock()
    with rounds(tmp_path, text.replace("5m", "7d"), clock=clock) as slow:
        slow()
        assert slow.one(3600).outcome == "not due"
    with rounds(tmp_path, text, clock=clock) as quick:
        assert quick.one().polled
        assert quick.one(60).outcome == "not due"


def test_a_clock_that_is_set_back_during_a_round_makes_no_service_wait_for_it(store_url: str, tmp_path: Path) -> None:
    give(tmp_path, 1)
    file = tmp_path / "headrace.toml"
    file.write_text(FILE.format(store_url))
    waited: list[float] = []

    class Clock(FakeClock):
        def wait(self, seconds: float, stop: threading.Event) -> None:
            waited.append(seconds)
            stop.set()

    clock = Clock()

    def tell(_: Round) -> None:
        clock.moment -= timedelta(days=365)

    serve(read_settings(file), Wanted(), tell, every=60.0, clock=clock)
    assert waited == [60.0]


# The server's clock ---------------------------------------------------------------------------------------------


def shift(headrace: Headrace, table: str, column: str, days: int) -> None:
    """As if the server's clock had been `days` ahead when it wrote `column`."""
    moved = (
        f"strftime('%Y-%m-%d %H:%M:%f000', {column}, '{days} days')"
        if headrace.url.startswith("sqlite")
        else f"{column} + interval '{days} days'"
    )
    headrace.query(f"UPDATE {table} SET {column} = {moved}")  # noqa: S608 - our own names


def test_a_claim_of_a_server_that_was_ahead_is_not_believed(headrace: Headrace) -> None:
    with open_store(headrace.url) as store:
        store.ledger.prepare()
        assert set(store.providers.claim(["p"], "a", 60.0, due=None)) == {"p"}
        assert store.providers.claim(["p"], "b", 60.0, due=None) == {}
        assert store.providers.claimed() == {"p": "a"}
        shift(headrace, "headrace_providers", "held_until", 365)
        assert store.providers.claimed() == {}
        assert set(store.providers.claim(["p"], "b", 60.0, due=None)) == {"p"}
        assert store.providers.renew("a", 60.0) == set()
        assert store.providers.save([ProviderState("p", polls=1)], "a") == set()
        assert store.providers.save([ProviderState("p", polls=2)], "b") == {"p"}


def test_a_longer_lease_of_another_host_is_believed(headrace: Headrace) -> None:
    with open_store(headrace.url) as store:
        store.ledger.prepare()
        store.providers.claim(["p"], "a", 3000.0, due=None)
        assert store.providers.claim(["p"], "b", 5.0, due=None) == {}


def test_a_claim_that_lapsed_under_its_holder_is_prolonged_if_nobody_took_it(headrace: Headrace) -> None:
    """A server's clock that jumps ahead ends every claim at once; nobody has to be told of another host for that."""
    with open_store(headrace.url) as store:
        store.ledger.prepare()
        store.providers.claim(["p", "q"], "a", 60.0, due=None)
        shift(headrace, "headrace_providers", "held_until", -365)
        store.providers.claim(["q"], "b", 60.0, due=None)
        assert store.providers.renew("a", 60.0) == {"p"}
        assert store.providers.claim(["p"], "b", 60.0, due=None) == {}


@pytest.fixture
def outbox(headrace: Headrace) -> Iterator[Store]:
    rule = library.AlertRule("all", where="true")
    library.load([{"k": k} for k in range(4)], to=headrace.url, table="ev", id=["k"], alerts=[rule])
    with open_store(headrace.url) as store:
        yield store


@pytest.mark.parametrize("was", ["raised", "leased", "put off"])
def test_an_alert_that_a_server_ahead_has_put_off_is_delivered(outbox: Store, headrace: Headrace, was: str) -> None:
    if was != "raised":
        held = outbox.outbox.claim("a", limit=4, seconds=60)
        if was == "put off":
            outbox.outbox.settle("a", [Attempt(one.alert_id, "pending", delay=30.0) for one in held])
        assert outbox.outbox.claim("b", limit=4, seconds=60) == []
    shift(headrace, "headrace_alerts", "next_attempt_at", 365)
    assert len(outbox.outbox.claim("b", limit=3, seconds=60)) == 3
    assert len(outbox.outbox.claim("c", limit=3, seconds=60)) == 1
    assert outbox.outbox.claim("d", limit=3, seconds=60) == []


def test_the_longest_back_off_and_a_long_lease_are_believed(outbox: Store) -> None:
    one, two, *rest = outbox.outbox.claim("a", limit=4, seconds=3000)
    outbox.outbox.settle("a", [Attempt(one.alert_id, "pending", delay=86_400.0)])
    outbox.outbox.settle("a", [Attempt(two.alert_id, "delivered")])
    assert len(rest) == 2
    assert outbox.outbox.claim("b", limit=4, seconds=5) == []


@pytest.mark.parametrize("identity", [["at", "k"], ["k"]])
@pytest.mark.parametrize("year", [1, 1971, 2300, 9999])
def test_a_window_by_a_wrong_server_clock_costs_time_and_no_event(
    store_url: str, year: int, identity: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = run.open_run

    def open_run(*given: Any, **named: Any) -> OpenRun:
        going = original(*given, **named)
        return replace(going, started=datetime(year, 6, 1, tzinfo=UTC))

    monkeypatch.setattr(run, "open_run", open_run)
    rows = [{"k": k, "at": datetime(2010 + k % 20, 1, 1, tzinfo=UTC)} for k in range(60)]
    for window in ("30d", "1s", "200000w", "all"):
        report = library.load(rows, to=store_url, table="ev", id=identity, time="at", window=window)
        again = window != "30d"
        assert (report.inserted, report.duplicate_in_store) == ((0, 60) if again else (60, 0))


def test_the_newest_event_is_not_hidden_by_one_from_the_far_future(store_url: str, tmp_path: Path) -> None:
    text = FILE.format(store_url) + 'time = "at"\n'
    with rounds(tmp_path, text) as go, open_store(store_url) as store:
        for name, seen in (("9998-01-01", 9998), ("2026-02-27", 2026), ("2026-02-28", 2026), ("2025-01-01", 2026)):
            (tmp_path / "p.csv").write_text(f"k,at\n1,{name}T00:00:00Z\n")
            go(300)
            newest = store.providers.states()["p"].newest_event
            assert newest is not None
            assert newest.year == seen
