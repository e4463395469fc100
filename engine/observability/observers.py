"""Observers of this process's runs: the user turns them on, and each is called with every run from its beginning.

    with observing(headrace.observability.prometheus.observer(registry)):
        headrace.load(…)                each run: observer(facts) makes the listener that hears this run

An observer with `attempted` and `outbox` (`Onlooker`) is also called with the outcome of alerts, and with how many
wait.

An observer cannot affect the run. If it fails, the failure is logged, and the observer is left out for the rest of the
run, which continues. A listener that was passed to the run itself is part of the run, and its failure fails the run.

OpenTelemetry needs no turning on: if the process has imported its API, every run calls it. Without a configured SDK
the API does nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Literal, Protocol, runtime_checkable

from headrace.errors import HeadraceError
from headrace.observability.stages import Listener, PoolHealth, RunFacts, Silent
from headrace.report import Report
from headrace.storage.outbox import AlertState, StoredAlert
from headrace.storage.records import Committed, Slice
from headrace.storage.spans import Span
from headrace.storage.sql.outbox import Outbox

__all__ = ["Observer", "Onlooker", "audience", "observing", "tell_of_attempts", "tell_of_outbox"]

log = logging.getLogger("headrace.observe")
Observer = Callable[[RunFacts], Listener]
"""Makes the listener for a run that begins."""

_observers: list[Observer] = []


@runtime_checkable
class Onlooker(Protocol):
    """An observer that is also called with alerts."""

    def attempted(self, alert: StoredAlert, outcome: Literal["delivered", "later", "dead"]) -> None:
        """Called when an alert was sent and its outcome is recorded."""

    def outbox(self, undelivered: Mapping[AlertState, int]) -> None:
        """Called with the numbers of pending and of dead alerts."""


@contextmanager
def observing(*observers: Observer) -> Iterator[None]:
    """Call `observers` with every run that begins while inside, in any thread of this process."""
    _observers.extend(observers)
    try:
        yield
    finally:
        for one in observers:
            _observers.remove(one)


def audience(listener: Listener | None) -> Listener:
    """The listeners of a run: `listener`, whose failures fail the run, and the process's observers, whose
    failures do not.
    """
    observers = _everybody()
    if not observers:
        return listener or Silent()
    return _Audience(listener or Silent(), observers)


def tell_of_attempts(attempts: Sequence[tuple[StoredAlert, Literal["delivered", "later", "dead"]]]) -> None:
    """Call the process's onlookers with the outcome of sending alerts."""
    for onlooker in _onlookers():
        try:
            for alert, outcome in attempts:
                onlooker.attempted(alert, outcome)
        except Exception:  # whatever it does, the delivery is not its business
            log.exception("an observer failed as it heard of alerts")


def tell_of_outbox(outbox: Outbox) -> None:
    """Call the process's onlookers, if there are any, with the number of waiting alerts."""
    if not (onlookers := _onlookers()):
        return
    try:
        undelivered = outbox.undelivered()
    except HeadraceError as error:
        log.warning("the waiting alerts could not be counted: %s", error)
        return
    for onlooker in onlookers:
        try:
            onlooker.outbox(undelivered)
        except Exception:  # likewise
            log.exception("an observer failed as it heard of the outbox")


def _onlookers() -> list[Onlooker]:
    everybody: list[object] = [*_everybody()]
    return [one for one in everybody if isinstance(one, Onlooker)]


def _everybody() -> list[Observer]:
    """The observers turned on, and OpenTelemetry's where it is there."""
    observers = list(_observers)
    if "opentelemetry" in sys.modules:
        # imported by somebody else already: a process without it pays nothing
        try:
            from headrace.observability.opentelemetry import Tracing, usual  # noqa: PLC0415
        except ImportError as error:  # another package of that name space was imported, without the API
            _warn_once(str(error))
            return observers
        if not any(isinstance(one, Tracing) for one in observers):
            observers += usual()
    return observers


@cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)


class _Audience(Listener):
    """Passes on what a run tells, first to its own listener."""

    def __init__(self, own: Listener, observers: Sequence[Observer]) -> None:
        self._own = own
        self._observers = observers
        self._others: list[Listener] = []

    def began(self, run: RunFacts) -> None:
        self._own.began(run)
        for observer in self._observers:
            try:
                listener = observer(run)
                listener.began(run)
            except Exception:  # whatever an observer does, the load is not its business
                log.exception("an observer failed as the run began: it is left out")
            else:
                self._others.append(listener)

    def measured(self, spans: Sequence[Span]) -> None:
        self._own.measured(spans)
        self._tell(lambda other: other.measured(spans))

    def committed(self, piece: Slice, done: Committed) -> None:
        self._own.committed(piece, done)
        self._tell(lambda other: other.committed(piece, done))

    def reached(self, newest_us: int) -> None:
        self._own.reached(newest_us)
        self._tell(lambda other: other.reached(newest_us))

    def pool(self, health: PoolHealth) -> None:
        self._own.pool(health)
        self._tell(lambda other: other.pool(health))

    def ended(self, report: Report) -> None:
        self._own.ended(report)
        self._tell(lambda other: other.ended(report))

    def failed(self, error: BaseException) -> None:
        try:
            self._own.failed(error)
        finally:
            self._tell(lambda other: other.failed(error))

    def _tell(self, say: Callable[[Listener], None]) -> None:
        for other in list(self._others):
            try:
                say(other)
            except Exception:  # likewise
                log.exception("an observer failed: it is left out for the rest of the run")
                self._others.remove(other)
