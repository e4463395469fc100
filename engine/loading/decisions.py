"""Which rows of a chunk are new, before anything of it is written.

slices without a receipt ──► the snapshot covers them? ──► in the snapshot?
slices with a receipt    ──► their events are in the table? ──► skipped
rows that repeat a refused event ──► tried in their turn
some duplicates ──► have they the values of the row that they repeat?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.execution.orders import ChunkRows, PrepareOrder
from headrace.execution.tasks import alert_keys
from headrace.loading.commits import Commits
from headrace.loading.duplicates import DuplicateSample
from headrace.loading.known_ids import KnownIds
from headrace.loading.met_chunk import MetChunk
from headrace.loading.run_context import RunContext
from headrace.loading.shadow import Shadow
from headrace.loading.skipped_slices import SkippedSlices
from headrace.loading.slicing import alerting, may_reject
from headrace.options.shape import SEQUENTIAL
from headrace.storage.records import Receipt

__all__ = ["Decisions"]


class Decisions:
    """The decisions of a run over its chunks, in input order. In shadow mode the parallel result is compared.

    The store is asked only while nothing is being committed.
    """

    def __init__(self, run: RunContext, known: KnownIds) -> None:
        self.sample = DuplicateSample(run.session.look_ups)
        self.shadow = self._shadowed(run, known) if run.decision.shadow and run.going.shape == SEQUENTIAL else None
        self._run = run
        self._known = known
        self._skipped_slices = SkippedSlices(run.store, run.going)

    def offer(self, order: PrepareOrder) -> None:
        """Let the shadow prepare a chunk too."""
        if self.shadow is not None:
            self.shadow.offer(order)

    def decide(self, chunk: MetChunk, receipts: Mapping[int, Receipt | None], commits: Commits) -> None:
        """Judge the rows of `chunk`, whose partitions have these `receipts` of an earlier process.

        Raises `StaleReceiptsError` if a receipt speaks of events that are no longer in the table.
        """
        run, open_ = self._run, None in receipts.values()
        done = [receipt for receipt in receipts.values() if receipt is not None]
        to_judge = open_ and run.going.shape.existing == "snapshot"
        if to_judge or done:
            self._fetch_for(chunk, commits)
        if done:
            self._prove(chunk, done, commits)
        if to_judge:
            with run.stages.stage("decide", about=chunk.address):
                chunk.judge()
        if self.shadow is not None:
            self.shadow.compare(chunk, judged=to_judge)
        if run.options.revisions != "ignore" and chunk.anything_again:
            commits.drain()  # what a row repeats must be in the table when the row is compared with it
        self._give_chances(chunk, receipts, commits, to_judge=to_judge)
        if open_ and run.options.revisions == "ignore":
            self.sample.look(chunk, run.agreement, run.options.provider, run.store, commits.drain)

    def close(self) -> None:
        """Drop what the shadow keeps."""
        if self.shadow is not None:
            self.shadow.close()

    def _fetch_for(self, chunk: MetChunk, commits: Commits) -> None:
        """Make the snapshot cover the chunk, as far as it can; nothing else may speak to the store meanwhile."""
        run, known, times = self._run, self._known, chunk.times_us
        if chunk.first.any() and known.needs_fetch(times):
            commits.drain()
            with run.stages.stage("snapshot") as stage:
                before = known.snapshot_ids
                known.fetch(times, run.going.started)
                stage.rows = known.snapshot_ids - before
        if len(believed := chunk.believed()):
            commits.drain()
            with run.stages.stage("snapshot", rows=len(believed)):
                if not known.confirm(believed, times, run.going.started):
                    # events are gone under their IDs: they may not be in the table under others
                    agreed, same_ids = run.agreement, run.session.same_ids
                    same_ids.forget()
                    same_ids.require(run.store, agreed.table, agreed.contract, agreed.schema, run.options)

    def _prove(self, chunk: MetChunk, done: Sequence[Receipt], commits: Commits) -> None:
        """That what an earlier process has committed is in the table: nothing is skipped on a receipt's word alone."""
        commits.drain()
        with self._run.stages.stage("snapshot", about=chunk.address):
            rejected = self._skipped_slices.require_there(chunk, done, self._known)
        self._known.refuse(rejected.tobytes())

    def _give_chances(
        self, chunk: MetChunk, receipts: Mapping[int, Receipt | None], commits: Commits, *, to_judge: bool
    ) -> None:
        """Let rows of the chunk be tried that repeat a refused event."""
        if may_reject(self._run.options) and chunk.anything_before:
            commits.drain()  # what they repeat may be refused just now
        if not chunk.reconsider():
            return
        if to_judge:
            self._fetch_for(chunk, commits)
            chunk.judge()
        for partition, receipt in receipts.items():
            if receipt is not None and receipt.counts.rejected > len(chunk.rejects(partition)):
                commits.drain()  # an earlier process has tried these, and may have refused them again
                ids = chunk.first_events(partition)
                self._known.refuse(ids[~self._known.held(ids)].tobytes())

    @staticmethod
    def _shadowed(run: RunContext, known: KnownIds) -> Shadow:
        parallel, session = run.options.parallel, run.session

        def keys(new: ChunkRows | None) -> frozenset[str]:
            # without writing it; unknown before the user's enrichment, which is not called twice
            rules = alerting(run.options, run.agreement) if run.options.enrichment is None else None
            return alert_keys(rules, new, run.options.provider)

        return Shadow(session.pool, known, parallel.partitions or parallel.workers, session.folder, keys)
