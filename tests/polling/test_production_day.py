"""A production day of 24 hours, simulated: 40 providers of eight behaviours, against an oracle in plain Python.

The web server is real, the database is real, the clock is not. Each provider has one of eight behaviours (busy, bursty,
quiet, late, flapping, failing, static, silent) that says what its feed offers at each moment. The oracle knows three
things by itself: which events were offered in an answer (so they must be in the table, each once, and every seventh
must have raised one alert), how many polls of which kind there were, and when each provider may be polled again, by
rules written down a second time here. Alerts are delivered as the day goes by.

Each day prints what was simulated, and how long it took: `pytest -s`.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.feeds import Answer, Feeds, feeds_server
from support.polling import START, FakeClock, Rounds, rounds
from support.program import Headrace, scaled

from headrace.delivery.dispatcher import Dispatcher
from headrace.delivery.sinks import FunctionSink
from headrace.options.flag import FLAG
from headrace.polling.poll import Poll
from headrace.storage import open_store

BEHAVIOURS = ("busy", "bursty", "quiet", "late", "flapping", "failing", "static", "silent")
PROVIDERS = 40
ROUND = timedelta(minutes=15)
INTERVAL, SLOWEST = 15 * 60.0, 4 * 3600.0


@dataclass
class Feed:
    """What one provider offers: rows (key, minute of the day) of its last two hours, by its behaviour."""

    name: str
    behaviour: str
    random: random.Random
    made: list[tuple[int, int]] = field(default_factory=list)
    offered: set[tuple[int, int]] = field(default_factory=set)
    minute: int = 0

    def live(self, minute: int) -> None:
        """Let the feed's world go on to `minute`."""
        for moment in range(self.minute, minute):
            for _ in range(self._events(moment)):
                # a late feed brings in events that happened hours ago
                happened = moment - (self.random.randrange(60, 600) if self.behaviour == "late" else 0)
                self.made.append((len(self.made), happened))
        self.minute = minute

    def _events(self, minute: int) -> int:
        match self.behaviour:
            case "busy":
                return self.random.randrange(3)
            case "bursty":
                return self.random.randrange(40) if minute % 240 < 5 else 0
            case "quiet":
                return 1 if self.random.random() < 0.002 else 0
            case "late" | "flapping":
                return 1 if self.random.random() < 0.2 else 0
            case "static":
                return 5 if minute == 0 else 0
        return 0

    def answer(self) -> Answer:
        """What the server says now."""
        if self.behaviour == "failing" or (self.behaviour == "flapping" and self.random.random() < 0.4):
            return Answer(status=503)
        window = self.made if self.behaviour == "static" else self.made[-60:] if self._fresh() else []
        self.offered |= set(window)
        lines = "".join(f"{key},{(START + timedelta(minutes=at)).isoformat()}\n" for key, at in window)
        return Answer(f"key,at\n{lines}".encode(), conditional=self.behaviour in ("static", "quiet"))

    def _fresh(self) -> bool:
        """Whether anything happened in the last two hours; an old feed shows nothing."""
        return bool(self.made) and (self.made[-1][1] > self.minute - 120 or self.behaviour == "late")


@dataclass
class Expected:
    """The schedule of one provider, by the documented rules, written anew."""

    failures: int = 0
    empties: int = 0
    earliest: datetime = START
    latest: datetime = START

    def after(self, poll: Poll, now: datetime) -> None:
        if poll.outcome == "failed":
            self.failures += 1
            wait = min(30.0 * 2 ** (self.failures - 1), SLOWEST)
            low, high = 0.9 * wait, 1.1 * wait
        else:
            self.failures = 0
            if poll.outcome == "loaded":
                self.empties = 0
            elif poll.outcome == "empty" or self.empties:
                self.empties += 1
            if self.empties >= 3:
                wait = min(INTERVAL * 2 ** (self.empties - 2), SLOWEST)
                low, high = 0.9 * wait, 1.1 * wait
            else:
                low = high = 0.95 * INTERVAL
        self.earliest, self.latest = now + timedelta(seconds=low), now + timedelta(seconds=high)


def settings(database: str, feeds: list[Feed], url: str) -> str:
    head = f'database = "{database}"\n[parallel]\nworkers = 2\n[defaults]\nid = ["key"]\ntime = "at"\n'
    head += f'interval = "{int(INTERVAL)}s"\nslowest = "{int(SLOWEST)}s"\nwindow = "all"\n'
    head += 'alerts = [{ name = "seventh", where = "key % 7 = 0" }]\n'
    # three tables, so that some providers share one
    return head + "".join(
        f'[providers.{feed.name}]\nurl = "{url}/{feed.name}.csv"\ntable = "events_{number % 3}"\n'
        for number, feed in enumerate(feeds)
    )


@dataclass
class Day:
    """What was lived: the feeds, polls by outcome, the modes that were used, and what was told, by provider and key."""

    feeds: list[Feed]
    outcomes: Counter[str] = field(default_factory=Counter)
    modes: set[str | None] = field(default_factory=set)
    told: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def offered(self) -> set[tuple[str, int]]:
        """Every event that some answer offered, by provider and key."""
        return {(feed.name, key) for feed in self.feeds for key, _ in feed.offered}

    def deliver(self, database: str) -> None:
        """Deliver what was raised up to now."""

        def take(alert: dict[str, Any]) -> None:
            self.told[alert["provider"], alert["event"]["key"]] += 1

        with open_store(database) as store:
            assert Dispatcher(store, FunctionSink(take)).drain().exit_code == 0


