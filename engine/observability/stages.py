"""Where a run's time went: the spans of all its stages, from every worker, summed and handed to who listens.

    agree ─► read ─► spool ─► prepare ─► decide ─► snapshot ─► gather ─► enrich ─► commit
                                                                                    ├ begin     SQLite: its file's lock
    wait.memory   the reader, for room                                              ├ receipt   claimed, completed
    wait.chunk    the coordinator, for a prepared chunk                             ├ locks     waited for
    wait.commit   the coordinator, for commits in flight                            ├ query     which IDs exist
                                                                                    ├ encode    to the table's types
                                                                                    ├ copy      the fast path
                                                                                    ├ aside     the safe path: COPY to a
                                                                                    ├ conflict  temporary table, INSERT
                                                                                    ├ insert    SQLite's only path
                                                                                    ├ revise    repeats compared
                                                                                    ├ alerts    into the outbox
                                                                                    ├ rejects
                                                                                    ├ commit    COMMIT
    prove         the end: is all that was met there?                               └ pause     between two tries

A stage's parts (``commit.copy``) are in the stage's own seconds already. Workers work at the same time, so that all
stages together may take longer than the run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from headrace.options.flag import Decision
from headrace.reading.chunk import Chunk
from headrace.report import Report
from headrace.storage.records import Address, Committed, Slice
from headrace.storage.spans import Span, Stage, Stopwatch

__all__ = ["Listener", "PoolHealth", "RunFacts", "Silent", "StageTotal", "Stages"]


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """How the workers are: how many there should be and are, how often the pool was `restarted`, and why the rest is
    done by this process (``None`` while all is well).
    """

    wanted: int
    alive: int
    restarted: int = 0
    fell_back: str | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a listener is told about a run when it begins. `database` is the URL without its password, `started` seconds
    since 1970.
    """

    run_id: str
    table: str
    provider: str
    database: str
    strategy: str
    pool: PoolHealth
    decision: Decision
    started: float


class Listener(Protocol):
    """What a run tells while it goes on: `began` first, `ended` or `failed` last, each once.

    All calls come from the thread that called `ingest`. What a listener raises fails the run.
    """

    def began(self, run: RunFacts) -> None:
        """The run has its row in the ledger."""
        ...

    def measured(self, spans: Sequence[Span]) -> None:
        """These stages are over."""
        ...

    def committed(self, piece: Slice, done: Committed) -> None:
        """A slice is in (``done.already_done``: it was before). `piece` has its address, not its events."""
        ...

    def reached(self, newest_us: int) -> None:
        """All slices of a micro-batch are in; its newest event time, in microseconds since 1970 UTC."""
        ...

    def pool(self, health: PoolHealth) -> None:
        """How the workers are, after each micro-batch."""
        ...

    def ended(self, report: Report) -> None:
        """The run is done, and its books balance."""
        ...

    def failed(self, error: BaseException) -> None:
        """The run failed or was interrupted."""
        ...


class Silent:
    """Nobody listens; also the base of a listener that wants some calls only."""

    def began(self, run: RunFacts) -> None:
        """Nothing to tell."""

    def measured(self, spans: Sequence[Span]) -> None:
        """Nothing to tell."""

    def committed(self, piece: Slice, done: Committed) -> None:
        """Nothing to tell."""

    def reached(self, newest_us: int) -> None:
        """Nothing to tell."""

    def pool(self, health: PoolHealth) -> None:
        """Nothing to tell."""

    def ended(self, report: Report) -> None:
        """Nothing to tell."""

    def failed(self, error: BaseException) -> None:
        """Nothing to tell."""


@dataclass(slots=True)
class StageTotal:
    """The sum of all spans of a stage: how many, their seconds, rows and bytes."""

    spans: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    rows: int = 0
    size: int = 0

    def add(self, span: Span) -> None:
        """Count `span`."""
        self.spans += 1
        self.seconds += span.seconds
        self.cpu_seconds += span.cpu_seconds
        self.rows += span.rows
        self.size += span.size


class Stages:
    """The stage clock of one run. Any thread may measure; the listener is called by the one thread that calls `tell`.

    The spans themselves are not kept.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener or Silent()
        self.started = time.time()
        self.totals: dict[str, StageTotal] = {}
        self._untold: deque[Span] = deque()

    def take(self, spans: Iterable[Span]) -> None:
        """Spans have come home."""
        self._untold.extend(spans)

    def stage(self, name: str, *, rows: int = 0, about: Address | None = None) -> Stage:
        """Measure a stage of the coordinator's own; `about` is the chunk, or the first one of the micro-batch, that it
        works on, ``None`` where it concerns the run.
        """
        source, first_row = ("", 0) if about is None else (about.source, about.first_row)
        return Stopwatch(source, first_row, keep=self._untold.append).stage(name, rows=rows)

    def reading(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """`chunks`, with the time that each takes to be read."""
        while True:
            watch = Stopwatch(keep=self._untold.append)
            with watch.stage("read") as stage:
                chunk = next(chunks, None)
                if chunk is None:
                    return
                stage.rows, stage.size = chunk.address.rows, chunk.batch.nbytes
                watch.source, watch.first_row = chunk.address.source, chunk.address.first_row
            yield chunk

    def tell(self) -> None:
        """Sum the spans that have come home, and tell the listener."""
        spans = [self._untold.popleft() for _ in range(len(self._untold))]
        for span in spans:
            self.totals.setdefault(span.stage, StageTotal()).add(span)
        if spans:
            self.listener.measured(spans)

    def land(self, newest_us: Callable[[], int | None], health: Callable[[], PoolHealth]) -> None:
        """All slices of a micro-batch are in. Asks for its newest event time (microseconds since 1970 UTC) and for the
        workers' health only where somebody listens.
        """
        self.tell()
        if type(self.listener) is Silent:  # who does not listen need not pay for what is found out
            return
        newest = newest_us()
        if newest is not None:
            self.listener.reached(newest)
        self.listener.pool(health())

    @contextmanager
    def telling_failure(self) -> Iterator[None]:
        """A failure inside is told, after all that was measured; it matters more than one of a listener's own."""
        try:
            yield
        except BaseException as error:
            try:
                self.tell()
                self.listener.failed(error)
            except Exception as second:  # noqa: BLE001 - the failure itself must get out
                error.add_note(f"(a listener failed too: {second!r})")
            raise

    def seconds(self) -> dict[str, float]:
        """Wall seconds by stage, those of all workers together, in alphabetical order."""
        return {name: total.seconds for name, total in sorted(self.totals.items())}
