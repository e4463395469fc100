"""Several hosts on one file, hosts that die, and the end of a service: no provider is polled by two at a time."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.feeds import Answer, Feeds, feeds_server
from support.polling import START, FakeClock, hear, rounds
from support.program import Headrace

from headrace.errors import StoreError
from headrace.polling.config_file import read_settings
from headrace.polling.poll import Round
from headrace.polling.service import Wanted, serve
from headrace.storage import open_store
from headrace.storage.providers import ProviderState
from headrace.storage.sql.providers import Providers
from headrace.storage.store import Store

FILE = """
database = "{database}"
[run]
lease = "{lease}"
[providers.p]
url = "{url}/p.csv"
id = ["n"]
timeout = "10m"
"""
DEADLINE = 120.0  # seconds, for a machine under load; never what is tested


def text(headrace: Headrace, feeds: Feeds, lease: str = "60s") -> str:
    filled = FILE.replace("{database}", headrace.url).replace("{url}", feeds.url).replace("{lease}", lease)
    (headrace.folder / "headrace.toml").write_text(filled)
    return filled


def begun(headrace: Headrace, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        headrace.command("run", "--force", "--output", "json", *words),
        env=headrace.environment(),
        cwd=headrace.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not there():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def outcome(done: str) -> str:
    (poll,) = json.loads(done)["providers"]
    return str(poll["outcome"])


def test_two_hosts_never_poll_one_provider_at_a_time(headrace: Headrace) -> None:
    with feeds_server() as feeds:
        text(headrace, feeds)
        go_on = threading.Event()
        feeds.answers["/p.csv"] = Answer(b"n\n1\n", wait=go_on)
        first = begun(headrace)
        until(lambda: bool(feeds.arrived))
        second = headrace.run("run", "--force", "--output", "json")
        assert outcome(second.stdout) == "elsewhere"
        assert len(feeds.arrived) == 1
        go_on.set()
        said, _ = first.communicate(timeout=DEADLINE)
        assert (first.returncode, outcome(said)) == (0, "loaded")
        # when the first has let go, the second may
        assert outcome(headrace.run("run", "--force", "--output", "json").stdout) == "unchanged"


@pytest.mark.slow
def test_the_claim_of_a_killed_host_lapses_and_that_of_a_living_one_does_not(headrace: Headrace) -> None:
    with feeds_server() as feeds:
        text(headrace, feeds, lease="5s")
        go_on = threading.Event()
        feeds.answers["/p.csv"] = Answer(b"n\n1\n", wait=go_on)
        first = begun(headrace)
        until(lambda: bool(feeds.arrived))
        with open_store(headrace.url) as store:
            granted = claim_until(store, seconds=6.0)
            assert granted == {}, "it was taken from a host that lives"
            first.kill()
            first.communicate()
            assert set(claim_until(store, seconds=DEADLINE)) == {"p"}
        go_on.set()


def claim_until(store: Store, seconds: float) -> dict[str, ProviderState]:
    """Try for `seconds` to claim the provider."""
    end = time.monotonic() + seconds
    while not (granted := store.providers.claim(["p"], "another", 30.0, due=None)) and time.monotonic() < end:
        time.sleep(0.2)
    return granted


def test_of_many_who_claim_at_once_one_is_granted(store_url: str) -> None:
    with open_store(store_url) as store:
        store.ledger.prepare()
    assert [len(one) for one in race(store_url)] == [1] * 5


def race(url: str) -> list[list[str]]:
    """Four threads claim the same provider at the same moment, five times; who was granted each time."""
    granted: list[list[str]] = []
    for number in range(5):
        winners: list[str] = []
        start = threading.Barrier(4)

        def claim(who: str, provider: str, winners: list[str] = winners, start: threading.Barrier = start) -> None:
            with open_store(url) as store:
                start.wait()
                if store.providers.claim([provider], who, 30.0, due=None):
                    winners.append(who)

        threads = [threading.Thread(target=claim, args=(f"host {one}", f"p{number}")) for one in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        granted.append(winners)
    return granted


def test_negative_control_claims_without_a_condition_are_granted_to_all(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Providers.claim

    def ask_for_itself(self: Providers, names: list[str], holder: str, seconds: float, *, due: object) -> object:
        # as if no lease had a holder: what a claim that is not one step comes to
        self._database.write(
            lambda connection: connection.exec_driver_sql("UPDATE headrace_providers SET held_until = NULL")
        )
        return original(self, names, holder, seconds, due=None)

    with open_store(sqlite_url) as store:
        store.ledger.prepare()
    monkeypatch.setattr(Providers, "claim", ask_for_itself)
    assert any(len(one) > 1 for one in race(sqlite_url))


def test_a_state_is_not_written_over_by_a_host_that_lost_its_claim(store: Store) -> None:
    store.providers.claim(["p"], "slow", 0.0, due=None)
    assert set(store.providers.claim(["p"], "quick", 60.0, due=None)) == {"p"}
    assert store.providers.save([ProviderState("p", polls=1, polled_at=START)], "slow") == set()
    assert store.providers.save([ProviderState("p", polls=2, polled_at=START)], "quick") == {"p"}
    assert store.providers.states()["p"].polls == 2
    # the same once more is a COMMIT whose answer was lost
    assert store.providers.save([ProviderState("p", polls=2, polled_at=START)], "quick") == {"p"}


def test_a_provider_that_another_host_has_just_polled_is_not_due_any_more(store: Store) -> None:
    state = ProviderState("p", polled_at=START, next_at=FakeClock().now().replace(hour=1))
    store.providers.claim(["p"], "first", 60.0, due=START)
    store.providers.save([state], "first")
    assert store.providers.claim(["p"], "second", 60.0, due=START) == {}
    assert set(store.providers.claim(["p"], "second", 60.0, due=state.next_at)) == {"p"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_service_stops_gracefully_and_lets_its_claims_go(headrace: Headrace, number: int, code: int) -> None:
    with feeds_server() as feeds:
        text(headrace, feeds)
        feeds.answers["/p.csv"] = Answer(b"n\n1\n")
        service = begun(headrace, "--every", "1s")
        until(lambda: len(feeds.arrived) > 1)
        service.send_signal(number)
        _, said = service.communicate(timeout=DEADLINE)
        assert service.returncode == code, said
        assert "Traceback" not in said
    with open_store(headrace.url) as store:
        assert store.providers.claimed() == {}
    assert headrace.count("p") == 1


def test_a_failure_of_one_provider_does_not_stop_the_others(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "ok.csv").write_text("n\n1\n")
    names = ["a", "b", "c", "d"]
    broken = '[providers.{}]\npath = "ok.csv"\nselect = "SELECT nope FROM source"\n'
    fine = '[providers.{}]\npath = "ok.csv"\n'
    text = f'database = "{sqlite_url}"\n' + "".join(
        (broken if number % 2 == 0 else fine).format(name) for number, name in enumerate(names)
    )
    with rounds(tmp_path, text) as go:
        found = go()
        assert [poll.outcome for poll in found.polls] == ["failed", "loaded", "failed", "loaded"]
        assert found.exit_code == 2
        assert [poll.outcome for poll in go(40).polls] == ["failed", "not due", "failed", "not due"]


def test_a_database_that_is_gone_for_a_round_is_there_for_the_next(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.csv").write_text("n\n1\n")
    file = tmp_path / "headrace.toml"
    file.write_text(f'database = "{sqlite_url}"\n[providers.p]\npath = "p.csv"\n')
    clock, told, stop = FakeClock(), list[Round](), threading.Event()
    original, asked = Providers.states, list[Providers]()

    def states(self: Providers) -> dict[str, ProviderState]:
        asked.append(self)
        if len(asked) == 2:
            raise StoreError("the database is gone")
        return original(self)

    def tell(one: Round) -> None:
        told.append(one)
        if len(told) == 3:
            stop.set()

    monkeypatch.setattr(Providers, "states", states)
    serve(read_settings(file), Wanted(), tell, every=300.0, clock=clock, stop=stop)
    assert [one.polls[0].outcome for one in told] == ["loaded", "unchanged", "unchanged"]
    assert len(asked) == 4
    del asked[1:]
    with pytest.raises(StoreError):  # a single round says so
        serve(read_settings(file), Wanted(), tell, clock=clock)


@pytest.mark.parametrize("yields", ["dicts", "batches", "table", "nothing", "none"])
def test_a_function_yields_rows_or_arrow(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yields: str
) -> None:
    code = """
