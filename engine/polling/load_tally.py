"""The costs of one load, summed while it runs, for the rolling profile that `headrace run` keeps of each provider.

    ingest ──spans──► Tally ──► PastLoad ──► headrace_past_loads, saved with the provider's state

Two clocks and the machine's counters are read at both ends of a load, and the spans that exist anyway are summed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from headrace.observability.stages import Silent, StageTotal
from headrace.profiling.usage import Meter
from headrace.report import Report
from headrace.storage.providers import PastLoad
from headrace.storage.spans import Span

__all__ = ["LoadTally"]


class LoadTally(Silent, Meter):
    """A listener that sums the spans, and a meter; enter it around the load."""

    def __init__(self) -> None:
        self._totals: dict[str, StageTotal] = {}
        self._workers_cpu = 0.0
        self._own = f"{os.getpid()}/"

    def measured(self, spans: Sequence[Span]) -> None:
        """Sum the spans; spans of other processes are the workers'."""
        for span in spans:
            self._totals.setdefault(span.stage, StageTotal()).add(span)
            if "." not in span.stage and not span.worker.startswith(self._own):
                self._workers_cpu += span.cpu_seconds

    def past_load(self, report: Report, number: int, polled_at: datetime) -> PastLoad:
        """The load of `report`, in the form in which it is kept."""
        return PastLoad(
            provider=report.provider,
            table=report.table,
            number=number,
            run_id=report.run_id,
            polled_at=polled_at,
            strategy=report.strategy,
            workers=report.workers,
            chunks=report.chunks,
            read=report.read,
            inserted=report.inserted,
            seconds=report.seconds,
            cpu_seconds=self.usage.cpu_seconds + self._workers_cpu,
            machine_cpu=self.usage.machine_cpu,
            stages={name: (one.spans, one.seconds, one.cpu_seconds) for name, one in sorted(self._totals.items())},
        )
