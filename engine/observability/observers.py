"""Who watches the runs of this process: observers that the user turned on, told of every run from its beginning.

    with observing(headrace.observability.prometheus.observer(registry)):
        headrace.load(…)                each run: observer(facts) makes the listener that hears this run

One that has `attempted` and `outbox` (`Onlooker`) also hears what becomes of alerts, and how many wait.

An observer only looks on. One that fails is logged and left out for the rest of the run, which goes on; a listener
that was handed to the run itself is part of it, and fails it.

OpenTelemetry needs no turning on: as soon as the process has imported its API, every run speaks to it. Without an SDK
that is set up nothing comes of that, as the API has it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    """An observer that wants to hear of alerts too."""

    def attempted(self, alert: StoredAlert, outcome: Literal["delivered", "later", "dead"]) -> None:
        """An alert was sent, and what came of it is recorded."""
        ...

    def outbox(self, undelivered: Mapping[AlertState, int]) -> None:
        """So many alerts are pending and dead at this moment."""
        ...


@contextmanager
def observing(*observers: Observer) -> Iterator[None]:
    """Every run that begins while inside, in any thread of this process, is heard by `observers`."""
    _observers.extend(observers)
    try:
        yield
    finally:
        for one in observers:
            _observers.remove(one)


def audience(listener: Listener | None) -> Listener:
    """Who hears a run: `listener`, whose failures are the run's, and the process's observers, whose are not."""
    observers = _everybody()
    if not observers:
        return listener or Silent()
    return _Audience(listener or Silent(), observers)


def tell_of_attempts(attempts: Sequence[tuple[StoredAlert, Literal["delivered", "later", "dead"]]]) -> None:
    """Tell the process's onlookers what came of sending alerts."""
    for onlooker in _onlookers():
        try:
            for alert, outcome in attempts:
                onlooker.attempted(alert, outcome)
        except Exception:  # whatever it does, the delivery is not its business
            log.exception("an observer failed as it heard of alerts")


def tell_of_outbox(outbox: Outbox) -> None:
    """Tell the process's onlookers, if there are any, how many alerts wait."""
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
        from headrace.observability.opentelemetry import Tracing, usual  # noqa: PLC0415

        if not any(isinstance(one, Tracing) for one in observers):
            observers += usual()
    return observers


class _Audience:
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
