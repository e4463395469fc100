"""Delivery of alerts from the outbox: claimed, sent, settled; at least once each, always under the same key.

    claim (leased) ──► sink: webhook, standard output, a function ──► settle: delivered
                                  │ refused for now ─► pending again, after a jittered pause that doubles each time
                                  └ refused for good, or once too often ─► dead: `headrace alerts list`, `retry`

A dispatcher that dies between sending and settling leaves a lease that ends by itself, and the next dispatcher sends
the alert again: the receiver recognises the repetition by its key. A dispatcher claims only the alerts that it sends at
once, so that a dying dispatcher costs only attempts that it made. Any number of dispatchers share the work.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from threading import Event
from typing import Literal, Protocol
from uuid import uuid4

from headrace.errors import HeadraceError
from headrace.observability.observers import tell_of_attempts, tell_of_outbox
from headrace.runtime.reopening import Renewed
from headrace.storage.beliefs import LONGEST_WAIT
from headrace.storage.outbox import Attempt, StoredAlert
from headrace.storage.sql.outbox import Outbox
from headrace.storage.store import Store

__all__ = ["Delivered", "Dispatcher", "Sent", "Sink", "backoff", "message"]

log = logging.getLogger("headrace.alerts")
FIRST_PAUSE = 2.0  # seconds after the first attempt, doubled after each further one
LONGEST_PAUSE = 3600.0
MOST_ATTEMPTS = 15  # with these pauses, some four hours
LEASE = 60.0


@dataclass(frozen=True, slots=True)
class Sent:
    """The receiver's answer to one alert: accepted, refused for now, or refused for good, with the reason.

    `wait` is the number of seconds for which the receiver wants no request.
    """

    result: Literal["taken", "later", "never"]
    error: str | None = None
    wait: float = 0.0


class Sink(Protocol):
    """A receiver of alerts."""

    @property
    def at_once(self) -> int:
        """The number of alerts that it takes at a time."""

    def send(self, alerts: Sequence[StoredAlert]) -> Sequence[Sent]:
        """Send alerts, at most `at_once`; return one answer for each, in order. An error that it raises ends
        the delivery.
        """


@dataclass(frozen=True, slots=True)
class Delivered:
    """Counts of attempts: alerts `delivered`, to be sent again `later`, and `dead`."""

    delivered: int = 0
    later: int = 0
    dead: int = 0

    def __add__(self, other: Delivered) -> Delivered:
        return Delivered(self.delivered + other.delivered, self.later + other.later, self.dead + other.dead)

    def __sub__(self, other: Delivered) -> Delivered:
        return Delivered(self.delivered - other.delivered, self.later - other.later, self.dead - other.dead)

    @property
    def exit_code(self) -> int:
        """0, or 1 when an attempt failed."""
        return 1 if self.later or self.dead else 0

    def to_dict(self) -> dict[str, int]:
        """Plain data, for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """One line, and one more with what to do."""
        line = f"{self.delivered:,} delivered, {self.later:,} to be sent again, {self.dead:,} dead"
        return f"{line}\nsee the dead alerts: headrace alerts list --state dead" if self.dead else line


def message(alert: StoredAlert) -> str:
    """The alert as it is sent, a JSON object; the same text at every attempt."""
    head = {
        "key": alert.key,
        "rule": alert.rule,
        "table": alert.table,
        "provider": alert.provider,
        "revision": alert.revision,
        "raised_at": alert.created_at.isoformat(),
    }
    # the event is JSON already, and stays as it is to the last digit
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "event": {alert.payload}}}'


def backoff(attempts: int, wait: float = 0.0) -> float:
    """Seconds until the next attempt after `attempts` attempts, at least `wait`, but at most a day: a receiver that
    asks for a year is ignored.

    Jitter spreads the next attempts of alerts that failed together.
    """
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (min(attempts, 64) - 1))
    return max(min(wait, LONGEST_WAIT), pause * random.uniform(0.5, 1.5))  # noqa: S311 - nothing secret hangs on it


