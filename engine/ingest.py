"""The main path: how a chunk gets from an input to the table. Read this file first.

    agree ──► open the run ──► read ──► prepare ──► micro-batch ──► slices ──► commit ──► close the books
    columns,  new, or going    source   event IDs,   first seen?     one for    rows,      the ledger's sums
    contract  on where a       yields   rejects      in snapshot?    each       alerts,    must equal this
              killed one       chunks                                partition  receipt    run's own
              stopped
              ───────────────────────── coordinator ──────────────────────────────────────────────────────
                                        workers                                 workers

Sequential mode is one partition on inline workers: a chunk is read and prepared in a thread, one is decided, one is
committed in a thread. In parallel mode the same orders go to a pool, and the next micro-batch is prepared while this
one commits. The coordinator alone knows which IDs were met and which exist, so that no two workers can disagree.
Counters move only when a commit has returned.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from threading import Event

import pyarrow as pa

from headrace.agreement import Agreement, agree, agree_on_input
from headrace.ahead import Allowance, ahead
from headrace.chunk import Chunk
from headrace.config import LoadOptions, hash_key
from headrace.errors import BooksError, HeadraceError, InputError, Interrupted
from headrace.flags import Decision, decide
from headrace.known import KnownIds
from headrace.ledger import OpenRun, open_run
from headrace.microbatch import MicroBatch
from headrace.orders import CommitOrder, Piece, PrepareOrder
from headrace.pool import Task, Workers
from headrace.prepare import Prepared
from headrace.progress import Progress, Quiet
from headrace.report import Report
from headrace.rules import Alerting
from headrace.session import Session
from headrace.shadow import Shadow
from headrace.source import Input
from headrace.stages import Listener, RunFacts, Stages
from headrace.storage.base import Committed, Counts, Receipt, Reject, RunRecord, RunStatus, Slice, Store
from headrace.storage.locks import lock_keys
from headrace.strategy import SEQUENTIAL, Shape, parallel_shape
from headrace.worker import alert_keys

__all__ = ["ingest"]

log = logging.getLogger("headrace.ingest")
# while the snapshot is fetched, this many chunks can be prepared
CHUNKS_AHEAD = 3
NO_EVENTS = pa.RecordBatch.from_arrays([], names=[])


def ingest(
    store: Store,
    inputs: Sequence[Input],
    table: str,
    options: LoadOptions,
    *,
    progress: Progress | None = None,
    stop: Event | None = None,
    replayed: Sequence[int] = (),
    session: Session | None = None,
    listener: Listener | None = None,
) -> Report:
    """Load `inputs` into `table`, each event once; returns the balanced books.

    Setting `stop` asks for an end after the chunks in hand, which raises `Interrupted`; the same call later resumes.
    `replayed` are the rejects that this load settles, marked together with its first slice. `session` is one that is
    open already, and `listener` hears what the run does, and the time that each stage takes. Raises `HeadraceError`.
    """
    began = time.monotonic()
    decision = decide(options.mode, options.provider, table)
    with ExitStack() as opened:
        session = session or opened.enter_context(Session(store, options.parallel))
        workers = _pool(session, options) if decision.mode == "parallel" else session.inline
        stages = Stages(listener)
        with stages.stage("agree"):
            agreement = agree(store, table, inputs, options)
            going = open_run(store, agreement, inputs, options, _shape(decision, options), workers.count)
        run = _Run(
            store, agreement, going, options, session, decision, progress or Quiet(), stop or Event(), stages=stages
        )
        try:
            stages.listener.began(run.facts(workers.count))
            run.load(inputs, workers, list(replayed))
        except BaseException as error:
            session.dismiss()
            session.forget()
            _record_failure(store, going, error, time.monotonic() - began)
            stages.failed(error)
            raise
        seconds = time.monotonic() - began
        finished = store.finish_run(going.run_id, status="done", seconds=seconds)
    _check_books(run.counts, finished)
    report = run.report(seconds)
    stages.listener.ended(report)
    return report


def _pool(session: Session, options: LoadOptions) -> Workers:
    """The pool, before anything is changed: what it cannot be sent is said now."""
    if options.parallel.executor is None:
        if options.enrichment is not None:
            options.enrichment.require_sendable()
        for rule in options.alerts:
            rule.require_sendable()
    return session.pool()


def _shape(decision: Decision, options: LoadOptions) -> Shape:
    if decision.mode == "sequential":
        return SEQUENTIAL
    how = options.parallel
    return parallel_shape(
        how.strategy,
        workers=how.workers,
        partitions=how.partitions,
        chunk_rows=options.read.chunk_rows,
        memory=how.memory,
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """A chunk that was read and given out to be prepared."""

    item: Input
    task: Task[Prepared]
    size: int


@dataclass(frozen=True, slots=True)
class _Flight:
    """A micro-batch whose slices are being committed, those that an earlier process did left out."""

    batch: MicroBatch
    size: int
    slices: Sequence[tuple[CommitOrder, Task[Committed]]]
    done: Counts
    alerts: int
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
        self._key = hash_key() if agreement.contract.hash == "blake2b" else None
        self._known: KnownIds = session.known(agreement, options)
        self._shadow = self._shadowed() if decision.shadow and going.shape == SEQUENTIAL else None
        self._in_flight: deque[_Flight] = deque()
        self._partition_rows = [0] * going.shape.partitions
        self.counts = Counts()
        self.chunks = 0
        self.skipped = 0
        self.retries = 0
        self.lock_seconds = 0.0
        self.alerts = 0

    def load(self, inputs: Sequence[Input], workers: Workers, replayed: list[int]) -> None:
        """Take every chunk of every input to the table, in input order."""
        self._workers = self._began_with = workers
        self._replayed = replayed
        self._allowance = Allowance(self._options.parallel.memory)
        with self._progress.over(inputs), closing(self._micro_batches(inputs)) as batches:
            try:
                for chunks, size in batches:
                    self._go_on()
                    with self._stages.stage("decide", rows=sum(chunk.read for chunk in chunks)):
                        batch = MicroBatch(chunks, self._known, self._shape.partitions)
                    self._dispatch(batch, size)
            finally:
                self._allowance.close()
                if self._shadow is not None:
                    self._shadow.close()
            self._drain()

    def facts(self, workers: int) -> RunFacts:
        """What a listener is told first."""
        return RunFacts(
            run_id=self._going.run_id,
            table=self._agreement.table,
            provider=self._options.provider,
            database=self._store.url,
            strategy=self._shape.strategy,
            workers=workers,
            decision=self._decision,
        )

    def report(self, seconds: float) -> Report:
        """What the run did."""
        sequential = self._shape == SEQUENTIAL
        busiest, every = max(self._partition_rows), sum(self._partition_rows)
        return Report(
            run_id=self._going.run_id,
            database=self._store.url,
            table=self._agreement.table,
            provider=self._options.provider,
            mode="sequential" if sequential else "parallel",
            strategy=self._shape.strategy,
            workers=self._began_with.count,
            partitions=self._shape.partitions,
            chunks=self.chunks,
            chunks_skipped=self.skipped,
            read=self.counts.read,
            inserted=self.counts.inserted,
            duplicate_in_input=self.counts.duplicate_in_input,
            duplicate_in_store=self.counts.duplicate_in_store,
            rejected=self.counts.rejected,
            alerts=self.alerts,
            snapshot_ids=self._known.snapshot_ids,
            retries=self.retries,
            lock_seconds=self.lock_seconds,
            skew=busiest * len(self._partition_rows) / every if every else 1.0,
            fell_back=self._began_with.fell_back,
            shadow=None if self._shadow is None else str(self._shadow),
            seconds=seconds,
            stages=self._stages.seconds(),
        )

    def _shadowed(self) -> Shadow:
        partitions = self._options.parallel.partitions or self._options.parallel.workers
        return Shadow(self._session.pool, self._known, partitions, self._session.folder, self._alert_keys)

    def _alert_keys(self, pieces: Sequence[Piece]) -> frozenset[str]:
        """What events raise, without writing it; unknown before the user's enrichment, which is not called twice."""
        alerting = self._alerting() if self._options.enrichment is None else None
        return alert_keys(alerting, pieces, self._options.provider)

    # From input to micro-batch --------------------------------------------------------------------------------

    def _micro_batches(self, inputs: Sequence[Input]) -> Generator[tuple[list[Prepared], int], None, None]:
        """Prepared chunks in input order, as many as commit together, and their bytes.

        Where one ends depends on the input alone, so that a resumed run finds the slices it left.
        """
        chunks: list[Prepared] = []
        rows = size = 0
        for read in self._read_ahead(inputs):
            self._allowance.claim()
            with self._stages.stage("wait.chunk"):
                prepared = read.task.result()
            self._stages.take(prepared.spans)
            prepared = _located(read.item, prepared)
            chunks.append(prepared)
            rows, size = rows + prepared.address.rows, size + read.size
            if rows >= self._shape.rows or size >= self._shape.bytes:
                yield chunks, size
                chunks, rows, size = [], 0, 0
        if chunks:
            yield chunks, size

    def _read_ahead(self, inputs: Sequence[Input]) -> Iterator[_Read]:
        """The chunks of all inputs; the table is widened between two inputs, while nothing is being read."""
        waiting = deque(inputs)
        while waiting:
            if not self._fits(waiting[0]):
                self._drain()
                self._agreement = agree_on_input(self._store, self._agreement, waiting[0], self._options)
            yield from ahead(self._read(waiting), CHUNKS_AHEAD if self._workers.count == 1 else self._workers.count + 1)

    def _read(self, waiting: deque[Input]) -> Iterator[_Read]:
        """The chunks of the inputs up to the first that brings columns which the table lacks. Runs in a thread."""
        while waiting and self._fits(waiting[0]):
            item = waiting.popleft()
            for chunk in self._stages.reading(item.chunks(self._columns_for(item), self._options.read)):
                with self._stages.stage("wait.memory"):
                    self._allowance.take(chunk.batch.nbytes)
                order = self._prepare_order(chunk)
                if self._shadow is not None:
                    self._shadow.offer(order)
                yield _Read(item, self._workers.prepare(order), chunk.batch.nbytes)

    def _fits(self, item: Input) -> bool:
        return set(item.columns()) <= set(self._agreement.schema.names)

    def _columns_for(self, item: Input) -> pa.Schema:
        """The table's columns; before an enrichment only the input's own, so that it can add the others again."""
        schema = self._agreement.schema
        if self._options.enrichment is None:
            return schema
        own = set(item.columns())
        return pa.schema([column for column in schema if column.name in own])

    def _prepare_order(self, chunk: Chunk) -> PrepareOrder:
        with self._stages.stage("spool", rows=chunk.address.rows):
            parcel = self._workers.pack(chunk.batch)
        return PrepareOrder(
            address=chunk.address,
            chunk=parcel,
            rows=chunk.rows,
            rejects=chunk.rejects,
            contract=self._agreement.contract,
            provider=self._options.provider,
            key=self._key,
        )

    # From micro-batch to slices -------------------------------------------------------------------------------

    def _dispatch(self, batch: MicroBatch, size: int) -> None:
        """Give out the slices that no receipt speaks of, and wait for older ones until there is room."""
        partitions = self._worth_committing(batch)
        receipts = {one: self._receipt(batch, one) for one in partitions}
        if to_judge := None in receipts.values() and self._shape.existing == "snapshot":
            self._fetch_for(batch)
            with self._stages.stage("decide"):
                batch.judge()
        if self._shadow is not None:
            self._shadow.compare(batch, judged=to_judge)
        open_slices = [self._commit_order(batch, one) for one in partitions if receipts[one] is None]
        done = [receipt for receipt in receipts.values() if receipt is not None]
        flight = _Flight(
            batch,
            size,
            [(order, self._workers.commit(order)) for order in open_slices],
            sum((receipt.counts for receipt in done), Counts()),
            sum(receipt.alerts for receipt in done),
            skipped=bool(partitions) and not open_slices,
        )
        self._in_flight.append(flight)
        for one in range(self._shape.partitions):
            self._partition_rows[one] += batch.rows(one)
        while len(self._in_flight) > self._most_in_flight():
            self._land()

    def _worth_committing(self, batch: MicroBatch) -> list[int]:
        """The partitions that have rows. A batch without any still leaves a receipt, for the rows it has read."""
        partitions = [one for one in range(self._shape.partitions) if batch.rows(one) or batch.rejects(one)]
        return partitions or [0]

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

    def _receipt(self, batch: MicroBatch, partition: int) -> Receipt | None:
        """What an earlier process of this run left, if it committed the slice."""
        address = batch.address
        receipt = self._going.receipts.get((address.source, address.first_row, partition))
        if receipt is not None and receipt.digest != batch.digest(partition):
            raise InputError(
                "the input is not what it was when this run began",
                where=str(address),
                hint="load it as a new run with --no-resume; events already loaded will be found again as duplicates",
            )
        return receipt

    def _commit_order(self, batch: MicroBatch, partition: int) -> CommitOrder:
        how = self._options.parallel
        locked = self._shape.strategy == "locked"
        existing = self._shape.existing
        piece = Slice(
            run_id=self._going.run_id,
            table=self._agreement.table,
            provider=self._options.provider,
            address=batch.address,
            spans=batch.spans,
            partition=partition,
            digest=batch.digest(partition),
            events=NO_EVENTS,
            existing="conflict" if existing == "snapshot" and not batch.certain else existing,
            counts=batch.counts(partition),
            rejects=batch.rejects(partition),
            replayed=self._replayed,
            locks=lock_keys(self._agreement.table, partition, self._shape.partitions) if locked else (),
            lock_timeout=how.lock_timeout,
        )
        self._replayed = []
        pieces = batch.pieces(partition)
        locks = how.locks if locked else None
        return CommitOrder(piece, pieces, self._options.to, self._options.enrichment, locks, self._alerting())

    def _alerting(self) -> Alerting | None:
        rules = self._options.alerts
        return Alerting(rules, self._agreement.schema, self._options.on_error) if rules else None

    # From slices to books -------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Wait for every commit in flight, and count what it did."""
        while self._in_flight:
            self._land()

    def _land(self) -> None:
        """Wait for the oldest micro-batch in flight, and count it."""
        flight = self._in_flight.popleft()
        counts = flight.done
        for order, task in flight.slices:
            with self._stages.stage("wait.commit"):
                committed = task.result()
            self._stages.take(committed.spans)
            self._stages.listener.committed(order.slice, committed)
            counts += committed.counts
            self.retries += committed.retries
            self.lock_seconds += committed.lock_seconds
            self.alerts += committed.alerts
            if self._session.keep and committed.counts.rejected == order.slice.counts.rejected:
                for piece in order.pieces:
                    self._known.remember(piece.ids)
        self._stages.land(flight.batch)
        flight.batch.discard()
        self._allowance.give_back(flight.size)
        self.counts += counts
        self.alerts += flight.alerts
        self.chunks += len(flight.batch.chunks)
        self.skipped += len(flight.batch.chunks) if flight.skipped else 0
        self._progress.advance(counts, len(flight.batch.chunks))

    def _go_on(self) -> None:
        """Between two micro-batches: stop, or go on sequentially, if that was asked for."""
        if self._stop.is_set():
            self._drain()
            raise Interrupted(f"stopped after {self.chunks} chunks", hint="run the same command again to resume")
        if self._workers is self._session.inline or self._decision.source == "argument":
            return
        if decide(self._options.mode, self._options.provider, self._agreement.table).mode == "sequential":
            log.warning("the feature flag was turned off: the rest of run %s is sequential", self._going.run_id)
            self._drain()
            self._workers = self._session.inline


