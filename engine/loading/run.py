"""The main path of a chunk from an input to the table. Read this file first.

    agree ──► open the run ──► read ──► prepare ──► decide ──────────► slices ──► commit ──► close the books
    columns,  new, or going    source   event IDs,  first seen?        one, or    rows,      the ledger's sums
    contract  on where a       yields   rejects     in the snapshot?   by locked  alerts,    must equal this
              killed one       chunks                                  partition  receipt    run's own
              stopped                   (workers)                                 (workers)

Sequential mode has inline workers: a chunk is read and prepared in a thread, another is decided, another is committed
in a thread. In parallel mode the same orders go to a pool, whose workers also read the files that can be cut
(`reading.ranges`). Counters move only when a commit has returned.

This module opens a run and ends it; its `coordinator` takes the chunks through. Where a chunk passes, in order:
`reading.inputs` (rows), `intake` (read ahead, gathered), `execution.tasks`, `execution.range_task` and `events.prepare`
(event IDs), `met_chunk`, `decisions` and `known_ids` (first seen? in the snapshot?), `slicing` (orders), `commits`,
`execution.workers` and `execution.pool` (who carries them out), `execution.tasks` again (enrichment, alert rules),
`storage.sql.commit` (the transaction), `books` and `close_run` (the sums).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from threading import Event

from headrace.errors import StaleReceiptsError
from headrace.loading.agreement import agree
from headrace.loading.coordinator import Coordinator
from headrace.loading.mode import settled, shape_for
from headrace.loading.open_run import Superseded, open_run
from headrace.loading.run_context import RunContext
from headrace.loading.session import Session
from headrace.observability.observers import audience
from headrace.observability.progress import Progress, Quiet
from headrace.observability.stages import Listener, Stages
from headrace.options.load import LoadOptions
from headrace.reading.inputs import Input
from headrace.report import Report
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
    decision = settled(store, table, options)
    with ExitStack() as opened:
        session = session or opened.enter_context(Session(store, options.parallel))
        stages = Stages(audience(listener))
        given_up: Superseded | None = None
        notes: tuple[str, ...] = ()
        while True:
            workers, shape = session.workers(decision, options), shape_for(decision, options)
            with stages.stage("agree"):
                agreement = agree(store, table, inputs, options, same_ids=session.same_ids)
                going = open_run(store, agreement, inputs, options, shape, workers.count, given_up=given_up)
            notes += going.notes
            run = RunContext(
                store=store,
                agreement=agreement,
                going=going,
                options=options,
                session=session,
                decision=decision,
                stages=stages,
                progress=progress or Quiet(),
                stop=stop or Event(),
                replayed=replayed or {},
            )
            with run.told(workers.health()):
                coordinator = Coordinator(run, workers)
                try:
                    report = coordinator.carried_out(inputs, began)
                except BaseException as error:
                    session.forget()
                    coordinator.end_with(error, time.monotonic() - began)
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