class Dispatcher:
    """Deliver due alerts from the outbox of `store` to `sink`. `lease` is in seconds, and must be longer than a
    sending.
    """

    def __init__(
        self,
        store: Store | Renewed[Store],
        sink: Sink,
        *,
        most_attempts: int = MOST_ATTEMPTS,
        lease: float = LEASE,
        table: str | None = None,
        rules: Sequence[str] = (),
    ) -> None:
        self._store = store if isinstance(store, Renewed) else Renewed(lambda: nullcontext(store))
        self._done = Delivered()
        self._unsettled: tuple[str, Sequence[StoredAlert], Sequence[Attempt]] | None = None
        self._sink = sink
        self._most_attempts = most_attempts
        self._lease = lease
        self._table = table
        self._rules = rules

    def run(self, every: float, stop: Event) -> Delivered:
        """Deliver due alerts every `every` seconds until `stop` is set, also after temporary failures of the database.

        Raises permanent failures (see `headrace.runtime.reopening`), and the sink's errors.
        """
        before = self._done
        while not stop.is_set():
            try:
                self.drain(stop)
            except HeadraceError as error:
                if not self._store.outlasts(error):
                    raise
                log.warning("the outbox cannot be reached, trying again in %g s: %s", every, error)
            stop.wait(every)
        return self._done - before

    def drain(self, stop: Event | None = None) -> Delivered:
        """Deliver until nothing is due, or `stop` is set. Raises `StoreError`, and the sink's errors."""
        before = self._done
        outbox = self._store.use().outbox
        self._settle(outbox)  # what was sent when the database failed
        while stop is None or not stop.is_set():
            lease = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex}"
            claimed = outbox.claim(
                lease, limit=self._sink.at_once, seconds=self._lease, table=self._table, rules=self._rules
            )
            if not claimed:
                break
            self._unsettled = (lease, claimed, self._send(outbox, lease, claimed))
            self._settle(outbox)
        tell_of_outbox(outbox)
        return self._done - before

    def _settle(self, outbox: Outbox) -> None:
        """Record what came of the last sending. Should the database fail, it is recorded before the next one."""
        if self._unsettled is not None:
            lease, claimed, attempts = self._unsettled
            outbox.settle(lease, attempts)
            self._unsettled = None
            self._tell(claimed, attempts)
            self._done += _counted(attempts)

    def _tell(self, claimed: Sequence[StoredAlert], attempts: Sequence[Attempt]) -> None:
        alerts = {one.alert_id: one for one in claimed}
        tell_of_attempts([(alerts[one.alert_id], _outcome(one)) for one in attempts])

    def _send(self, outbox: Outbox, lease: str, claimed: Sequence[StoredAlert]) -> list[Attempt]:
        # whoever had these in hand died of it, or with it, as often as any alert may be tried
        fatal = [one for one in claimed if one.attempts > self._most_attempts]
        sendable = [one for one in claimed if one.attempts <= self._most_attempts]
        try:
            answers = self._sink.send(sendable) if sendable else []
        except BaseException as error:
            try:
                outbox.release(lease, [one.alert_id for one in claimed])
            except HeadraceError as second:
                error.add_note(f"(the alerts stay leased for a while: {second.what})")
            raise
        attempts = [self._attempt(alert, sent) for alert, sent in zip(sendable, answers, strict=True)]
        return attempts + [
            Attempt(one.alert_id, "dead", "every dispatcher that sent it died", key=one.key) for one in fatal
        ]

    def _attempt(self, alert: StoredAlert, sent: Sent) -> Attempt:
        if sent.result == "taken":
            return Attempt(alert.alert_id, "delivered", key=alert.key)
        dead = sent.result == "never" or alert.attempts >= self._most_attempts
        log.warning("alert %s, attempt %d, %s: %s", alert.key, alert.attempts, "dead" if dead else "later", sent.error)
        if dead:
            return Attempt(alert.alert_id, "dead", sent.error, key=alert.key)
        return Attempt(alert.alert_id, "pending", sent.error, backoff(alert.attempts, sent.wait), key=alert.key)


def _outcome(attempt: Attempt) -> Literal["delivered", "later", "dead"]:
    return "later" if attempt.state == "pending" else attempt.state


def _counted(attempts: Sequence[Attempt]) -> Delivered:
    outcomes = [_outcome(one) for one in attempts]
    return Delivered(outcomes.count("delivered"), outcomes.count("later"), outcomes.count("dead"))
