"""From slices to books: the slices that are given out, until their commits have returned and are counted.

orders ──► workers ──► in flight, chunk by chunk ──► landed: counted, proven, remembered, memory freed
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from headrace.errors import HeadraceError
from headrace.execution.orders import CommitOrder
from headrace.execution.workers import Done, Task, Workers
from headrace.loading.books import Books
from headrace.loading.close_run import Confirmed
from headrace.loading.intake import Intake
from headrace.loading.known_ids import KnownIds
from headrace.loading.met_chunk import MetChunk
from headrace.loading.proof import Proof
from headrace.loading.run_context import RunContext
from headrace.storage.records import Committed, Receipt

__all__ = ["Commits"]


@dataclass(frozen=True, slots=True)
class _Flight:
    """A chunk whose slices are being committed, except those that an earlier process committed."""

    chunk: MetChunk
    slices: Sequence[tuple[CommitOrder, Task[Committed]]]
    done: Sequence[Receipt]
    skipped: bool


class Commits:
    """The commits of a run over `workers`, which may be replaced at any time: the new workers get the later slices."""

    def __init__(self, run: RunContext, workers: Workers, intake: Intake, known: KnownIds, proof: Proof) -> None:
        self.workers = workers
        self.books = Books(run.going.shape.partitions)
        self.confirmed = Confirmed()
        self._run = run
        self._intake = intake
        self._known = known
        self._proof = proof
        self._in_flight: deque[_Flight] = deque()
        self._types_are_settled = False

    def give(self, chunk: MetChunk, orders: Sequence[CommitOrder], done: Sequence[Receipt]) -> None:
        """Give out the `orders` of a chunk, of which the slices of `done` are committed; wait for older chunks until
        there is room.
        """
        slices = [(order, self._given_out(order)) for order in orders]
        self._in_flight.append(_Flight(chunk, slices, done, skipped=not orders))
        self.books.dispatched(chunk)
        while len(self._in_flight) > self._most_in_flight():
            self._land()

    def drain(self) -> None:
        """Wait for every commit in flight, and count what it did."""
        while self._in_flight:
            self._land()

    def wait_out(self) -> None:
        """Wait for every commit in flight of a run that is given up: the next run finds what they bring."""
        for flight in self._in_flight:
            for _, task in flight.slices:
                with suppress(HeadraceError):
                    task.result()

    def _given_out(self, order: CommitOrder) -> Task[Committed]:
        """The first slice with events is waited for where they are enriched: it settles the new columns' types."""
        task = self.workers.commit(order)
        if self._run.options.enrichment is None or self._types_are_settled or order.new is None:
            return task
        self._types_are_settled = True
        return Done(task.result())

    def _most_in_flight(self) -> int:
        """Chunkes: enough to keep all workers at it, and one being decided."""
        return 1 if self.workers.count == 1 else max(1, -(-self.workers.count // self._run.going.shape.partitions))

    def _land(self) -> None:
        """Wait for the oldest chunk in flight, and count it."""
        flight, stages = self._in_flight.popleft(), self._run.stages
        counts = self.books.skipped(flight.done)
        for order, task in flight.slices:
            with stages.stage("wait.commit"):
                committed = task.result()
            stages.take(committed.spans)
            self.confirmed.add(order.slice, committed)
            self._proof.hear(committed)
            stages.listener.committed(order.slice, committed)
            counts += self.books.committed(committed)
            self._known.refuse(committed.refused)
            keep = self._run.session.keep and committed.counts.rejected == order.slice.counts.rejected
            if keep and order.new is not None:
                self._known.remember(order.new.ids)
        stages.land(lambda: flight.chunk.newest_us, self.workers.health)
        flight.chunk.discard()
        self._intake.landed(flight.chunk.prepared)
        self.books.landed(counts, skipped=flight.skipped)
        self._run.progress.advance(counts, 1)
