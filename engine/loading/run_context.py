"""The circumstances of a run, which its parts share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from headrace.loading.agreement import Agreement
from headrace.loading.open_run import OpenRun
from headrace.loading.session import Session
from headrace.observability.progress import Progress
from headrace.observability.stages import PoolHealth, RunFacts, Stages
from headrace.options.flag import Decision
from headrace.options.load import LoadOptions
from headrace.runtime.worker_logs import about
from headrace.storage.rejects import StoredReject
from headrace.storage.store import Store

__all__ = ["RunContext"]


@dataclass(slots=True)
class RunContext:
    """The run `going`: where it loads, by which `agreement` (a wider one takes its place when an input brings columns),
    with which options and resources, who hears of it, and which rejects are `replayed`, by row number.
    """

    store: Store
    agreement: Agreement
    going: OpenRun
    options: LoadOptions
    session: Session
    decision: Decision
    stages: Stages
    progress: Progress
    stop: Event
    replayed: Mapping[int, StoredReject]

    @contextmanager
    def told(self, pool: PoolHealth) -> Iterator[None]:
        """Tell the listener that the run begins; inside, log records name the run."""
        run, provider, table = self.going.run_id, self.options.provider, self.agreement.table
        with about(run=run, provider=provider, table=table), self.stages.telling_failure():
            facts = RunFacts(
                run_id=run,
                table=table,
                provider=provider,
                database=self.store.url,
                strategy=self.going.shape.strategy,
                pool=pool,
                decision=self.decision,
                started=self.stages.started,
            )
            self.stages.listener.began(facts)
            yield
