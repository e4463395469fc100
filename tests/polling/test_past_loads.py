"""The rolling profile of each provider: what its last loads took is kept, bounded, and says when parallel mode pays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.polling import rounds
from support.program import Headrace

from headrace.cli.profile import history
from headrace.errors import UsageError
from headrace.polling.checkup import examine_settings
from headrace.storage import open_store
from headrace.storage.providers import PastLoad, ProviderState
from headrace.storage.sql import providers
from headrace.storage.sql.providers import ring_values

ONE = """
database = "{url}"
[providers.p]
path = "p.csv"
id = ["n"]
interval = "5m"
"""
STAGES = {"read": (1, 0.1, 0.1), "prepare": (1, 0.1, 0.1), "commit": (1, 0.2, 0.1), "commit.copy": (1, 0.1, 0.0)}


def deliver(folder: Path, first: int, count: int) -> None:
    (folder / "p.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(first, first + count)))


def kept(url: str) -> list[PastLoad]:
    with open_store(url) as store:
        return store.providers.past_loads()


def polled(url: str, folder: Path, times: int) -> None:
    with rounds(folder, ONE.format(url=url)) as go:
        for number in range(times):
            deliver(folder, number * 10, 10 + number)
            assert go.one(300).outcome == "loaded"


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "KEPT", 3)


def test_a_load_is_kept_with_what_it_took_and_a_poll_without_events_is_not(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with rounds(tmp_path, ONE.format(url=store_url)) as go:
        deliver(tmp_path, 0, 10)
        first = go.one()
        assert go.one(300).outcome == "unchanged"
        deliver(tmp_path, 5, 10)
        second = go.one(300)
    loads = kept(store_url)
    assert [(one.number, one.run_id) for one in loads] == [(1, first.run_id), (2, second.run_id)]
    assert [(one.read, one.inserted, one.chunks) for one in loads] == [(10, 10, 1), (10, 5, 1)]
    for one in loads:
        assert (one.provider, one.table, one.strategy, one.parallel) == ("p", "p", "sequential", False)
        assert 0 < one.seconds < 60
        assert one.cpu_seconds > 0
        assert 0 <= one.machine_cpu <= 1
        assert {"agree", "read", "prepare", "decide", "commit", "commit.receipt"} <= one.stages.keys()
        spans, wall, cpu = one.stages["commit"]
        assert spans == 1
        assert 0 < cpu <= wall * 1.5 < 60


def test_the_table_is_bounded_and_holds_the_newest(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: None
) -> None:
    monkeypatch.chdir(tmp_path)
    polled(store_url, tmp_path, 5)
    assert [(one.number, one.read) for one in kept(store_url)] == [(3, 12), (4, 13), (5, 14)]


def test_negative_control_without_the_ring_the_table_grows(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: None
) -> None:
    monkeypatch.chdir(tmp_path)

    def no_ring(load: PastLoad, polled_at: datetime | str) -> dict[str, object]:
        return ring_values(load, polled_at) | {"slot": load.number}

    monkeypatch.setattr(providers, "ring_values", no_ring)
    polled(store_url, tmp_path, 5)
    assert len(kept(store_url)) == 5


def test_a_host_that_was_taken_over_keeps_no_load(store_url: str) -> None:
    load = past(1)
    state = ProviderState("p", table="p", polled_at=load.polled_at, polls=1, loads=1, load=load)
    with open_store(store_url) as store:
        store.ledger.prepare()
        store.providers.claim(["p"], "other", 60.0, due=None)
        assert store.providers.save([state], "me") == set()
        assert store.providers.past_loads() == []
        assert store.providers.save([state], "other") == {"p"}
        assert store.providers.past_loads() == [load]
        assert store.providers.save([state], "other") == {"p"}  # as after a COMMIT whose answer was lost
        assert store.providers.past_loads(["p"]) == [load]
        assert store.providers.past_loads(["q"]) == []


def past(number: int, *, rows: int = 1_000, slow: float = 1.0, strategy: str = "sequential") -> PastLoad:
    """A load that takes `slow` times half a second."""
    return PastLoad(
        provider="p",
        table="p",
        number=number,
        run_id=f"run {number}",
        polled_at=datetime(2026, 3, number, tzinfo=UTC),
        strategy=strategy,
        workers=1 if strategy == "sequential" else 2,
        chunks=1,
        read=rows,
        inserted=rows,
        seconds=0.5 * slow,
        cpu_seconds=0.3 * slow,
        machine_cpu=0.25,
        stages={name: (spans, wall * slow, cpu * slow) for name, (spans, wall, cpu) in STAGES.items()},
    )


def waits(number: int, seconds: float) -> PastLoad:
    """A load that waits for a function of the user's most of the time: what workers can share on any machine."""
    one = past(number)
    return replace(one, seconds=one.seconds + seconds, stages={**one.stages, "enrich": (1, seconds, 0.0)})


