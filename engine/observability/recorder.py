"""The recording of a run: its spans, the books of each chunk, memory over time.

    ingest ──spans, slices, event times──► Recorder ──► page.py  one HTML page that works offline
    psutil, four times a second ─────────►          └─► trace.py a file for Perfetto

Nothing is recorded unless a recorder listens. It keeps some 200 bytes for each span, and never a row.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from headrace.observability.stages import RunFacts, Silent
from headrace.report import Report
from headrace.storage.records import Committed, Counts, Slice
from headrace.storage.spans import Span

__all__ = ["Batch", "Memory", "Recorder"]

SECONDS_BETWEEN_SAMPLES = 0.25


@dataclass(frozen=True, slots=True)
class Batch:
    """A committed chunk: its address, its books, and its newest event time in microseconds since 1970 UTC
    (``None`` without a time column).
    """

    source: str
    first_row: int
    counts: Counts
    newest_us: int | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes at a moment (seconds since 1970): of the coordinator, and of its workers together."""

    at: float
    coordinator: int
    workers: int


@dataclass
class Recorder(Silent):
    """A listener that records a run. Enter it around the run: while inside, memory is sampled."""

    facts: RunFacts | None = None
    report: Report | None = None
    error: str | None = None
    spans: list[Span] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    partition_rows: dict[int, int] = field(default_factory=dict)
    memory: list[Memory] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """What somebody has to say about the run, under a name each: the page shows it."""

    def __post_init__(self) -> None:
        self._landing: list[tuple[Slice, Counts]] = []
        self._processes: set[int] = set()
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="headrace-memory", daemon=True)

    def __enter__(self) -> Recorder:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._sampler.join()

    def began(self, run: RunFacts) -> None:
        """Keep the run's facts; drop the records of a superseded run."""
        self.error, self.batches, self.partition_rows, self._landing = None, [], {}, []
        self.facts = run

    def measured(self, spans: Sequence[Span]) -> None:
        """Keep the spans, and note their workers."""
        self.spans += spans
        self._processes |= {int(span.worker.partition("/")[0]) for span in spans}

    def committed(self, piece: Slice, done: Committed) -> None:
        """Count a slice; a new address means that the chunk before it is complete."""
        if self._landing and self._landing[0][0].address != piece.address:
            self._land(None)
        self._landing.append((piece, done.counts))
        self.partition_rows[piece.partition] = self.partition_rows.get(piece.partition, 0) + done.counts.read

    def reached(self, newest_us: int) -> None:
        """Close a chunk: the slices since the last call, up to this event time."""
        self._land(newest_us)

    def ended(self, report: Report) -> None:
        """Keep the books."""
        self._land(None)
        self.report = report

    def failed(self, error: BaseException) -> None:
        """Keep the failure."""
        self._land(None)
        self.error = f"{type(error).__name__}: {error}"

    def _land(self, newest_us: int | None) -> None:
        if self._landing:
            address = self._landing[0][0].address
            counts = sum((counts for _, counts in self._landing), Counts())
            self.batches.append(Batch(address.source, address.first_row, counts, newest_us))
            self._landing = []

    def _sample(self) -> None:
        import psutil  # noqa: PLC0415 - a run that nobody records does without

        def resident(process: int) -> int:
            with suppress(psutil.Error):  # it has ended, or is on another machine
                return int(psutil.Process(process).memory_info().rss)
            return 0

        own = os.getpid()
        while not self._over.is_set():
            workers = sum(resident(one) for one in list(self._processes) if one != own)
            self.memory.append(Memory(time.time(), resident(own), workers))
            self._over.wait(SECONDS_BETWEEN_SAMPLES)
