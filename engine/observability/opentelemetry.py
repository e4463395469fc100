"""OpenTelemetry: the metrics of `headrace.observability.metrics`, and a trace for each run. The API only (extra
``headrace[opentelemetry]``); exporters are the user's.

    headrace.run ─┬─ read    prepare    decide    snapshot    gather    enrich        one for each chunk or slice
                  └─ commit ─┬─ commit.copy …                                         the database's part of it

The workers' measurements arrive as plain data and are exported here with their original times: no context needs to
travel to the workers. The parent of a run's trace is the span that is current at the call, for example a web request's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from headrace.observability.metrics import INSTRUMENTS, Instrument, Metrics
from headrace.observability.observers import Observer
from headrace.observability.stages import Listener, RunFacts, Silent
from headrace.report import Report
from headrace.storage.spans import Span
from headrace.version import __version__

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Status, StatusCode
except ImportError as missing:
    raise ImportError("OpenTelemetry's API is not installed: pip install 'headrace[opentelemetry]'") from missing

__all__ = ["Tracing", "observers", "usual"]

NS = 1_000_000_000
SCOPE = "headrace"


def observers(
    tracer_provider: trace.TracerProvider | None = None, meter_provider: metrics.MeterProvider | None = None
) -> tuple[Observer, ...]:
    """The observers that call OpenTelemetry: the given providers, by default the process's."""
    meter = metrics.get_meter(SCOPE, __version__, meter_provider)
    return Tracing(trace.get_tracer(SCOPE, __version__, tracer_provider)), Metrics(_Instruments(meter))


@cache
def usual() -> tuple[Observer, ...]:
    """The observers for the process's own providers, whenever these are set up."""
    return observers()


class Tracing:
    """An observer that makes a trace of each run."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def __call__(self, run: RunFacts) -> Listener:  # noqa: ARG002 - an observer's signature
        """The listener for a run."""
        return _Trace(self._tracer)


class _Instruments:
    """The instruments of a meter."""

    def __init__(self, meter: metrics.Meter) -> None:
        make: dict[str, Any] = {
            "counter": meter.create_counter,
            "gauge": meter.create_gauge,
            "histogram": meter.create_histogram,
        }
        self._all: dict[str, Any] = {
            what.name: make[what.kind](what.name, what.unit, what.about) for what in INSTRUMENTS
        }

    def add(self, what: Instrument, amount: float, labels: Mapping[str, str]) -> None:
        self._all[what.name].add(amount, labels)

    def set(self, what: Instrument, value: float, labels: Mapping[str, str]) -> None:
        self._all[what.name].set(value, labels)

    def record(self, what: Instrument, value: float, labels: Mapping[str, str]) -> None:
        self._all[what.name].record(value, labels)


class _Trace(Silent):
    """A span for the run, and below it one for each stage of each chunk and slice."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._run: trace.Span = trace.INVALID_SPAN
        self._below = trace.set_span_in_context(self._run)

    def began(self, run: RunFacts) -> None:
        facts: dict[str, str | int] = {
            "headrace.run": run.run_id,
            "headrace.table": run.table,
            "headrace.provider": run.provider,
            "headrace.mode": run.decision.mode,
            "headrace.strategy": run.strategy,
            "headrace.workers": run.pool.wanted,
            "headrace.flag": run.decision.flag,
            "headrace.flag.source": run.decision.source,
        }
        self._run = self._tracer.start_span("headrace.run", attributes=facts, start_time=_ns(run.started))
        self._below = trace.set_span_in_context(self._run)

    def measured(self, spans: Sequence[Span]) -> None:
        if not self._run.is_recording():
            return
        commits = {}
        for span in spans:
            if span.stage == "commit":
                commits[_place(span)] = self._told(span, self._below)
        for span in spans:
            if span.stage != "commit":
                whole = commits.get(_place(span)) if span.stage.startswith("commit.") else None
                self._told(span, self._below if whole is None else trace.set_span_in_context(whole))

    def ended(self, report: Report) -> None:
        counts = {
            "headrace.rows.read": report.read,
            "headrace.rows.inserted": report.inserted,
            "headrace.rows.duplicate_in_input": report.duplicate_in_input,
            "headrace.rows.duplicate_in_store": report.duplicate_in_store,
            "headrace.rows.rejected": report.rejected,
            "headrace.alerts": report.alerts,
            "headrace.chunks": report.chunks,
            "headrace.chunks.skipped": report.chunks_skipped,
            "headrace.retries": report.retries,
        }
        self._run.set_attributes(counts)
        self._run.end()

    def failed(self, error: BaseException) -> None:
        self._run.record_exception(error)
        self._run.set_status(Status(StatusCode.ERROR, str(error)))
        self._run.end()

    def _told(self, span: Span, below: Any) -> trace.Span:
        facts: dict[str, str | int | float] = {
            "headrace.worker": span.worker,
            "headrace.rows": span.rows,
            "headrace.bytes": span.size,
            "headrace.cpu_seconds": span.cpu_seconds,
        }
        if span.source:
            facts |= {"headrace.source": span.source, "headrace.first_row": span.first_row}
        if span.partition is not None:
            facts["headrace.partition"] = span.partition
        started = _ns(span.started)
        told = self._tracer.start_span(span.stage, below, attributes=facts, start_time=started)
        told.end(started + _ns(span.seconds))
        return told


def _place(span: Span) -> tuple[str, int, int | None]:
    return span.source, span.first_row, span.partition


def _ns(seconds: float) -> int:
    return round(seconds * NS)
