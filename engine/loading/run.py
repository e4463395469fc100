"""The main path of a chunk from an input to the table. Read this file first.

    agree ──► open the run ──► read ──► prepare ──► micro-batch ──► slices ──► commit ──► close the books
    columns,  new, or going    source   event IDs,   first seen?     one for    rows,      the ledger's sums
    contract  on where a       yields   rejects      in snapshot?    each       alerts,    must equal this
              killed one       chunks                                partition  receipt    run's own
              stopped             (workers)                                         (workers)

Sequential mode is one partition on inline workers: a chunk is read and prepared in a thread, one is decided, one is
committed in a thread. In parallel mode the same orders go to a pool, and the next micro-batch is prepared while this
one commits. The coordinator alone knows which IDs were met and which exist, so that no two workers can disagree.
Counters move only when a commit has returned.

Where a chunk passes, in order: `reading.inputs` (rows), `intake` (read ahead, gathered), `execution.tasks` and
`events.prepare` (event IDs), `micro_batch` and `known_ids` (first seen? in the snapshot?), `slicing` (orders),
`execution.workers` and `execution.pool` (who carries them out), `execution.tasks` again (enrichment, alert rules),
`storage.sql.commit` (the transaction), `close_run` (the books).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from threading import Event

from headrace.errors import HeadraceError, Interrupted, StaleReceiptsError
from headrace.events.revisions import locate_revisions
from headrace.execution.orders import ChunkRows, CommitOrder, PrepareOrder
from headrace.execution.tasks import alert_keys
from headrace.execution.workers import Done, Task, Workers
from headrace.loading.agreement import Agreement, agree, agree_on_input
from headrace.loading.books import Books, Ran
from headrace.loading.close_run import Confirmed, close, record_failure
from headrace.loading.duplicates import DuplicateSample
from headrace.loading.intake import Intake
from headrace.loading.known_ids import KnownIds
from headrace.loading.micro_batch import MicroBatch
from headrace.loading.open_run import OpenRun, Superseded, open_run
from headrace.loading.proof import Proof
from headrace.loading.session import Session, possible, shape_for
from headrace.loading.shadow import Shadow
from headrace.loading.skipped_slices import SkippedSlices
from headrace.loading.slicing import Slicing, alerting, may_reject
from headrace.observability.observers import audience
from headrace.observability.progress import Progress, Quiet
from headrace.observability.stages import Listener, PoolHealth, RunFacts, Stages
from headrace.options.flag import Decision, decide
from headrace.options.load import LoadOptions
from headrace.options.shape import SEQUENTIAL
from headrace.reading.inputs import Input
from headrace.report import Report
from headrace.runtime.worker_logs import about
from headrace.storage.records import Committed, Receipt
from headrace.storage.rejects import StoredReject
from headrace.storage.store import Store

__all__ = ["ingest"]

log = logging.getLogger("headrace.ingest")


def ingest(
    store: Store,
    inputs: Sequence[Input],
    table: str,
    options: LoadOptions,
    *,
    progress: Progress | None = None,
    stop: Event | None = None,
    replayed: Mapping[int, StoredReject] | None = None,
    session: Session | None = None,
    listener: Listener | None = None,
) -> Report:
    """Load `inputs` into `table`, each event once; returns the balanced books.

    Setting `stop` requests an end after the current chunks, which raises `Interrupted`; the same call later resumes.
    `replayed` are the rejects whose rows these are, by row number: each is settled by the slice that carries its row.
    `session` is an open session, and `listener` is called with the run's progress and the time of each stage.
    Raises `HeadraceError`.
    """
    began = time.monotonic()
    decision = possible(decide(options.mode, options.provider, table), store)
    with ExitStack() as opened:
        session = session or opened.enter_context(Session(store, options.parallel))
        stages = Stages(audience(listener))
        stop, progress = stop or Event(), progress or Quiet()
        given_up: Superseded | None = None
        notes: tuple[str, ...] = ()
        while True:
            workers, shape = session.workers(decision, options), shape_for(decision, options)
            with stages.stage("agree"):
                agreement = agree(store, table, inputs, options, same_ids=session.same_ids)
                going = open_run(store, agreement, inputs, options, shape, workers.count, given_up=given_up)
            notes += going.notes
            run = _Run(store, agreement, going, options, session, decision, progress, stop, stages=stages)
            with about(run=going.run_id, provider=options.provider, table=table), stages.telling_failure():
                stages.listener.began(run.facts(workers.health()))
                try:
                    report = run.carried_out(inputs, workers, replayed or {}, began)
                except BaseException as error:
                    session.forget()
                    run.end_with(error, time.monotonic() - began)
                    if not isinstance(error, StaleReceiptsError) or going.job is None:
                        raise
                    given_up = Superseded.by(store, going, error, given_up)
                    notes += (str(given_up),)
                    log.warning("%s", given_up)
                    stages.tell()
                    stages.listener.failed(error)
                else:
                    stages.listener.ended(report := replace(report, notes=notes))
                    return report if given_up is None else given_up.added_to(report)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A micro-batch whose slices are being committed, except those that an earlier process committed."""

    batch: MicroBatch
    size: int
    slices: Sequence[tuple[CommitOrder, Task[Committed]]]
    done: Sequence[Receipt]
    skipped: bool


