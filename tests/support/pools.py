"""Executors and crews that fail on command, and orders for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from headrace.events.enrich import Enrichment
from headrace.execution.crew import ProcessCrew
from headrace.execution.orders import ChunkRows, CommitOrder, PrepareOrder, RangeOrder
from headrace.execution.tasks import TaskOutcome
from headrace.execution.workers import InlineWorkers
from headrace.partitioning.contract import Contract
from headrace.reading.csv_reader import Dialect
from headrace.reading.ranges import Range, RangeReader, RangeReading
from headrace.reading.steady_files import Steady
from headrace.storage.records import Address, Counts, Slice

__all__ = [
    "BROKEN",
    "EVENTS",
    "FakeCrew",
    "Here",
    "Reaction",
    "Scripted",
    "breaks",
    "commit_order",
    "does_it",
    "does_nothing",
    "number_of",
    "prepare_order",
    "range_order",
    "refuses",
    "starves",
]

BROKEN = BrokenExecutor("its processes are gone")
EVENTS = pa.RecordBatch.from_pydict({"key": [3, 1, 2]})


def commit_order(number: int, *, enrich: bool = False, new: ChunkRows | None = None) -> CommitOrder:
    address = Address("events.csv", number, 1)
    piece = Slice("run", "t", "p", address, "digest", EVENTS.slice(0, 0), "snapshot", Counts(read=1))
    return CommitOrder(piece, new, "sqlite://", Enrichment("pandas:f") if enrich else None)


def prepare_order(chunk: Any) -> PrepareOrder:
    contract = Contract((("key", "integer"),))
    return PrepareOrder(Address("events.csv", 0, 3), chunk, None, [], contract, "p", None)


def range_order(file: Steady, number: int) -> RangeOrder:
    how = RangeReading(file.name, EVENTS.schema, frozenset(["key"]), 10, "UTC", 1)
    reader = RangeReader(file, how, Dialect(",", ("key",), header=True))
    return RangeOrder(reader, Range(number, number + 1, 1), Contract((("key", "integer"),)), "p", None, "run", {})


def number_of(order: Any) -> int:
    """Which task it is, whoever asks: in the crew's executors orders are packed."""
    return int(re.search(r"(?:rows|bytes) (\d+)-", str(order))[1])  # type: ignore[index]


class Here(InlineWorkers):
    """Says what was done inline."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def commit(self, order: CommitOrder) -> Any:
        return self._note(order)

    def prepare(self, order: PrepareOrder) -> Any:
        return self._note(order)

    def read(self, order: RangeOrder) -> Any:
        return self._note(order)

    def _note(self, order: Any) -> Future[Any]:
        self.done.append(str(order))
        future: Future[Any] = Future()
        future.set_result(f"inline {number_of(order)}")
        return future


Reaction = Callable[[Future[Any], Any], None]


def does_it(future: Future[Any], order: Any) -> None:
    future.set_result(TaskOutcome(f"done {number_of(order)}"))


def breaks(future: Future[Any], order: Any) -> None:
    future.set_exception(BROKEN)


def does_nothing(future: Future[Any], order: Any) -> None:
    pass


def refuses(future: Future[Any], order: Any) -> None:
    raise BROKEN


def starves(future: Future[Any], order: Any) -> None:
    future.set_result(TaskOutcome(passing=MemoryError("no room")))


class Scripted(Executor):
    """Reacts to the first tasks as it is told, and to all others as to the last of these."""

    def __init__(self, *reactions: Reaction) -> None:
        self.reactions = list(reactions)
        self.given: list[Any] = []
        self.futures: list[Future[Any]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        _work, order, _partition = args
        reaction = self.reactions.pop(0) if len(self.reactions) > 1 else self.reactions[0]
        future: Future[Any] = Future()
        self.given.append(order)
        self.futures.append(future)
        reaction(future, order)
        return future

    def end(self) -> None:
        for future in self.futures:
            if not future.done():
                breaks(future, None)

    def numbers(self) -> list[int]:
        return list(map(number_of, self.given))


class FakeCrew(ProcessCrew):
    """Starts one executor after the other; a `start` that is an exception is raised."""

    def __init__(self, *starts: Executor | Exception) -> None:
        self.starts = list(starts)
        self.killed = 0
        self.can = True
        self.late_orders: list[list[str]] = []
        self.stalled_workers: list[int] = []
        self.on_kill: Callable[[], None] = lambda: None

    def start(self) -> Any:
        start = self.starts.pop(0) if len(self.starts) > 1 else self.starts[0]
        if isinstance(start, Exception):
            raise start
        return start

    def can_start(self) -> bool:
        return self.can

    def stalled(self) -> list[int]:
        found, self.stalled_workers = self.stalled_workers, []
        return found

    def late(self) -> list[str]:
        return self.late_orders.pop(0) if self.late_orders else []

    def kill(self) -> None:
        self.killed += 1
        self.on_kill()

    @contextmanager
    def leaving(self) -> Iterator[None]:
        yield