def _located(item: Input, prepared: Prepared) -> Prepared:
    """The chunk with the physical line and raw text of its rejects, where the input has lines."""
    wanted = [reject.row for reject in prepared.rejects if reject.line is None and reject.row is not None]
    if not wanted:
        return prepared
    places = item.locate(wanted)
    return replace(prepared, rejects=[_placed(reject, places) for reject in prepared.rejects])


def _placed(reject: Reject, places: dict[int, tuple[int | None, str | None]]) -> Reject:
    if reject.line is not None or reject.row is None or reject.row not in places:
        return reject
    line, raw = places[reject.row]
    return replace(reject, line=line, raw=reject.raw if raw is None else raw)


def _check_books(counts: Counts, finished: RunRecord) -> None:
    if not counts.balanced or counts != finished.counts:
        raise BooksError(
            f"the books do not balance: this run counted {counts}, its receipts sum to {finished.counts}",
            where=f"run {finished.run_id}",
            hint="this is a defect in Headrace; `headrace verify` with the same arguments says what is in the table",
        )


def _record_failure(store: Store, going: OpenRun, error: BaseException, seconds: float) -> None:
    """Leave the reason in the ledger; what went wrong first matters more than whether this could be written."""
    stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
    status: RunStatus = "interrupted" if stopped else "failed"
    try:
        store.finish_run(going.run_id, status=status, seconds=seconds, error=f"{type(error).__name__}: {error}")
    except HeadraceError as second:
        error.add_note(f"(the ledger could not be told: {second.what})")