class _Run:
    """One run between the agreement and the closing of its books."""

    def __init__(  # what a run is made of, handed over once
        self,
        store: Store,
        agreement: Agreement,
        going: OpenRun,
        options: LoadOptions,
        session: Session,
        decision: Decision,
        progress: Progress,
        stop: Event,
        *,
        stages: Stages,
    ) -> None:
        self._store = store
        self._agreement = agreement
        self._going = going
        self._shape = going.shape
        self._options = options
        self._session = session
        self._decision = decision
        self._progress = progress
        self._stop = stop
        self._stages = stages
        self._slicing = Slicing(going, options)
        self._skipped_slices = SkippedSlices(store, going)
        self._known: KnownIds = session.known(agreement, options)
        self._shadow = self._shadowed() if decision.shadow and going.shape == SEQUENTIAL else None
        self._in_flight: deque[_Flight] = deque()
        self._books = Books(going.shape.partitions)
        self._confirmed = Confirmed()
        self._proof = Proof(store, agreement, session.folder, stages, wanted=options.prove)
        self._types_are_settled = False
        self._sample = DuplicateSample(session.look_ups)

    def carried_out(
        self, inputs: Sequence[Input], workers: Workers, replayed: Mapping[int, StoredReject], began: float
    ) -> Report:
        """Load everything into the table, and close the books; `began` is the start of the command."""
        self._load(inputs, workers, replayed)
        self._slicing.require_all_matched()
        proved = self._proof.carried_out(self._known, self._going, [item.name for item in inputs])
        seconds = time.monotonic() - began
        close(self._store, self._going, self._books.counts, self._confirmed, seconds)
        return self._report(seconds, proved)

    def end_with(self, error: BaseException, seconds: float) -> None:
        """End the commits in flight, and record the reason in the ledger."""
        if isinstance(error, StaleReceiptsError):
            for flight in self._in_flight:  # what is on its way is of use to the run that does this one again
                for _, task in flight.slices:
                    with suppress(HeadraceError):
                        task.result()
        if isinstance(error, HeadraceError):
            error.run_id = self._going.run_id
        self._session.dismiss()
        record_failure(self._store, self._going, error, seconds)

    def _load(self, inputs: Sequence[Input], workers: Workers, replayed: Mapping[int, StoredReject]) -> None:
        """Take every chunk of every input to the table, in input order."""
        self._workers = self._began_with = workers
        self._replayed = replayed
        self._intake = Intake(
            self._going.run_id,
            self._agreement,
            self._options,
            self._shape,
            workers,
            self._stages,
            widen=self._widen,
            offer=self._offer_to_shadow,
        )
        with self._progress.over(inputs), closing(self._intake.micro_batches(inputs)) as batches:
            try:
                for chunks, size in batches:
                    self._go_on()
                    rows = sum(chunk.read for chunk in chunks)
                    with self._stages.stage("decide", rows=rows, about=chunks[0].address):
                        batch = MicroBatch(chunks, self._known, self._shape.partitions)
                        self._proof.meet(batch)
                    self._dispatch(batch, size)
            finally:
                self._intake.close()
                if self._shadow is not None:
                    self._shadow.close()
            self._drain()
        if self._books.counts.revised:
            locate_revisions(self._store, self._going.run_id, inputs)

    def facts(self, health: PoolHealth) -> RunFacts:
        """What a listener is told first."""
        return RunFacts(
            run_id=self._going.run_id,
            table=self._agreement.table,
            provider=self._options.provider,
            database=self._store.url,
            strategy=self._shape.strategy,
            pool=health,
            decision=self._decision,
            started=self._stages.started,
        )

    def _report(self, seconds: float, proved: int | None) -> Report:
        """What the run did."""
        ran = Ran(
            run_id=self._going.run_id,
            database=self._store.url,
            table=self._agreement.table,
            provider=self._options.provider,
            shape=self._shape,
            workers=self._began_with.count,
            fell_back=self._began_with.fell_back,
            shadow=None if self._shadow is None else str(self._shadow),
            snapshot_ids=self._known.snapshot_ids,
        )
        return self._books.report(ran, seconds, self._stages.seconds(), proved, self._sample.told())

    def _shadowed(self) -> Shadow:
        partitions = self._options.parallel.partitions or self._options.parallel.workers
        return Shadow(self._session.pool, self._known, partitions, self._session.folder, self._alert_keys)

    def _alert_keys(self, pieces: Sequence[ChunkRows]) -> frozenset[str]:
        """What events raise, without writing it; unknown before the user's enrichment, which is not called twice."""
        rules = alerting(self._options, self._agreement) if self._options.enrichment is None else None
        return alert_keys(rules, pieces, self._options.provider)

    def _offer_to_shadow(self, order: PrepareOrder) -> None:
        if self._shadow is not None:
            self._shadow.offer(order)

    def _widen(self, item: Input) -> Agreement:
        """Give the table the columns of `item`, once everything before it is in."""
        self._drain()
        self._agreement = agree_on_input(self._store, self._agreement, item, self._options)
        return self._agreement

    # From micro-batch to slices -------------------------------------------------------------------------------

    def _dispatch(self, batch: MicroBatch, size: int) -> None:
        """Give out the slices that no receipt speaks of, and wait for older ones until there is room."""
        partitions = self._slicing.partitions(batch)
        receipts = {one: self._slicing.receipt(batch, one) for one in partitions}
        done = [receipt for receipt in receipts.values() if receipt is not None]
        to_judge = len(done) < len(partitions) and self._shape.existing == "snapshot"
        if to_judge or done:
            self._fetch_for(batch)
        if done:
            self._prove(batch, done)
        if to_judge:
            with self._stages.stage("decide", about=batch.address):
                batch.judge()
        if self._shadow is not None:
            self._shadow.compare(batch, judged=to_judge)
        if self._options.revisions != "ignore" and batch.anything_again:
            self._drain()  # what a row repeats must be in the table when the row is compared with it
        self._give_chances(batch, receipts, to_judge=to_judge)
        if None in receipts.values() and self._options.revisions == "ignore":
            self._sample.look(batch, self._agreement, self._options.provider, self._store, self._drain)
        open_slices = [self._order(batch, one) for one in partitions if receipts[one] is None]
        flight = _Flight(
            batch,
            size,
            [(order, self._given_out(order)) for order in open_slices],
            done,
            skipped=bool(partitions) and not open_slices,
        )
        self._in_flight.append(flight)
        self._books.dispatched(batch)
        while len(self._in_flight) > self._most_in_flight():
            self._land()

    def _give_chances(self, batch: MicroBatch, receipts: Mapping[int, Receipt | None], *, to_judge: bool) -> None:
        """Let rows of the batch be tried that repeat a refused event."""
        if may_reject(self._options) and batch.anything_before:
            self._drain()  # what they repeat may be refused just now
        if not batch.reconsider():
            return
        if to_judge:
            self._fetch_for(batch)
            batch.judge()
        for partition, receipt in receipts.items():
            if receipt is not None and receipt.counts.rejected > len(batch.rejects(partition)):
                self._drain()  # an earlier process has tried these, and may have refused them again
                ids = batch.first_events(partition)
                self._known.refuse(ids[~self._known.held(ids)].tobytes())

    def _given_out(self, order: CommitOrder) -> Task[Committed]:
        """The first slice with events is waited for where they are enriched: it settles the new columns' types."""
        task = self._workers.commit(order)
        if self._options.enrichment is None or self._types_are_settled or not order.pieces:
            return task
        self._types_are_settled = True
        return Done(task.result())

    def _order(self, batch: MicroBatch, partition: int) -> CommitOrder:
        """The order to commit one partition, with the rejects whose rows it carries, where some are replayed."""
        carried = batch.numbers(partition) if self._replayed else ()
        replayed = {number: self._replayed[number] for number in carried}
        return self._slicing.order(batch, partition, self._agreement, replayed)

    def _most_in_flight(self) -> int:
        """Micro-batches: enough to keep all workers at it, and one being decided."""
        return 1 if self._workers.count == 1 else max(1, -(-self._workers.count // self._shape.partitions))

    def _fetch_for(self, batch: MicroBatch) -> None:
        """Make the snapshot cover the batch, as far as it can; nothing else may speak to the store meanwhile."""
        times = batch.first_times()
        if batch.anything_first and self._known.needs_fetch(times):
            self._drain()
            with self._stages.stage("snapshot") as stage:
                before = self._known.snapshot_ids
                self._known.fetch(times, self._going.started)
                stage.rows = self._known.snapshot_ids - before
        if len(believed := batch.believed()):
            self._drain()
            with self._stages.stage("snapshot", rows=len(believed)):
                if not self._known.confirm(believed, times, self._going.started):
                    # some are gone under their IDs: they may not be in the table under others
                    agreed, checked = self._agreement, self._session.same_ids
                    checked.forget()
                    checked.require(self._store, agreed.table, agreed.contract, agreed.schema, self._options)

    def _prove(self, batch: MicroBatch, done: Sequence[Receipt]) -> None:
        """That what an earlier process has committed is in the table: nothing is skipped on a receipt's word alone."""
        self._drain()
        with self._stages.stage("snapshot", about=batch.address):
            rejected = self._skipped_slices.require_there(batch, done, self._known)
        self._known.refuse(rejected.tobytes())

    # From slices to books -------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Wait for every commit in flight, and count what it did."""
        while self._in_flight:
            self._land()

    def _land(self) -> None:
        """Wait for the oldest micro-batch in flight, and count it."""
        flight = self._in_flight.popleft()
        counts = self._books.skipped(flight.done)
        for order, task in flight.slices:
            with self._stages.stage("wait.commit"):
                committed = task.result()
            self._stages.take(committed.spans)
            self._confirmed.add(order.slice, committed)
            self._proof.hear(committed)
            self._stages.listener.committed(order.slice, committed)
            counts += self._books.committed(committed)
            self._known.refuse(committed.refused)
            if self._session.keep and committed.counts.rejected == order.slice.counts.rejected:
                for piece in order.pieces:
                    self._known.remember(piece.ids)
        self._stages.land(lambda: flight.batch.newest_us, self._workers.health)
        flight.batch.discard()
        self._intake.landed(flight.size)
        self._books.landed(counts, len(flight.batch.chunks), skipped=flight.skipped)
        self._progress.advance(counts, len(flight.batch.chunks))

    def _go_on(self) -> None:
        """Between two micro-batches: stop, or go on sequentially, if that was asked for."""
        if self._stop.is_set():
            self._drain()
            raise Interrupted(f"stopped after {self._books.chunks} chunks", hint="run the same command again to resume")
        if self._workers is self._session.inline or self._decision.source == "argument":
            return
        if decide(self._options.mode, self._options.provider, self._agreement.table).mode == "sequential":
            log.warning("the feature flag was turned off: the rest of run %s is sequential", self._going.run_id)
            self._drain()
            self._workers = self._intake.workers = self._session.inline
