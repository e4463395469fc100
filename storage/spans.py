"""The stage clock: the time of each stage of a piece of work, measured where it runs, and returned as plain data.

    with watch.stage("commit.copy", rows=10, size=640):
        …                                   a span: from when, how long, by whom, over which rows

Two clocks are read when a stage begins and when it ends, for a slice or a chunk at a time and never for a row: that is
cheap enough to be always on. `headrace.observability.stages` uses the spans.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

__all__ = ["Span", "Stage", "Stopwatch"]


@dataclass(frozen=True, slots=True)
class Span:
    """One stage of one piece of work.

    `stage` is its name; a part of another stage has that one's name before a dot (``commit.copy``). `started` is
    seconds since 1970 by the clock of the machine that did it, `seconds` the wall time, `cpu_seconds` the time of the
    thread that did it on a core (what a library's own threads used is not in it). `worker` is ``process/thread``.
    `rows` and `size` (bytes) are what the stage went over, 0 where it has no such thing; `source`, `first_row` and
    `partition` say whose (``""``, 0 and ``None`` where it concerns the run).
    """

    stage: str
    started: float
    seconds: float
    cpu_seconds: float
    worker: str
    rows: int = 0
    size: int = 0
    source: str = ""
    first_row: int = 0
    partition: int | None = None


class Stage:
    """A running stage. `rows` and `size` may be set while it runs."""

    __slots__ = ("_began", "_cpu", "_name", "_watch", "rows", "size")

    def __init__(self, watch: Stopwatch, name: str, rows: int, size: int) -> None:
        self._watch = watch
        self._name = name
        self.rows = rows
        self.size = size

    def __enter__(self) -> Self:
        self._cpu = time.thread_time()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._began
        watch = self._watch
        watch.keep(
            Span(
                stage=self._name,
                started=watch.epoch + self._began,
                seconds=seconds,
                cpu_seconds=time.thread_time() - self._cpu,
                worker=watch.worker,
                rows=self.rows,
                size=self.size,
                source=watch.source,
                first_row=watch.first_row,
                partition=watch.partition,
            )
        )


class Stopwatch:
    """Measures the stages of one piece of work, each in one thread; a failed stage is measured too.

    `spans` are those that are over, unless `keep` takes them elsewhere. `epoch` makes of the clock that measures the
    one that everybody shares; it is read once, so that a part never seems to begin before its stage.
    """

    __slots__ = ("epoch", "first_row", "keep", "partition", "source", "spans", "worker")

    def __init__(
        self,
        source: str = "",
        first_row: int = 0,
        partition: int | None = None,
        *,
        keep: Callable[[Span], object] | None = None,
    ) -> None:
        self.source = source
        self.first_row = first_row
        self.partition = partition
        self.worker = f"{os.getpid()}/{threading.current_thread().name}"
        self.epoch = time.time() - time.perf_counter()
        self.spans: list[Span] = []
        self.keep = keep or self.spans.append

    def stage(self, name: str, *, rows: int = 0, size: int = 0) -> Stage:
        """A context manager that measures its block as the stage `name`."""
        return Stage(self, name, rows, size)
