"""The progress of a run: the protocol that `ingest` calls, and its silent, plain, JSON and rich forms, all on
stderr.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TextIO

from headrace.options.choices import ProgressStyle
from headrace.reading.inputs import Input
from headrace.storage.records import Counts

__all__ = ["Progress", "Quiet", "progress_for"]

SECONDS_BETWEEN_LINES = 1.0


class Progress(Protocol):
    """The calls of `headrace.loading.run` during its work."""

    def over(self, inputs: Sequence[Input]) -> AbstractContextManager[None]:
        """Enter before the first chunk, leave after the last."""

    def advance(self, counts: Counts, chunks: int = 1) -> None:
        """Count committed chunks."""


class Quiet:
    """No progress."""

    def over(self, inputs: Sequence[Input]) -> AbstractContextManager[None]:  # noqa: ARG002 - the protocol's signature
        """Nothing to show."""
        return nullcontext()

    def advance(self, counts: Counts, chunks: int = 1) -> None:
        """Nothing to show."""


class RunningTotals:
    """The running totals that every visible form shows."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.chunks = 0
        self.began = time.monotonic()
        self._inputs: Sequence[Input] = ()

    def start(self, inputs: Sequence[Input]) -> None:
        """Begin to count over `inputs`."""
        self.counts, self.chunks = Counts(), 0
        self._inputs = inputs
        self.began = time.monotonic()

    def add(self, counts: Counts, chunks: int) -> None:
        """Count chunks."""
        self.counts += counts
        self.chunks += chunks

    @property
    def rate(self) -> float:
        """Rows per second so far."""
        return self.counts.read / max(time.monotonic() - self.began, 1e-9)

    @property
    def share(self) -> float | None:
        """The share of the input that is done, 0 to 1, if every input knows its progress."""
        sizes = [item.size for item in self._inputs]
        known = [size for size in sizes if size is not None]
        if not known or len(known) < len(sizes) or not sum(known):
            return None
        return sum(item.share_read * size for item, size in zip(self._inputs, known, strict=True)) / sum(known)

    @property
    def seconds_left(self) -> float | None:
        """The estimated remaining time."""
        share = self.share
        return None if not share else (time.monotonic() - self.began) * (1 - share) / share

    def __str__(self) -> str:
        counts = self.counts
        duplicates = counts.duplicate_in_input + counts.duplicate_in_store
        text = (
            f"{self.chunks} chunks, {counts.read:,} rows, {self.rate:,.0f} rows/s, "
            f"{counts.inserted:,} inserted, {duplicates:,} duplicate, {counts.rejected:,} rejected"
        )
        left = self.seconds_left
        return text if left is None else f"{text}, {left:,.0f} s left"


class LineProgress:
    """Progress as lines: as text, or as one JSON object each."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json
        self._tally = RunningTotals()
        self._next = 0.0

    @contextmanager
    def over(self, inputs: Sequence[Input]) -> Iterator[None]:
        """Write lines while inside, and one at the end."""
        self._tally.start(inputs)
        yield
        self._write()

    def advance(self, counts: Counts, chunks: int = 1) -> None:
        """Write a line if the last one is old enough."""
        self._tally.add(counts, chunks)
        if time.monotonic() >= self._next:
            self._write()
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def _write(self) -> None:
        print(self._as_object() if self._as_json else self._tally, file=self._stream, flush=True)

    def _as_object(self) -> str:
        tally = self._tally
        return json.dumps(
            {
                "chunks": tally.chunks,
                "read": tally.counts.read,
                "inserted": tally.counts.inserted,
                "duplicate_in_input": tally.counts.duplicate_in_input,
                "duplicate_in_store": tally.counts.duplicate_in_store,
                "rejected": tally.counts.rejected,
                "rows_per_second": round(tally.rate),
                "seconds_left": None if tally.seconds_left is None else round(tally.seconds_left),
            }
        )


class Bar:
    """A live bar for terminals, drawn by rich."""

    def __init__(self) -> None:
        self._tally = RunningTotals()

    @contextmanager
    def over(self, inputs: Sequence[Input]) -> Iterator[None]:
        """Show the bar while inside."""
        # rich is imported only where it draws: it would double the start-up time of every command
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, SpinnerColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as Rich  # noqa: PLC0415

        self._tally.start(inputs)
        columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
        with Rich(*columns, console=Console(stderr=True), transient=True) as bar:
            self._bar, self._task = bar, bar.add_task("reading …", total=None)
            yield

    def advance(self, counts: Counts, chunks: int = 1) -> None:
        """Redraw."""
        self._tally.add(counts, chunks)
        share = self._tally.share
        self._bar.update(
            self._task, description=str(self._tally), total=None if share is None else 1.0, completed=share or 0.0
        )


def progress_for(style: ProgressStyle, stream: TextIO | None = None) -> Progress:
    """The form named by `style`; ``auto`` is a bar on a terminal, and nothing elsewhere."""
    stream = stream or sys.stderr
    if style == "auto":
        return Bar() if stream.isatty() else Quiet()
    return Quiet() if style == "none" else LineProgress(stream, as_json=style == "json")