def live_a_day(database: str, folder: Path, seed: int, hours: int, at_hour: Callable[[int], None] | None = None) -> Day:
    """The day; checks the schedule at each round."""
    began = time.monotonic()
    feeds = [
        Feed(f"p{number:02}", BEHAVIOURS[number % len(BEHAVIOURS)], random.Random(f"{seed}-{number}"))
        for number in range(PROVIDERS)
    ]
    expected: defaultdict[str, Expected] = defaultdict(Expected)
    day = Day(feeds)
    with feeds_server() as server, rounds(folder, settings(database, feeds, server.url), clock=FakeClock()) as go:
        answers(server, feeds)
        for number in range(int(hours * 3600 / ROUND.total_seconds())):
            if at_hour is not None:
                at_hour(number * int(ROUND.total_seconds()) // 3600)
            minute = int((go.clock.now() - START).total_seconds() // 60)
            for feed in feeds:
                feed.live(minute)
            one_round(go, expected, day)
            go.clock.moment += ROUND
            if not minute % 60:
                day.deliver(database)
    day.deliver(database)
    polls = day.outcomes.total() - day.outcomes["not due"]
    print(
        f"{hours} hours, {PROVIDERS} providers, {polls} polls {dict(sorted(day.outcomes.items()))}, "
        f"{len(day.offered)} events, {day.told.total()} alerts, in {time.monotonic() - began:.0f} s"
    )
    return day


def answers(server: Feeds, feeds: list[Feed]) -> None:
    server.answers = {f"/{feed.name}.csv": feed.answer for feed in feeds}


def one_round(go: Rounds, expected: dict[str, Expected], day: Day) -> None:
    now = go.clock.now()
    for poll in go().polls:
        due = expected[poll.provider]
        day.outcomes[poll.outcome] += 1
        if poll.polled:
            assert now >= due.earliest, f"{poll} came before {due}"
            due.after(poll, now)
        else:
            assert poll.outcome == "not due", poll
            assert now < due.latest, f"{poll} was due: {due}"
        if poll.run_id:
            day.modes.add(poll.mode)


def check(headrace: Headrace, day: Day) -> None:
    """Exactly the events that some answer offered are in the tables, each once, and each seventh was told of once."""
    held: list[tuple[str, int]] = []
    for number in range(3):
        held += headrace.query(f"SELECT provider, key FROM events_{number}")  # noqa: S608 - nothing here is input
    assert Counter(held) == Counter(day.offered)
    assert day.told == Counter((name, key) for name, key in day.offered if key % 7 == 0)
    books = headrace.query("SELECT provider, inserted, read, duplicate_in_store FROM headrace_providers")
    for name, inserted, read, duplicate in books:
        (feed,) = [one for one in day.feeds if one.name == name]
        assert inserted == len(feed.offered)
        assert read == inserted + duplicate


def hours() -> int:
    return scaled(24, least=2)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["off", "shadow", "canary:50", "on"])
def test_a_day_in_each_flag_state(flag: str, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = int(os.environ.get("HEADRACE_TEST_SEED", "20260301"))
    print(f"seed {seed}")
    monkeypatch.setenv(FLAG, flag)
    day = live_a_day(sqlite_url, tmp_path, seed, hours())
    check(Headrace(sqlite_url, tmp_path), day)
    wanted = {"off": {"sequential"}, "shadow": {"sequential"}, "on": {"parallel"}}
    assert day.modes == wanted.get(flag, {"sequential", "parallel"})
    assert min(day.outcomes[one] for one in ("loaded", "empty", "unchanged", "failed", "not due")) > 0, day.outcomes


@pytest.mark.slow
def test_a_day_with_a_flag_flip_in_the_middle(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("HEADRACE_TEST_SEED", "20260302"))
    print(f"seed {seed}")
    flip = hours() // 2

    def at_hour(hour: int) -> None:
        monkeypatch.setenv(FLAG, "on" if flip <= hour < flip + max(1, hours() // 6) else "off")

    day = live_a_day(postgres_url, tmp_path, seed, hours(), at_hour)
    check(Headrace(postgres_url, tmp_path), day)
    assert day.modes == {"sequential", "parallel"}


def test_negative_control_the_oracle_notices_an_event_that_is_missing_or_doubled(
    sqlite_url: str, tmp_path: Path
) -> None:
    day = live_a_day(sqlite_url, tmp_path, 7, 1)
    headrace = Headrace(sqlite_url, tmp_path)
    check(headrace, day)
    ((provider, key),) = headrace.query("SELECT provider, key FROM events_0 LIMIT 1")
    headrace.query(f"DELETE FROM events_0 WHERE provider = '{provider}' AND key = {key}")  # noqa: S608
    with pytest.raises(AssertionError):
        check(headrace, day)
