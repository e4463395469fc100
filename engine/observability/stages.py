"""The stages of a run: their spans, from every worker, summed and passed to the listener.

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
    prove         the end: look up all events                                       └ pause     between two attempts

A stage's parts (``commit.copy``) are in the stage's own seconds already. Workers work at the same time, so that all
stages together may take longer than the run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from headrace.options.flag import Decision
from headrace.reading.chunk import Chunk
from headrace.report import Report
from headrace.storage.records import Address, Committed, Slice
from headrace.storage.spans import Span, Stage, Stopwatch

__all__ = ["Listener", "PoolHealth", "RunFacts", "Silent", "StageTotal", "Stages", "totals_of"]


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """The workers' health: how many there should be and are, how often the pool was `restarted`, and why this process
    does the rest (``None`` while all is well).
    """

    wanted: int
    alive: int
    restarted: int = 0
    fell_back: str | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts of a run at its beginning. `database` is the URL without its password, `started` seconds
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


class Listener:
    """The calls of a run to its listener, each ignored here: `began` first, `ended` or `failed` last, each once.

    All calls come from the thread that called `ingest`. An error in a listener fails the run.
    """

    def began(self, run: RunFacts) -> None:
        """Called when the run has its row in the ledger."""

    def measured(self, spans: Sequence[Span]) -> None:
        """Called with finished stages."""

    def committed(self, piece: Slice, done: Committed) -> None:
        """Called when a slice is committed (``done.already_done``: it was before). `piece` has its address, not
        its events.
        """

    def reached(self, newest_us: int) -> None:
        """Called when all slices of a chunk are committed; `newest_us` is its newest event time, in microseconds
        since 1970 UTC.
        """

    def pool(self, health: PoolHealth) -> None:
        """Called with the workers' health, after each chunk."""

    def ended(self, report: Report) -> None:
        """Called when the run is done, and its books balance."""

    def failed(self, error: BaseException) -> None:
        """Called when the run failed or was interrupted."""


class Silent(Listener):
    """Nobody listens, or the listener needs only some calls."""


@dataclass(slots=True)
class StageTotal:
    """The sum of all spans of a stage: their number, seconds, rows and bytes."""

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

    def take(self, other: StageTotal) -> None:
        """Count the spans of `other`."""
        self.spans += other.spans
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.rows += other.rows
        self.size += other.size


def totals_of(spans: Iterable[Span]) -> dict[str, StageTotal]:
    """The sums by stage."""
    totals: dict[str, StageTotal] = {}
    for span in spans:
        totals.setdefault(span.stage, StageTotal()).add(span)
    return totals


class Stages:
    """The stage clock of one run. Any thread may measure; only the thread that calls `tell` calls the listener.

    The spans themselves are not kept.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener or Silent()
        self.started = time.time()
        self.totals: dict[str, StageTotal] = {}
        self._untold: deque[Span] = deque()

    def take(self, spans: Iterable[Span]) -> None:
        """Add the spans that a worker returned."""
        self._untold.extend(spans)

    def stage(self, name: str, *, rows: int = 0, about: Address | None = None) -> Stage:
        """Measure a stage of the coordinator's own; `about` is the chunk, or the first one of several, that it
        works on, ``None`` if it concerns the whole run.
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
        """Sum the returned spans, and call the listener with them."""
        spans = [self._untold.popleft() for _ in range(len(self._untold))]
        for span in spans:
            self.totals.setdefault(span.stage, StageTotal()).add(span)
        if spans:
            self.listener.measured(spans)

    def land(self, newest_us: Callable[[], int | None], health: Callable[[], PoolHealth]) -> None:
        """Note that all slices of a chunk are committed. Determines its newest event time (microseconds since
        1970 UTC) and the workers' health only if there is a listener.
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
        """Call the listener with a failure inside, after all measurements; the failure matters more than the
        listener's own.
        """
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