def save(url: str, loads: list[PastLoad]) -> None:
    with open_store(url) as store:
        store.ledger.prepare()
        for one in loads:
            store.providers.claim(["p"], "me", 60.0, due=None)
            state = ProviderState("p", table="p", polled_at=one.polled_at, loads=one.number, load=one)
            assert store.providers.save([state], "me") == {"p"}


@pytest.fixture
def cli(store_url: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, object]]:
    def history_of(*providers: str) -> dict[str, object]:
        assert history(store_url, None, providers, "json") == 0
        (one,) = json.loads(capsys.readouterr().out)["providers"]
        return dict(one)

    return history_of


def test_history_shows_a_provider_that_has_grown_into_parallel_mode(
    store_url: str, cli: Callable[..., dict[str, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(store_url, [waits(number, 60.0 if number > 6 else 0.0) for number in range(1, 12)])
    found = cli("p")
    assert (found["grown"], found["in_parallel"]) == (True, False)
    assert str(found["advice"]).startswith("--mode parallel --strategy partitioned --workers")
    growth = found["growth"]
    assert isinstance(growth, dict)
    assert growth["seconds_now"] > 10 * growth["seconds_then"]
    history(store_url, None, ["p"], "text")
    text = capsys.readouterr().out
    assert "the last 11 loads" in text
    assert "--mode parallel" in text
    (tmp_path / "headrace.toml").write_text(ONE.format(url=store_url))
    (tmp_path / "p.csv").write_text("n\n")
    warned = [one for one in examine_settings(str(tmp_path / "headrace.toml")) if one.state == "warning"]
    assert any("grown: --mode parallel" in one.seen and one.check == "provider p" for one in warned), warned


def test_negative_control_one_that_has_not_grown_is_not_warned_of(
    store_url: str, cli: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    # over before a worker could start, on any machine
    save(store_url, [past(number, slow=0.005) for number in range(1, 12)])
    found = cli()
    assert not found["grown"]
    assert str(found["advice"]).startswith("stay sequential, because")
    (tmp_path / "headrace.toml").write_text(ONE.format(url=store_url))
    (tmp_path / "p.csv").write_text("n\n")
    said = list(examine_settings(str(tmp_path / "headrace.toml")))
    assert not [one for one in said if "grown" in one.seen]
    assert [one.state for one in said if one.check == "parallel mode"] == ["ok"]


def test_history_of_one_in_parallel_mode_compares_what_both_ways_took(
    store_url: str, cli: Callable[..., dict[str, object]]
) -> None:
    save(
        store_url, [*(past(n) for n in range(1, 4)), *(past(n, slow=0.5, strategy="partitioned") for n in range(4, 8))]
    )
    found = cli("p")
    assert found["in_parallel"]
    assert found["advice"] == "parallel mode is on: 4,000 rows/s; sequential loads ran at 2,000 rows/s"


def test_history_says_what_it_lacks(
    store_url: str, cli: Callable[..., dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    with open_store(store_url) as store:
        store.ledger.prepare()
    history(store_url, None, [], "text")
    assert "nothing is kept" in capsys.readouterr().out
    save(store_url, [past(1)])
    assert cli("p")["advice"] == "1 loads are too few for advice; at least 3 are needed"
    with pytest.raises(UsageError, match="'q'"):
        history(store_url, None, ["q"], "text")


def test_run_then_history_in_the_folder_of_the_file(sqlite_url: str, tmp_path: Path) -> None:
    """As a user has it: the file lies here, and names the database."""
    (tmp_path / "headrace.toml").write_text(ONE.format(url=sqlite_url))
    elsewhere = Headrace("sqlite:///none.db", tmp_path)
    for number in range(3):
        deliver(tmp_path, number * 10, 10)
        elsewhere.run("run", "--force")
    found = json.loads(elsewhere.run("profile", "--history", "--output", "json").stdout)
    (one,) = found["providers"]
    assert [load["read"] for load in one["loads"]] == [10, 10, 10]
    assert one["verdict"]["parallel"] is False
    assert not (tmp_path / "none.db").exists()
    assert "nothing to profile" in elsewhere.run("profile", expect=2).stderr
