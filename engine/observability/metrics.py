"""The metrics of a run, for any metrics library: the instruments, and the listener that updates them.

Names are OpenTelemetry's form; in Prometheus the dots are underscores, with the unit and ``_total`` behind
(``headrace.rows`` is ``headrace_rows_total``). A counter moves when the commit it counts has returned, so that all
counters of a process that did the whole run agree with its report; slices that an earlier process committed are in the
report, and not counted again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from headrace.errors import Interrupted
from headrace.observability.stages import Listener, PoolHealth, RunFacts, Silent
from headrace.report import Report
from headrace.storage.outbox import AlertState, StoredAlert
from headrace.storage.records import Committed, Slice
from headrace.storage.spans import Span

__all__ = ["INSTRUMENTS", "Instrument", "Kind", "Meters", "Metrics", "statement_of"]

Kind = Literal["counter", "gauge", "histogram"]
State = Literal["sequential", "shadow", "parallel"]
DeliveryOutcome = Literal["delivered", "later", "dead"]
US = 1_000_000


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. `unit` is ``s`` or ``""``; `labels` are its label names."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...]
    unit: str = ""


FEED = ("provider", "table")
ROWS = Instrument("headrace.rows", "counter", "Rows read, by outcome.", (*FEED, "outcome"))
RUNS = Instrument("headrace.runs", "counter", "Runs, by status.", (*FEED, "status"))
SLICES = Instrument("headrace.slices", "counter", "Slices committed, by the path they took.", (*FEED, "path"))
RETRIES = Instrument("headrace.retries", "counter", "Transactions run again after a temporary failure.", FEED)
LOCK_WAIT = Instrument("headrace.lock.wait", "counter", "Time that slices waited for locks.", FEED, "s")
STAGE = Instrument("headrace.stage.duration", "histogram", "Time of a chunk or slice in a stage.", ("stage",), "s")
STAGE_CPU = Instrument("headrace.stage.cpu", "counter", "Time of the stages' threads on a core.", ("stage",), "s")
DATABASE = Instrument(
    "headrace.database.duration", "histogram", "Time of a statement in the database.", ("statement",), "s"
)
RUN = Instrument("headrace.run.duration", "histogram", "Time of a completed run.", FEED, "s")
DUPLICATES = Instrument("headrace.duplicates.share", "gauge", "Share of duplicates in the last run, 0 to 1.", FEED)
COMPARED = Instrument(
    "headrace.duplicates.compared", "counter", "Duplicates compared with the row they repeat, a sample.", FEED
)
DIFFERING = Instrument("headrace.duplicates.differing", "counter", "Compared duplicates that have other values.", FEED)
NEWEST = Instrument(
    "headrace.newest.event.timestamp", "gauge", "Newest event time seen, seconds since 1970.", FEED, "s"
)
LAG = Instrument("headrace.event.lag", "gauge", "Time from the newest event to its commit.", FEED, "s")
WANTED = Instrument("headrace.workers.wanted", "gauge", "Workers that the pool should have.", FEED)
ALIVE = Instrument("headrace.workers.alive", "gauge", "Workers that the pool has.", FEED)
RESTARTS = Instrument("headrace.pool.restarts", "counter", "Restarts of the pool.", FEED)
FELL_BACK = Instrument("headrace.pool.fell_back", "gauge", "1 while a parallel run continues sequentially.", FEED)
FLAG = Instrument("headrace.flag", "gauge", "1 for the state that the flag or --mode put the run in.", (*FEED, "state"))
RAISED = Instrument("headrace.alerts.raised", "counter", "Alerts written to the outbox.", FEED)
ATTEMPTS = Instrument(
    "headrace.alerts.attempts", "counter", "Attempts to deliver alerts, by outcome.", (*FEED, "outcome")
)
WAITING = Instrument("headrace.alerts.waiting", "gauge", "Alerts in the outbox that are not delivered.", ("state",))
INSTRUMENTS = (
    *(ROWS, RUNS, SLICES, RETRIES, LOCK_WAIT, STAGE, STAGE_CPU, DATABASE, RUN),
    *(DUPLICATES, COMPARED, DIFFERING, NEWEST, LAG, WANTED, ALIVE, RESTARTS, FELL_BACK, FLAG),
    *(RAISED, ATTEMPTS, WAITING),
)
# what the client does by itself in a commit, and pauses in
_NOT_THE_DATABASE = {"commit.encode", "commit.pause"}


class Meters(Protocol):
    """A store of metrics. Safe to use from several threads."""

    def add(self, what: Instrument, amount: float, labels: Mapping[str, str]) -> None:
        """Move a counter up."""

    def set(self, what: Instrument, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""

    def record(self, what: Instrument, value: float, labels: Mapping[str, str]) -> None:
        """Add a value to a histogram."""


def statement_of(stage: str) -> str | None:
    """The statement of a stage (``copy``, ``conflict``, ``snapshot``), ``None`` for a stage without statements."""
    if stage == "snapshot":
        return stage
    whole, dot, part = stage.partition(".")
    return part if whole == "commit" and dot and stage not in _NOT_THE_DATABASE else None


class Metrics:
    """An observer (`headrace.observability.observers`) that updates `meters` with every run."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        # by provider and table, over all runs: a backfill does not put the newest event back
        self._newest_us: dict[tuple[str, str], int] = {}

    def __call__(self, run: RunFacts) -> Listener:
        """The listener for a run."""
        return _OneRun(self._meters, run, self._newest_us)

    def attempted(self, alert: StoredAlert, outcome: DeliveryOutcome) -> None:
        """Count the outcome of sending an alert, once it is recorded."""
        feed = {"provider": alert.provider, "table": alert.table}
        self._meters.add(ATTEMPTS, 1, {**feed, "outcome": outcome})

    def outbox(self, undelivered: Mapping[AlertState, int]) -> None:
        """Set the numbers of pending and of dead alerts."""
        for state, number in undelivered.items():
            self._meters.set(WAITING, number, {"state": state})


