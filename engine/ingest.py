"""The main path: how a chunk gets from an input to the table. Read this file first.

    agree ──► open the run ──► for each chunk: prepare ──► decide ──► commit ──► close the books
    columns,  new, or going    source.py       IDs and     new or     rows,      the ledger's sums must
    contract  on where a       yields it       rejects     known?     rejects,   equal this run's own
              killed one                                              receipt
              stopped

Three chunks are on their way at a time: one is read and prepared in a thread, one is decided, one is committed in a
thread. The database, DuckDB and the hash work side by side, and memory holds no more than these three. Counters move
only when a commit has returned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.agreement import Agreement, agree, agree_on_input
from headrace.ahead import ahead
from headrace.config import LoadOptions, hash_key
from headrace.errors import BooksError, HeadraceError, InputError, Interrupted
from headrace.known import KnownIds, Verdict
from headrace.ledger import OpenRun, open_run
from headrace.partitioning.dedup import id_order
from headrace.partitioning.identity import ids_to_arrow
from headrace.prepare import Prepared, prepare
from headrace.progress import Progress, Quiet
from headrace.report import Report
from headrace.scratch import scratch_folder
from headrace.source import Input
from headrace.storage.base import (
    EVENT_ID,
    PROVIDER,
    Committed,
    Counts,
    Receipt,
    Reject,
    RunRecord,
    RunStatus,
    Slice,
    Store,
)

__all__ = ["ingest"]


def ingest(
    store: Store,
    inputs: Sequence[Input],
    table: str,
    options: LoadOptions,
    *,
    progress: Progress | None = None,
    stop: Event | None = None,
    replayed: Sequence[int] = (),
) -> Report:
    """Load `inputs` into `table`, each event once; returns the balanced books.

    Setting `stop` asks for an end after the chunk in hand, which raises `Interrupted`; the same call later resumes.
    `replayed` are the rejects that this load settles, marked together with its first chunk. Raises `HeadraceError`.
    """
    began = time.monotonic()
    agreement = agree(store, table, inputs, options)
    opened = open_run(store, agreement, inputs, options)
    run = _Run(store, agreement, opened, options, progress or Quiet(), stop or Event(), list(replayed))
    try:
        run.load(inputs)
    except BaseException as error:
        _record_failure(store, opened, error, time.monotonic() - began)
        raise
    seconds = time.monotonic() - began
    finished = store.finish_run(opened.run_id, status="done", seconds=seconds)
    _check_books(run.counts, finished)
    return run.report(seconds)


class _Run:
    """One run between the agreement and the closing of its books."""

    def __init__(  # what a run is made of, handed over once
        self,
        store: Store,
        agreement: Agreement,
        opened: OpenRun,
        options: LoadOptions,
        progress: Progress,
        stop: Event,
        replayed: list[int],
    ) -> None:
        self._store = store
        self._agreement = agreement
        self._opened = opened
        self._options = options
        self._progress = progress
        self._stop = stop
        self._replayed = replayed
        self._key = hash_key() if agreement.contract.hash == "blake2b" else None
        self._in_flight: Future[Committed] | None = None
        self.counts = Counts()
        self.chunks = 0
        self.skipped = 0
        self.retries = 0
        self.snapshot_ids = 0

    def load(self, inputs: Sequence[Input]) -> None:
        """Take every chunk of every input to the table, in input order."""
        with (
            scratch_folder() as folder,
            self._known(folder) as known,
            ThreadPoolExecutor(1, thread_name_prefix="headrace-commit") as writer,
            self._progress.over(inputs),
        ):
            for prepared in self._prepared(inputs):
                first = known.meet(prepared.ids)
                receipt = self._opened.receipts.get((prepared.address.source, prepared.address.first_row))
                if receipt is not None:
                    self._skip(prepared, receipt)
                else:
                    self._commit(writer, self._decide(prepared, known, first))
            self._drain()
            self.snapshot_ids = known.snapshot_ids

    def report(self, seconds: float) -> Report:
        """What the run did."""
        return Report(
            run_id=self._opened.run_id,
            database=self._store.url,
            table=self._agreement.table,
            provider=self._options.provider,
            mode="sequential",
            strategy="sequential",
            workers=1,
            chunks=self.chunks,
            chunks_skipped=self.skipped,
            read=self.counts.read,
            inserted=self.counts.inserted,
            duplicate_in_input=self.counts.duplicate_in_input,
            duplicate_in_store=self.counts.duplicate_in_store,
            rejected=self.counts.rejected,
            snapshot_ids=self.snapshot_ids,
            retries=self.retries,
            seconds=seconds,
        )

    # From input to prepared chunk -----------------------------------------------------------------------------

    def _prepared(self, inputs: Sequence[Input]) -> Iterator[Prepared]:
        for item in inputs:
            self._widen(item)
            for prepared in ahead(self._prepared_from(item)):
                if self._stop.is_set():
                    self._drain()
                    raise Interrupted(
                        f"stopped after {self.chunks} chunks", hint="run the same command again to resume"
                    )
                yield prepared

    def _prepared_from(self, item: Input) -> Iterator[Prepared]:
        for chunk in item.chunks(self._agreement.schema, self._options.read):
            prepared = prepare(chunk, self._agreement.contract, self._options.provider, self._key)
            yield replace(prepared, rejects=_located(item, prepared.rejects))

    def _widen(self, item: Input) -> None:
        if not set(item.columns()) <= set(self._agreement.schema.names):
            self._drain()
            self._agreement = agree_on_input(self._store, self._agreement, item, self._options)

    # From prepared chunk to slice -----------------------------------------------------------------------------

    def _decide(self, prepared: Prepared, known: KnownIds, first: NDArray[np.int64]) -> Slice:
        """Which events are new, sorted by ID, with the books as far as they are known before the database speaks."""
        times = None if prepared.times_us is None else prepared.times_us[first]
        if len(first) and known.needs_fetch(times):
            self._drain()
            known.fetch(times, self._opened.started)
        verdict = known.judge(prepared.ids, prepared.times_us, first)
        return Slice(
            run_id=self._opened.run_id,
            table=self._agreement.table,
            provider=self._options.provider,
            address=prepared.address,
            digest=prepared.digest,
            events=_events(prepared, verdict.new, self._options.provider),
            new_from_snapshot=verdict.certain,
            counts=_counts(prepared, verdict),
            rejects=prepared.rejects,
            replayed=self._replayed,
        )

    def _known(self, folder: Path) -> KnownIds:
        return KnownIds(
            self._store,
            self._agreement.table,
            self._agreement.contract,
            folder=folder,
            window=self._options.window,
            budget=self._options.snapshot_budget,
            empty=self._agreement.created,
        )

    # From slice to table --------------------------------------------------------------------------------------

    def _commit(self, writer: ThreadPoolExecutor, piece: Slice) -> None:
        self._drain()
        self._replayed = []
        self._in_flight = writer.submit(self._store.commit, piece)

    def _drain(self) -> None:
        """Wait for the commit in flight, and count what it did."""
        if self._in_flight is not None:
            committed = self._in_flight.result()
            self._in_flight = None
            self._count(committed.counts, skipped=committed.already_done)
            self.retries += committed.retries

    def _skip(self, prepared: Prepared, receipt: Receipt) -> None:
        """An earlier process of this run committed the chunk: its receipt has the counts."""
        if receipt.digest != prepared.digest:
            raise InputError(
                "the input is not what it was when this run began",
                where=str(prepared.address),
                hint="load it as a new run with --no-resume; events already loaded will be found again as duplicates",
            )
        self._count(receipt.counts, skipped=True)

    def _count(self, counts: Counts, *, skipped: bool) -> None:
        self.counts += counts
        self.chunks += 1
        self.skipped += skipped
        self._progress.advance(counts)


def _events(prepared: Prepared, new: NDArray[np.int64], provider: str) -> pa.RecordBatch:
    """The rows `new` sorted by ID (sorted inserts keep the index cheap and deadlocks away), ID and provider added."""
    rows = new[id_order(prepared.ids[new])]
    everything = len(rows) == len(prepared.ids) and bool((rows[:-1] < rows[1:]).all())
    events = prepared.events if everything else prepared.events.take(pa.array(rows))
    added = {EVENT_ID: ids_to_arrow(prepared.ids[rows]), PROVIDER: pa.repeat(provider, len(rows))}
    return pa.RecordBatch.from_arrays([*events.columns, *added.values()], names=[*events.schema.names, *added])


def _counts(prepared: Prepared, verdict: Verdict) -> Counts:
    return Counts(
        read=prepared.read,
        duplicate_in_input=verdict.duplicate_in_input,
        duplicate_in_store=verdict.duplicate_in_store,
        rejected=len(prepared.rejects),
    )


def _located(item: Input, rejects: Sequence[Reject]) -> list[Reject]:
    """The rejects with physical line and raw text, where the input has lines."""
    wanted = [reject.row for reject in rejects if reject.line is None and reject.row is not None]
    if not wanted:
        return list(rejects)
    places = item.locate(wanted)
    return [_placed(reject, places) for reject in rejects]


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


def _record_failure(store: Store, opened: OpenRun, error: BaseException, seconds: float) -> None:
    """Leave the reason in the ledger; what went wrong first matters more than whether this could be written."""
    stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
    status: RunStatus = "interrupted" if stopped else "failed"
    try:
        store.finish_run(opened.run_id, status=status, seconds=seconds, error=f"{type(error).__name__}: {error}")
    except HeadraceError as second:
        error.add_note(f"(the ledger could not be told: {second.what})")