import pyarrow as pa
def dicts():
    yield {"n": 1}
    yield {"n": 2}
def batches():
    yield pa.record_batch({"n": pa.array([], pa.int64())})
    yield pa.record_batch({"n": [1]})
    yield pa.record_batch({"n": [2]})
def table():
    return pa.table({"n": [1, 2]})
def nothing():
    return pa.table({"n": pa.array([], pa.int64())})
def none():
    return None
"""
    (tmp_path / f"feed_{yields}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    heard = hear(monkeypatch)
    text = f'database = "{sqlite_url}"\n[providers.p]\nfunction = "feed_{yields}:{yields}"\nid = ["n"]\n'
    with rounds(tmp_path, text) as go:
        heard.take()
        poll = go.one()
        if yields in ("nothing", "none"):
            assert (poll.outcome, len(heard.take())) == ("empty", 3)
        else:
            assert (poll.outcome, poll.counts.inserted) == ("loaded", 2), poll
            assert go.one(300).counts.duplicate_in_store == 2


def test_files_are_read_again_when_they_change(sqlite_url: str, tmp_path: Path) -> None:
    text = f'database = "{sqlite_url}"\n[providers.p]\npath = "drop/*.csv"\nid = ["n"]\n'
    with rounds(tmp_path, text) as go:
        assert go.one().outcome == "empty"
        (tmp_path / "drop").mkdir()
        assert go.one(300).outcome == "empty"
        (tmp_path / "drop" / "a.csv").write_text("n\n1\n")
        assert go.one(300).counts.inserted == 1
        assert go.one(300).outcome == "unchanged"
        (tmp_path / "drop" / "b.csv").write_text("n\n1\n2\n")
        assert go.one(300).counts.inserted == 1
