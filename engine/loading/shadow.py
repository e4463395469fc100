"""Shadow mode: the parallel result is computed beside a sequential run, from the same snapshot, without writing, and
compared.

    chunk ──► this run: prepare, decide ───────────────────────────────► written
      │                                        │ the new IDs and counts
      └──► a worker: prepare ──► by partition: decide, with its own sets ──► equal?  no: an error event with a sample

Whatever goes wrong here is an error event and ends the comparison, never the run.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.events.prepare import Prepared
from headrace.execution.orders import ChunkRows, PrepareOrder
from headrace.execution.workers import Task, Workers
from headrace.loading.known_ids import KnownIds
from headrace.loading.met_chunk import MetChunk
from headrace.partitioning.dedup import first_occurrences
from headrace.partitioning.identity import id_text
from headrace.partitioning.partition import rows_by_partition
from headrace.partitioning.snapshot import IdRuns
from headrace.storage.records import Counts

__all__ = ["Shadow"]

log = logging.getLogger("headrace.shadow")
SAMPLE = 10
Ids = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one way makes of a chunk: the IDs of its new events, ascending, its books, and the keys of its alerts."""

    new: NDArray[np.void]
    counts: Counts
    alerts: frozenset[str]


class Shadow:
    """The parallel computation over `workers`, with a set of IDs for each of `partitions` in `folder`.

    `judge_by` says what the new rows of a chunk raise, as alert keys.
    """

    def __init__(
        self,
        workers: Callable[[], Workers],
        known: KnownIds,
        partitions: int,
        folder: Path,
        judge_by: Callable[[ChunkRows | None], frozenset[str]],
    ) -> None:
        self._known = known
        self._judge_by = judge_by
        self._partitions = partitions
        self._tasks: deque[Task[Prepared]] = deque()
        self._failed = False
        self.compared = 0
        self.different = 0
        try:
            self._workers = workers()
            self._seen = [IdRuns(folder) for _ in range(partitions)]
        except Exception as error:  # noqa: BLE001 - a shadow never fails the run
            self._give_up(error)

    def __str__(self) -> str:
        """For the report."""
        text = (
            f"{self.different} of {self.compared} chunks differ" if self.different else f"{self.compared} chunks equal"
        )
        return f"{text}; then the comparison failed" if self._failed else text

    def offer(self, order: PrepareOrder) -> None:
        """Let a worker prepare the chunk too; chunks are compared in the order in which they are offered."""
        if self._failed:
            return
        try:
            copy = order.copied(self._workers.pack(order.chunk.open()))
            self._tasks.append(self._workers.prepare(copy))
        except Exception as error:  # noqa: BLE001 - likewise
            self._give_up(error)

    def compare(self, chunk: MetChunk, *, judged: bool) -> None:
        """Compare the workers' result for the chunk; `judged` is False for a skipped chunk."""
        if self._failed:
            return
        try:
            prepared = self._tasks.popleft().result()
            theirs = self._decide(prepared, judged=judged)
            new = np.sort(_comparable(chunk.ids[chunk.new]))
            ours = _Verdict(new, chunk.counts(0), self._judge_by(chunk.new_rows(0)))
            self._report_difference(chunk, ours, theirs)
            prepared.events.discard()
            prepared.identity.discard()
        except Exception as error:  # noqa: BLE001 - likewise
            self._give_up(error)

    def close(self) -> None:
        """Drop the sets."""
        if not self._failed:
            for seen in self._seen:
                seen.close()

    def _decide(self, prepared: Prepared, *, judged: bool) -> _Verdict:
        """Decide as the owner of each partition would, knowing only its own events."""
        new: list[Ids] = []
        alerts: frozenset[str] = frozenset()
        first_seen = 0
        ids = prepared.ids
        for seen, rows in zip(self._seen, rows_by_partition(ids, self._partitions), strict=True):
            own = ids[rows]
            rows = rows[first_occurrences(own) & ~seen.contains(own)]  # noqa: PLW2901 - fewer and fewer of them
            first = ids[rows]
            seen.add(first)
            first_seen += len(first)
            fresh_rows = rows[~self._known.exist(first)] if judged else rows
            new.append(ids[fresh_rows])
            chosen = ChunkRows(
                prepared.address, prepared.events, prepared.identity, fresh_rows, len(ids), numbered=prepared.numbered
            )
            alerts |= self._judge_by(chosen if len(fresh_rows) else None)
        fresh = np.concatenate(new)
        rejected = len(prepared.rejects)
        counts = Counts(
            read=len(ids) + rejected,
            duplicate_in_input=len(ids) - first_seen,
            duplicate_in_store=first_seen - len(fresh),
            rejected=rejected,
        )
        return _Verdict(np.sort(_comparable(fresh)), counts, alerts)

    def _report_difference(self, chunk: MetChunk, ours: _Verdict, theirs: _Verdict) -> None:
        self.compared += 1
        strange = np.setxor1d(ours.new, theirs.new)
        alerts = sorted(ours.alerts ^ theirs.alerts)
        if len(strange) == 0 and ours.counts == theirs.counts and not alerts:
            return
        self.different += 1
        log.error(
            "%s: the parallel result differs: %d IDs, for example %s; %d alerts, for example %s; "
            "sequential %s, parallel %s",
            chunk.address,
            len(strange),
            ", ".join(id_text(one.tobytes()) for one in strange[:SAMPLE]) or "none",
            len(alerts),
            ", ".join(alerts[:SAMPLE]) or "none",
            ours.counts,
            theirs.counts,
        )

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        log.error("the comparison with the parallel result failed and ends; the run continues", exc_info=error)


def _comparable(ids: Ids) -> NDArray[np.void]:
    """IDs (rows, 16) as one value each, which NumPy can sort and compare: 16-byte texts would lose zeros at the end."""
    return np.ascontiguousarray(ids).view("V16").reshape(-1)
