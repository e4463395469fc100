"""What becomes of alerts is counted once it is recorded; who only looks on keeps no alert from its receiver."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.observers import Taken, load_all, scrape, value
from support.program import Headrace

from headrace import AlertRule
from headrace.delivery import dispatcher
from headrace.delivery.dispatcher import Delivered, Dispatcher
from headrace.delivery.sinks import FunctionSink
from headrace.observability.metrics import Metrics
from headrace.observability.observers import observing
from headrace.observability.prometheus import observer, serving
from headrace.storage import open_store


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def test_what_becomes_of_alerts_is_counted_once_it_is_recorded(
    store_url: str, port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_PAUSE", 3600.0)  # on a slow machine, too, none is due a second time
    seen: list[tuple[float, int]] = []

    def take(alert: dict[str, Any]) -> None:
        # what was sent before this one is settled by now, and counted; this one is not
        delivered = scrape(port).get(("headrace_alerts_attempts_total", frozenset(delivered_ones.items())), 0.0)
        with open_store(store_url) as store:
            seen.append((delivered, store.outbox.count().get("delivered", 0)))
        if alert["event"]["key"] % 2:
            raise ValueError("an odd one")

    feed = {"provider": "p", "table": "t"}
    delivered_ones = {**feed, "outcome": "delivered"}
    taken = Taken()
    few = [AlertRule("few", where="key < 6"), AlertRule("worse", where="key = 1")]
    with serving(f"127.0.0.1:{port}") as metrics, observing(metrics, *taken.observers):
        report = load_all(store_url, "sequential", alerts=few)[0]
        with open_store(store_url) as store:
            first = Dispatcher(store, FunctionSink(take), rules=["few"]).drain()
            second = Dispatcher(store, FunctionSink(take), rules=["worse"], most_attempts=1).drain()
            counts = store.outbox.count()
        samples = scrape(port)
    assert seen
    assert all(counted == settled for counted, settled in seen)
    done = first + second
    assert (report.alerts, done) == (6, Delivered(delivered=3, later=2, dead=1))
    points = taken.points()
    for outcome, number in done.to_dict().items():
        labels = {**feed, "outcome": outcome}
        assert value(samples, "headrace_alerts_attempts_total", **labels) == number
        assert points["headrace.alerts.attempts", frozenset(labels.items())].value == number
    for state in ("pending", "dead"):
        assert value(samples, "headrace_alerts_waiting", state=state) == counts[state]  # type: ignore[index]
        assert points["headrace.alerts.waiting", frozenset({"state": state}.items())].value == counts[state]  # type: ignore[index]
    assert "an observer failed" not in caplog.text


class Clumsy(Metrics):
    """Fails whatever it hears of alerts."""

    def attempted(self, *_: object) -> None:
        raise RuntimeError("clumsy")

    def outbox(self, *_: object) -> None:
        raise RuntimeError("clumsy")


def test_an_onlooker_that_fails_does_not_keep_alerts_from_their_receiver(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    (report, *_) = load_all(sqlite_url, "sequential")
    heard: list[str] = []
    with observing(Clumsy(observer(CollectorRegistry())._meters)), open_store(sqlite_url) as store:
        done = Dispatcher(store, FunctionSink(lambda alert: heard.append(alert["key"]))).drain()
    assert len(set(heard)) == done.delivered >= report.alerts > 0
    assert caplog.text.count("an observer failed") > 1


def test_a_dispatcher_serves_its_metrics(sqlite_url: str, tmp_path: Path, port: int) -> None:
    reports = load_all(sqlite_url, "sequential")
    headrace = Headrace(sqlite_url, tmp_path)
    words = ["alerts", "deliver", "--to", sqlite_url, "--every", "1s", "--metrics", f"127.0.0.1:{port}"]
    labels = frozenset({"provider": "p", "table": "t", "outcome": "delivered"}.items())
    waiting = ("headrace_alerts_waiting", frozenset({"state": "pending"}.items()))
    with subprocess.Popen(
        headrace.command(*words), env=headrace.environment(), cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as going:
        deadline, samples = time.monotonic() + 120, dict[Any, float]()
        while samples.get(waiting) != 0 and going.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            with suppress(OSError):  # it is not served yet
                samples = scrape(port)
        going.terminate()
    assert samples["headrace_alerts_attempts_total", labels] == sum(report.alerts for report in reports)