class _OneRun(Silent):
    """Moves `meters` as one run goes on."""

    def __init__(self, meters: Meters, run: RunFacts, newest_us: dict[tuple[str, str], int]) -> None:
        self._meters = meters
        self._newest_us = newest_us
        self._key = (run.provider, run.table)
        self._feed = {"provider": run.provider, "table": run.table}
        self._restarted = run.pool.restarted

    def began(self, run: RunFacts) -> None:
        """Set the run's mode, and create its counters."""
        shadow = run.decision.shadow
        now: State = "shadow" if shadow else run.decision.mode
        for state in get_args(State):
            self._meters.set(FLAG, float(state == now), {**self._feed, "state": state})
        for counter in (RETRIES, LOCK_WAIT, RESTARTS, RAISED, COMPARED, DIFFERING):
            self._meters.add(counter, 0, self._feed)
        self.pool(run.pool)

    def measured(self, spans: Sequence[Span]) -> None:
        """Record each stage, and the database's part of it."""
        for span in spans:
            self._meters.record(STAGE, span.seconds, {"stage": span.stage})
            self._meters.add(STAGE_CPU, span.cpu_seconds, {"stage": span.stage})
            statement = statement_of(span.stage)
            if statement is not None:
                self._meters.record(DATABASE, span.seconds, {"statement": statement})

    def committed(self, piece: Slice, done: Committed) -> None:  # noqa: ARG002 - the listener's signature
        """Count the rows of a slice that this process committed."""
        if done.already_done:
            return
        counts = done.counts
        for outcome in ("inserted", "duplicate_in_input", "duplicate_in_store", "rejected"):
            self._meters.add(ROWS, getattr(counts, outcome), {**self._feed, "outcome": outcome})
        self._meters.add(RAISED, done.alerts, self._feed)
        self._meters.add(SLICES, 1, {**self._feed, "path": done.path})
        self._meters.add(RETRIES, done.retries, self._feed)
        self._meters.add(LOCK_WAIT, done.lock_seconds, self._feed)

    def reached(self, newest_us: int) -> None:
        """Set the table's lag behind event time."""
        newest = max(newest_us, self._newest_us.get(self._key, newest_us))
        self._newest_us[self._key] = newest
        self._meters.set(NEWEST, newest / US, self._feed)
        self._meters.set(LAG, time.time() - newest / US, self._feed)

    def pool(self, health: PoolHealth) -> None:
        """Set the health of the workers."""
        self._meters.set(WANTED, health.wanted, self._feed)
        self._meters.set(ALIVE, health.alive, self._feed)
        # a pool that an engine keeps has been through other runs, and may be a new one
        self._meters.add(RESTARTS, max(0, health.restarted - self._restarted), self._feed)
        self._restarted = health.restarted
        self._meters.set(FELL_BACK, float(health.fell_back is not None), self._feed)

    def ended(self, report: Report) -> None:
        """Count the run."""
        self._meters.add(RUNS, 1, {**self._feed, "status": "done"})
        self._meters.record(RUN, report.seconds, self._feed)
        duplicates = report.duplicate_in_input + report.duplicate_in_store
        self._meters.add(COMPARED, report.duplicates_compared, self._feed)
        self._meters.add(DIFFERING, report.duplicates_differing, self._feed)
        self._meters.set(DUPLICATES, duplicates / report.read if report.read else 0.0, self._feed)

    def failed(self, error: BaseException) -> None:
        """Count the run that failed."""
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
        self._meters.add(RUNS, 1, {**self._feed, "status": "interrupted" if stopped else "failed"})
