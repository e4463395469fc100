"""A network that loses answers, resets, goes silent, delays and dribbles: the load goes on, or fails and resumes."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.evidence import Record, keep
from support.oracle import Oracle, forget
from support.program import Headrace, scaled
from support.proxy import Proxy, Trouble, drop_all, proxied, reset

import headrace as package
from headrace import AlertRule
from headrace.errors import ConnectionLostError, StoreError
from headrace.storage import open_store
from headrace.storage.sql import retry as retries

OPTIONS: Any = {
    "table": "t",
    "alerts": [AlertRule("third", "key % 3 = 0")],
    "id": ["key", "at"],
    "time": "at",
    "types": {"key": "integer"},
    "chunk_rows": 40,
}
# found out within seconds, not within a minute
IMPATIENT = "?connect_timeout=5&keepalives_idle=1&keepalives_interval=1&keepalives_count=2&tcp_user_timeout=2000"
MOST_RUNS = 20


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    with proxied(postgres_url) as opened:
        yield opened


def load(oracle: Oracle, url: str) -> None:
    """Load, and again as long as a run gives up."""
    for _ in range(MOST_RUNS):
        try:
            report = package.load(oracle.path, to=url, mode="sequential", **OPTIONS)
        except StoreError as error:
            if not error.retryable:
                raise
        else:
            assert report.read == oracle.rows
            return
    pytest.fail(f"the load did not end in {MOST_RUNS} runs")


def judge(headrace: Headrace, oracle: Oracle, fault: str, moment: str, tries: int) -> None:
    found = oracle.look(headrace, first_wins=True)
    keep(Record(fault, moment, "postgresql, sequential", tries, *found, seed=oracle.seed, rows=oracle.rows))
    assert not any(found)
    oracle.check_ledger(headrace)
    idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    assert headrace.query(idle) == [(0,)]
    oracle.check_rerun(
        headrace, lambda _: package.load(oracle.path, to=headrace.url, resume=False, **OPTIONS).to_dict()
    )


def test_an_answer_to_commit_that_never_comes_is_no_second_commit(
    proxy: Proxy, postgres_url: str, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # how long it rests between two tries is not what is tried here, and would be most of the time
    monkeypatch.setattr(retries, "LONGEST_PAUSE", 0.02)
    chance = random.Random(seed)
    headrace = Headrace(postgres_url, tmp_path)
    pass_on, swallowed = proxy.pass_on, scaled(500)

    def sometimes(*args: Any, **named: Any) -> bool:
        # one answer in two: were all of them lost, no load could end
        proxy.trouble = "swallow" if chance.random() < 0.5 else "none"
        return pass_on(*args, **named)

    proxy.pass_on = sometimes  # type: ignore[method-assign]
    number = 0
    while proxy.swallowed < swallowed:
        forget(headrace)
        before, number = proxy.swallowed, number + 1
        oracle = Oracle(tmp_path / f"events{number}.csv", 2000, seed + number)
        load(oracle, proxy.url)
        assert proxy.swallowed > before
        judge(headrace, oracle, "answer lost", "COMMIT", proxy.swallowed - before)


@contextmanager
def striking(proxy: Proxy, trouble: Trouble, times: int, chance: random.Random) -> Iterator[None]:
    """`trouble` for all connections, at `times` random moments."""
    over = threading.Event()

    def strike() -> None:
        proxy.trouble = trouble
        while proxy.struck < times and not over.wait(chance.uniform(0.01, 0.3)):
            proxy.strike()

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "whole"), [("reset", 200), ("black hole", 20)])
def test_connections_that_end_without_a_word_are_replaced(
    proxy: Proxy, postgres_url: str, tmp_path: Path, seed: int, trouble: Trouble, whole: int
) -> None:
    headrace = Headrace(postgres_url, tmp_path)
    oracle = Oracle(tmp_path / "events.csv", 2000, seed)
    times = scaled(whole)
    with striking(proxy, trouble, times, random.Random(seed)):
        while proxy.struck < times:
            forget(headrace)
            load(oracle, proxy.url + IMPATIENT)
    judge(headrace, oracle, trouble, "at random", proxy.struck)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["delay", "dribble"])
def test_a_slow_network_only_takes_longer(
    proxy: Proxy, postgres_url: str, tmp_path: Path, seed: int, trouble: Trouble
) -> None:
    headrace = Headrace(postgres_url, tmp_path)
    oracle = Oracle(tmp_path / "events.csv", 200, seed)
    proxy.trouble = trouble
    load(oracle, proxy.url)
    judge(headrace, oracle, trouble, "all the time", 1)


@contextmanager
def waiting(url: str) -> Iterator[threading.Event]:
    """A connection that waits for an answer; what is given is set when it waits no more."""
    gone = threading.Event()
    with psycopg.connect(url) as connection:

        def wait_for_an_answer() -> None:
            with suppress(psycopg.OperationalError):
                connection.execute("SELECT pg_sleep(3600)")
            gone.set()

        thread = threading.Thread(target=wait_for_an_answer)
        thread.start()
        yield gone
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_server_that_does_not_even_refuse_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        drop_all(listener)
        url = f"postgresql://postgres:@127.0.0.1:{listener.getsockname()[1]}/d?connect_timeout=2"
        with pytest.raises(ConnectionLostError) as raised:
            open_store(url)
    assert raised.value.hint


def test_a_server_that_stays_away_is_given_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "SERVER_AWAY", 1.0)
    with proxied(postgres_url) as proxy:
        store = open_store(proxy.url)
        store.ledger.prepare()
        # while it is there again in time, nobody notices
        proxy.strike_all()
        assert store.ledger.pin_contract("t", "{}") == "{}"
    with store, pytest.raises(ConnectionLostError) as raised:
        store.ledger.pin_contract("t", "{}")
    assert raised.value.__notes__[0].startswith("given up after ")
    assert raised.value.hint


@pytest.mark.timeout(60)
def test_it_is_the_probes_that_find_out_a_black_hole(proxy: Proxy) -> None:
    """The negative control: the same connection without them is still waiting for its answer by then."""
    with waiting(proxy.url + "?keepalives=0") as unprobed, waiting(proxy.url + IMPATIENT) as probed:
        proxy.trouble = "black hole"
        proxy.strike_all()
        assert probed.wait(40)
        assert not unprobed.is_set()
        for hole in proxy.holes:  # the end of its socket lets it go
            reset(hole)
