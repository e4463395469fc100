"""The coordinator of one run: takes every chunk of every input to the table, in input order.

It alone knows which IDs were met and which exist, so that no two workers can disagree.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing

from headrace.errors import HeadraceError, Interrupted, StaleReceiptsError
from headrace.events.revisions import locate_revisions
from headrace.execution.workers import Workers
from headrace.loading.agreement import Agreement, agree_on_input
from headrace.loading.close_run import close, record_failure
from headrace.loading.commits import Commits
from headrace.loading.decisions import Decisions
from headrace.loading.intake import Intake
from headrace.loading.met_chunk import MetChunk
from headrace.loading.proof import Proof
from headrace.loading.run_context import RunContext
from headrace.loading.slicing import Slicing
from headrace.options.flag import decide
from headrace.reading.inputs import Input
from headrace.report import Report

__all__ = ["Coordinator"]

log = logging.getLogger("headrace.ingest")


class Coordinator:
    """The run between the agreement and the closing of its books."""

    def __init__(self, run: RunContext, workers: Workers) -> None:
        self._run = run
        self._began_with = workers
        self._known = run.session.known(run.agreement, run.options)
        self._proof = Proof(run.store, run.agreement, run.session.folder, run.stages, wanted=run.options.prove)
        self._slicing = Slicing(run.going, run.options, run.replayed)
        self._decisions = Decisions(run, self._known)
        self._intake = Intake(
            run.going.run_id,
            run.agreement,
            run.options,
            run.going.shape,
            workers,
            run.stages,
            widen=self._widen,
            offer=self._decisions.offer,
        )
        self._commits = Commits(run, workers, self._intake, self._known, self._proof)

    def carried_out(self, inputs: Sequence[Input], began: float) -> Report:
        """Load everything into the table, and close the books; `began` is the start of the command."""
        run = self._run
        self._load(inputs)
        self._slicing.require_all_matched()
        proved = self._proof.carried_out(self._known, run.going, [item.name for item in inputs])
        books = self._commits.books
        seconds = time.monotonic() - began
        close(run.store, run.going, books.counts, self._commits.confirmed, seconds)
        shadow, sample = self._decisions.shadow, self._decisions.sample
        return books.report(run, self._began_with, seconds, proved, self._known.snapshot_ids, shadow, sample)

    def end_with(self, error: BaseException, seconds: float) -> None:
        """End the commits in flight, and record the reason in the ledger."""
        run = self._run
        if isinstance(error, StaleReceiptsError):
            self._commits.wait_out()
        if isinstance(error, HeadraceError):
            error.run_id = run.going.run_id
        run.session.dismiss()
        record_failure(run.store, run.going, error, seconds)

    def _load(self, inputs: Sequence[Input]) -> None:
        run = self._run
        with run.progress.over(inputs), closing(self._intake.prepared(inputs)) as prepared:
            try:
                for each in prepared:
                    self._go_on()
                    with run.stages.stage("decide", rows=each.read, about=each.address):
                        chunk = MetChunk(each, self._known, run.going.shape.partitions)
                        self._proof.meet(chunk)
                    self._dispatch(chunk)
            finally:
                self._intake.close()
                self._decisions.close()
            self._commits.drain()
        if self._commits.books.counts.revised:
            locate_revisions(run.store, run.going.run_id, inputs)

    def _dispatch(self, chunk: MetChunk) -> None:
        """Decide which rows are new, and give out the slices that no receipt speaks of."""
        receipts = self._slicing.receipts(chunk)
        self._decisions.decide(chunk, receipts, self._commits)
        open_ = [partition for partition, receipt in receipts.items() if receipt is None]
        orders = [self._slicing.order(chunk, partition, self._run.agreement) for partition in open_]
        self._commits.give(chunk, orders, [receipt for receipt in receipts.values() if receipt is not None])

    def _widen(self, item: Input) -> Agreement:
        """Give the table the columns of `item`, once everything before it is in."""
        self._commits.drain()
        self._run.agreement = agree_on_input(self._run.store, self._run.agreement, item, self._run.options)
        return self._run.agreement

    def _go_on(self) -> None:
        """Between two chunks: stop, or go on sequentially, if that was asked for."""
        run, commits, inline = self._run, self._commits, self._run.session.inline
        if run.stop.is_set():
            commits.drain()
            raise Interrupted(
                f"stopped after {commits.books.chunks} chunks", hint="run the same command again to resume"
            )
        if commits.workers is inline or run.decision.source == "argument":
            return
        if decide(run.options.mode, run.options.provider, run.agreement.table).mode == "sequential":
            log.warning("the feature flag was turned off: the rest of run %s is sequential", run.going.run_id)
            commits.drain()
            commits.workers = self._intake.workers = inline
