"""The books of a run: the counts of its slices, added when their commits have returned, and the report."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.events.prepare import moment_of
from headrace.execution.workers import Workers
from headrace.loading.duplicates import DuplicateSample
from headrace.loading.met_chunk import MetChunk
from headrace.loading.run_context import RunContext
from headrace.loading.shadow import Shadow
from headrace.options.shape import SEQUENTIAL
from headrace.report import Report
from headrace.storage.records import Committed, Counts, Receipt

__all__ = ["Books"]


class Books:
    """The sums of one run over its chunks. A counter moves only after the commit that it counts."""

    def __init__(self, partitions: int) -> None:
        self.counts = Counts()
        self.chunks = 0
        self._chunks_skipped = self._slices_skipped = self._retries = self._alerts = 0
        self._lock_seconds = 0.0
        self._partition_rows = [0] * partitions
        self._newest_us: int | None = None

    def dispatched(self, chunk: MetChunk) -> None:
        """Note the rows and the times of a dispatched chunk."""
        if (newest := chunk.newest_us) is not None:
            self._newest_us = newest if self._newest_us is None else max(self._newest_us, newest)
        for partition in range(len(self._partition_rows)):
            self._partition_rows[partition] += chunk.rows(partition)

    def skipped(self, receipts: Sequence[Receipt]) -> Counts:
        """Note the slices that an earlier process has committed; returns their counts, for `landed`."""
        self._slices_skipped += len(receipts)
        self._alerts += sum(receipt.alerts for receipt in receipts)
        return sum((receipt.counts for receipt in receipts), Counts())

    def committed(self, commit: Committed) -> Counts:
        """Note the costs of a slice's commit; return its counts, for `landed`."""
        self._retries += commit.retries
        self._lock_seconds += commit.lock_seconds
        self._alerts += commit.alerts
        return commit.counts

    def landed(self, counts: Counts, *, skipped: bool) -> None:
        """Count a chunk of which every slice is committed; `skipped` if an earlier process committed all
        of them.
        """
        self.counts += counts
        self.chunks += 1
        self._chunks_skipped += skipped

    def report(
        self,
        run: RunContext,
        workers: Workers,
        seconds: float,
        proved: int | None,
        snapshot_ids: int,
        shadow: Shadow | None,
        sample: DuplicateSample,
    ) -> Report:
        """The report of `run`, which began with these `workers`; `seconds` is wall time."""
        shape = run.going.shape
        busiest, every = max(self._partition_rows), sum(self._partition_rows)
        return Report(
            run_id=run.going.run_id,
            database=run.store.url,
            table=run.agreement.table,
            provider=run.options.provider,
            mode="sequential" if shape == SEQUENTIAL else "parallel",
            strategy=shape.strategy,
            workers=workers.count,
            partitions=shape.partitions,
            chunks=self.chunks,
            chunks_skipped=self._chunks_skipped,
            slices_skipped=self._slices_skipped,
            read=self.counts.read,
            inserted=self.counts.inserted,
            duplicate_in_input=self.counts.duplicate_in_input,
            duplicate_in_store=self.counts.duplicate_in_store,
            rejected=self.counts.rejected,
            revised=self.counts.revised,
            alerts=self._alerts,
            snapshot_ids=snapshot_ids,
            retries=self._retries,
            lock_seconds=self._lock_seconds,
            skew=busiest * len(self._partition_rows) / every if every else 1.0,
            fell_back=workers.fell_back,
            shadow=None if shadow is None else str(shadow),
            seconds=seconds,
            stages=run.stages.seconds(),
            newest_event=moment_of(self._newest_us),
            newest_event_us=self._newest_us,
            proved=proved,
            **sample.told(),
        )
