"""The costs of one load, summed while it runs, for the rolling profile that `headrace run` keeps of each provider.

    ingest ──spans──► Tally ──► PastLoad ──► headrace_past_loads, saved with the provider's state

Two clocks and the machine's counters are read at both ends of a load, and the spans that exist anyway are summed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

import psutil

from headrace.observability.stages import Silent, StageTotal
from headrace.report import Report
from headrace.storage.providers import PastLoad
from headrace.storage.spans import Span

__all__ = ["LoadTally"]


class LoadTally(Silent):
    """A listener that sums the spans; enter it around the load."""

    def __init__(self) -> None:
        self._totals: dict[str, StageTotal] = {}
        self._workers_cpu = 0.0
        self._own = f"{os.getpid()}/"

    def __enter__(self) -> Self:
        self._cpu, self._machine = time.process_time(), _machine()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cpu = time.process_time() - self._cpu
        every, idle = (now - then for now, then in zip(_machine(), self._machine, strict=True))
        self._busy = max(0.0, every - idle) / every if every > 0 else 0.0

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
            cpu_seconds=self._cpu + self._workers_cpu,
            machine_cpu=self._busy,
            stages={name: (one.spans, one.seconds, one.cpu_seconds) for name, one in sorted(self._totals.items())},
        )


def _machine() -> tuple[float, float]:
    """Seconds of all cores since the machine began, and those of them in which they had nothing to do."""
    times = psutil.cpu_times()
    every = sum(getattr(times, name) for name in times._fields if not name.startswith("guest"))
    return every, times.idle + getattr(times, "iowait", 0.0)
