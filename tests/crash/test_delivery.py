"""Delivery at least once under a stable key: dispatchers killed between send and mark, many of them, refused."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import pytest
import standardwebhooks
from support.delivery import KEY, Receiver, deliver_once, dispatchers, outbox, receiving
from support.program import Headrace, scaled

import headrace as package
from headrace.delivery.dispatcher import FIRST_PAUSE, LONGEST_PAUSE, Delivered, Dispatcher, backoff
from headrace.delivery.sinks import FunctionSink
from headrace.delivery.webhook import Webhook
from headrace.errors import ConfigurationError
from headrace.storage import open_store


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


def states(url: str) -> Counter[str]:
    with open_store(url) as store:
        return Counter(dict(store.outbox.count().items()))


def drain(url: str, webhook: str, **more: Any) -> Delivered:
    with open_store(url) as store, Webhook(webhook, KEY, timeout=5) as sink:
        return Dispatcher(store, sink, **more).drain()


# At least once --------------------------------------------------------------------------------------------------


def test_killed_between_send_and_mark_every_alert_is_delivered(store_url: str, receiver: Receiver) -> None:
    seed, kills = random.randrange(10**6), scaled(200, default=10)
    chance, running = random.Random(seed), dict[str, Any]()
    expected = outbox(store_url, kills * 5 + 20)
    left, one_at_a_time = 0, Lock()

    def kill_the_sender(path: str, *_: Any) -> tuple[int, dict[str, str]]:
        # the alert is here, and its sender does not know that yet
        nonlocal left
        with one_at_a_time:  # two are sent at once: the last must not be counted past
            left -= 1
            if left == 0:
                os.kill(running[path].pid, signal.SIGKILL)
        return 200, {}

    receiver.answer = kill_the_sender
    context = dispatchers()
    for attempt in range(kills):
        left = chance.randint(1, 5)
        path = f"/{attempt}"
        # on SQLite a commit waits for the disk: a lease too short would only repeat more
        running[path] = context.Process(target=deliver_once, args=(store_url, receiver.url + path, 1.0, 2))
        running[path].start()
        running[path].join()
        assert running[path].exitcode == -signal.SIGKILL, f"seed {seed}, attempt {attempt}"
    left = -1
    while states(store_url)["pending"]:
        deliver_once(store_url, receiver.url, 60.0, 8)
    assert set(receiver.keys) == expected, f"seed {seed}"
    assert states(store_url) == {"delivered": len(expected)}
    repeated = len(receiver.keys) - len(expected)
    assert repeated >= kills // 2, "those that were sent and not marked are sent again, under the same key"


def test_several_dispatchers_share_the_work_and_repeat_nothing(store_url: str, receiver: Receiver) -> None:
    expected = outbox(store_url, 400)
    context = dispatchers()
    started = [
        context.Process(target=deliver_once, args=(store_url, f"{receiver.url}/{name}", 600.0, 4)) for name in range(4)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * 4
    assert sorted(receiver.keys) == sorted(expected)
    assert states(store_url) == {"delivered": 400}


def test_a_repeated_delivery_carries_the_same_key_and_body(sqlite_url: str, receiver: Receiver) -> None:
    (key,) = outbox(sqlite_url, 1)
    receiver.answer = lambda *_: (503, {}) if len(receiver.came) < 3 else (200, {})
    with open_store(sqlite_url) as store, Webhook(receiver.url, KEY) as sink:
        while store.outbox.count() != {"delivered": 1}:
            Dispatcher(store, sink).drain()
            make_due(sqlite_url)
    assert receiver.keys == [key] * 3
    assert len({body for _, _, body in receiver.came}) == 1


def make_due(url: str) -> None:
    """As if the pauses were over."""
    Headrace(url, Path()).query("UPDATE headrace_alerts SET next_attempt_at = created_at")


# What is sent ---------------------------------------------------------------------------------------------------


def test_a_post_is_signed_and_says_everything(store_url: str, receiver: Receiver) -> None:
    (key,) = outbox(store_url, 1)
    url = receiver.url.replace("//", "//user:p%40ss@") + "/hook/token?a=b"
    assert drain(store_url, url) == Delivered(delivered=1)
    ((path, headers, body),) = receiver.came
    said = json.loads(body)
    assert (path, said["key"], said["rule"], said["table"], said["provider"]) == (
        "/hook/token?a=b",
        key,
        "all",
        "t",
        "default",
    )
    assert (said["event"]["key"], said["event"]["value"]) == (0, "v0")
    assert headers["Authorization"] == "Basic dXNlcjpwQHNz"
    assert headers["webhook-id"] == key
    assert standardwebhooks.Webhook(KEY).verify(body, headers) == said


@pytest.mark.parametrize("secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_YQ", "any text, also Ünicode"])
def test_a_library_of_the_standard_takes_what_is_signed_and_nothing_else(
    headrace: Headrace, receiver: Receiver, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox(headrace.url, 1)
    monkeypatch.setenv("HEADRACE_WEBHOOK_KEY", secret)
    headrace.run("alerts", "deliver", "--webhook", receiver.url)
    ((_, headers, body),) = receiver.came
    receiving = standardwebhooks.Webhook(secret if secret.startswith("whsec_") else secret.encode())
    receiving.verify(body, headers)
    for changed in ({"webhook-id": "other"}, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            receiving.verify(body, headers | changed)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        receiving.verify(body.replace(b"v0", b"v1"), headers)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_s3cre", "whsec_s3cr*t="])
def test_a_key_that_is_no_base64_is_refused_without_being_shown(headrace: Headrace, secret: str) -> None:
    outbox(headrace.url, 1)
    environment = {**headrace.environment(), "HEADRACE_WEBHOOK_KEY": secret}
    command = headrace.command("alerts", "deliver", "--webhook", "http://127.0.0.1:9")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "whsec_ is not followed by base64" in done.stderr
    assert "s3cr" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *((status, "delivered") for status in (200, 204)),
        *((status, "dead") for status in (400, 401, 404, 410)),
        *((status, "pending") for status in (301, 307, 408, 429, 500, 503)),
    ],
)
def test_each_status_is_answered(sqlite_url: str, receiver: Receiver, status: int, state: str) -> None:
    outbox(sqlite_url, 1)
    receiver.answer = lambda *_: (status, {"Location": f"{receiver.url}/elsewhere"})
    drain(sqlite_url, receiver.url + "/secret")
    with open_store(sqlite_url) as store:
        (alert,) = store.outbox.find()
    assert alert.state == state
    assert [path for path, _, _ in receiver.came] == ["/secret"], "redirects are not followed"
    if state != "delivered":
        assert alert.error == f"{receiver.url} answered {status} {HTTPStatus(status).phrase}"


def test_a_receiver_that_asks_to_wait_is_left_alone(sqlite_url: str, receiver: Receiver) -> None:
    outbox(sqlite_url, 1)
    receiver.answer = lambda *_: (429, {"Retry-After": "3000"})
    drain(sqlite_url, receiver.url)
    with open_store(sqlite_url) as store:
        (alert,) = store.outbox.find()
    assert (alert.next_attempt_at - alert.created_at).total_seconds() >= 3000


def test_a_receiver_that_never_ends_its_answer_is_given_up(sqlite_url: str) -> None:
    outbox(sqlite_url, 1)
    over = Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            with peer:
                while not over.is_set():
                    try:
                        peer.sendall(b"H")
                    except OSError:
                        return
                    time.sleep(0.02)

        thread = Thread(target=drip)
        thread.start()
        with open_store(sqlite_url) as store:
            with Webhook(f"http://127.0.0.1:{server.getsockname()[1]}", KEY, timeout=0.5) as sink:
                assert Dispatcher(store, sink).drain() == Delivered(later=1)
            over.set()
            thread.join()


def test_a_receiver_that_is_not_there_is_tried_again_and_its_secrets_stay_secret(
    sqlite_url: str, tmp_path: Path
) -> None:
    outbox(sqlite_url, 1)
    headrace = Headrace(sqlite_url, tmp_path)
    url = "http://me:hunter2@127.0.0.1:9/token-7?key=sesame"
    done = headrace.run("alerts", "deliver", "--webhook", url, "--unsigned", expect=1)
    assert "0 delivered, 1 to be sent again" in done.stdout
    told = (
        done.stdout
        + done.stderr
        + headrace.run("alerts", "list").stdout
        + headrace.run("alerts", "list", "--output", "json").stdout
    )
    assert "http://127.0.0.1:9" in told
    assert not [secret for secret in ("hunter2", "token-7", "sesame") if secret in told]


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "http://", "https://host:port/token", "http://ho st/", "http://h/\r\nX: y", "me@host"]
)
def test_a_url_that_cannot_be_one_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Webhook(url, KEY)
    assert url not in str(error.value)


# Dead letters ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_fails_too_often_is_dead_and_can_be_retried_or_discarded(
    headrace: Headrace, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.delivery.dispatcher.FIRST_PAUSE", 0.0)
    outbox(headrace.url, 3)
    receiver.answer = lambda *_: (500, {})
    assert drain(headrace.url, receiver.url, most_attempts=3) == Delivered(later=6, dead=3)
    assert len(receiver.came) == 9
    listed = headrace.json("alerts", "list", "--state", "dead")["alerts"]
    assert {(one["attempts"], one["error"]) for one in listed} == {
        (3, f"{receiver.url} answered 500 Internal Server Error")
    }
    first, second, _ = (one["alert_id"] for one in listed)
    assert headrace.json("alerts", "discard", first) == {"discarded": 1}
    assert headrace.json("alerts", "retry", "--all") == {"pending": 2}
    headrace.run("alerts", "retry", second, expect=2)  # it is pending already
    headrace.run("alerts", "discard", expect=2)
    receiver.answer = lambda *_: (200, {})
    assert drain(headrace.url, receiver.url) == Delivered(delivered=2)
    assert headrace.json("alerts", "retry", first) == {"pending": 1}
    assert f"{first}  pending    all: t " in headrace.run("alerts", "list").stdout
    assert drain(headrace.url, receiver.url) == Delivered(delivered=1)


def test_the_command_prunes_what_was_delivered_and_a_repeated_load_raises_nothing(
    headrace: Headrace, receiver: Receiver
) -> None:
    outbox(headrace.url, 5)
    assert json.loads(headrace.run("alerts", "prune", "--older-than", "0s", "--output", "json").stdout) == {"pruned": 0}
    drain(headrace.url, receiver.url)
    headrace.run("alerts", "prune", "--older-than", "1d")
    assert states(headrace.url) == {"delivered": 5}
    assert "5 alerts deleted" in headrace.run("alerts", "prune", "--older-than", "0s", "--rule", "all").stdout
    assert states(headrace.url) == {}
    rows = [{"key": number, "value": f"w{number}"} for number in range(6)]
    rule = package.AlertRule("all", where="key >= 0", revisions=True)
    named: Any = {"to": headrace.url, "table": "t", "id": ["key"], "alerts": [rule], "revisions": "update"}
    report = package.load([row | {"v": 1} for row in rows], **named, version_column="v")
    # all but one revise what had no version
    assert (report.inserted, report.alerts) == (1, 6)
    drain(headrace.url, receiver.url)
    headrace.run("alerts", "prune", "--older-than", "0s")
    for version in (1, 0):
        assert package.load([row | {"v": version} for row in rows], **named, version_column="v").alerts == 0
    assert states(headrace.url) == {}


def test_an_alert_that_kills_its_dispatchers_is_dead_in_the_end(store_url: str, receiver: Receiver) -> None:
    outbox(store_url, 2)
    with open_store(store_url) as store:
        for _ in range(3):
            (killer,) = store.outbox.claim("dies", limit=1, seconds=-1)
            assert killer.alert_id == 1
            Headrace(store_url, Path()).query(
                "UPDATE headrace_alerts SET next_attempt_at = created_at WHERE alert_id = 1"
            )
    assert drain(store_url, receiver.url, most_attempts=3) == Delivered(delivered=1, dead=1)
    assert len(receiver.came) == 1


def test_pauses_double_with_jitter_up_to_an_hour() -> None:
    for attempts in (1, 2, 5, 20, 10_000):
        usual = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 50))
        drawn = [backoff(attempts) for _ in range(50)]
        assert usual * 0.5 <= min(drawn) < max(drawn) <= usual * 1.5
    assert backoff(1, wait=500.0) == 500.0


# Other sinks ----------------------------------------------------------------------------------------------------


def test_standard_output_gets_json_lines(headrace: Headrace) -> None:
    expected = outbox(headrace.url, 3)
    done = headrace.run("alerts", "deliver")
    assert {json.loads(line)["key"] for line in done.stdout.splitlines()} == expected
    assert "3 delivered" in done.stderr
    assert headrace.run("alerts", "deliver").stdout == ""


def test_what_nobody_reads_any_more_is_given_back(headrace: Headrace) -> None:
    outbox(headrace.url, 20)
    reading, writing = os.pipe()
    os.close(reading)
    command, environment = headrace.command("alerts", "deliver"), headrace.environment()
    subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.DEVNULL, check=False)
    os.close(writing)
    with open_store(headrace.url) as store:
        assert {(one.state, one.attempts, one.lease) for one in store.outbox.find()} == {("pending", 0, None)}


def test_a_function_gets_each_alert_and_may_fail(sqlite_url: str) -> None:
    expected, got = outbox(sqlite_url, 3), []

    def take(alert: dict[str, Any]) -> None:
        got.append(alert["key"])
        if alert["event"]["key"] == 1 and len(got) < 4:
            raise OSError("the pager is off")

    with open_store(sqlite_url) as store:
        dispatcher = Dispatcher(store, FunctionSink(take))
        assert dispatcher.drain() == Delivered(delivered=2, later=1)
        assert [one.error for one in store.outbox.find(states=["pending"])] == ["OSError: the pager is off"]
        make_due(sqlite_url)
        assert dispatcher.drain() == Delivered(delivered=1)
    assert set(got) == expected


def test_the_command_calls_a_function_of_the_users(headrace: Headrace) -> None:
    expected = outbox(headrace.url, 3)
    (headrace.folder / "pager.py").write_text(
        "def page(alert):\n    with open('paged', 'a') as file:\n        print(alert['key'], file=file)\n"
    )
    assert headrace.json("alerts", "deliver", "--function", "pager:page") == {"delivered": 3, "later": 0, "dead": 0}
    assert set((headrace.folder / "paged").read_text().split()) == expected


def test_a_webhook_without_a_key_is_refused_unless_asked_for(headrace: Headrace, receiver: Receiver) -> None:
    outbox(headrace.url, 1)
    done = headrace.run("alerts", "deliver", "--webhook", receiver.url, expect=2)
    assert "HEADRACE_WEBHOOK_KEY" in done.stderr
    headrace.run("alerts", "deliver", "--webhook", receiver.url, "--unsigned")
    ((_, headers, _),) = receiver.came
    assert "webhook-signature" not in headers


def test_every_goes_on_until_it_is_stopped(headrace: Headrace, receiver: Receiver) -> None:
    first = outbox(headrace.url, 2)
    arrived = Event()
    receiver.answer = lambda *_: (arrived.set(), (200, {}))[1] if len(receiver.came) in (2, 3) else (200, {})
    process = subprocess.Popen(
        headrace.command("alerts", "deliver", "--every", "1s", "--webhook", receiver.url, "--output", "json"),
        env={**headrace.environment(), "HEADRACE_WEBHOOK_KEY": KEY.decode()},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert arrived.wait(120)
        arrived.clear()
        one_more(headrace.url)
        assert arrived.wait(120)
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert json.loads(out) == {"delivered": 3, "later": 0, "dead": 0}
    assert first < set(receiver.keys)


def one_more(url: str) -> None:
    rule = package.AlertRule("all", where="true")
    package.load([{"key": 99, "value": "x"}], to=url, table="t", id=["key"], alerts=[rule])
