"""The resources of a run, which may outlive it: the workers, the spool, and the snapshot.

A single load opens a session for itself. `headrace.Engine` keeps one, so that the next batch finds the pool running and
the existing IDs known.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from headrace.execution.opening import opened_pool
from headrace.execution.pool import PooledWorkers
from headrace.execution.workers import InlineWorkers, Workers
from headrace.loading.agreement import Agreement
from headrace.loading.duplicates import LookUps
from headrace.loading.known_ids import KnownIds
from headrace.loading.same_ids import SameIds
from headrace.options.flag import Decision
from headrace.options.load import LoadOptions, ParallelOptions
from headrace.partitioning.dedup import among
from headrace.runtime.scratch import restore, scratch_folder
from headrace.storage.store import Store

__all__ = ["Session"]


class Session:
    """The workers over `store`, and the known IDs. `keep` holds on to the known IDs from run to run.

    The knowledge of an earlier run is checked before it is used, unless all runs between two `forget` are parts of one
    command (`one_command`).
    """

    def __init__(
        self, store: Store, parallel: ParallelOptions, *, keep: bool = False, one_command: bool = False
    ) -> None:
        self.keep = keep
        self._one_command = one_command
        self._parallel = parallel
        self._store = store
        self._open = ExitStack()
        self._pool: PooledWorkers | None = None
        self._pool_open = ExitStack()
        self.look_ups = LookUps()
        self.same_ids = SameIds()
        self._known: tuple[tuple[object, ...], KnownIds] | None = None

    def __enter__(self) -> Self:
        self.folder = self._open.enter_context(scratch_folder())
        self.inline = self._open.enter_context(InlineWorkers(self._store))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.forget()
            if error is None:
                self._pool_open.close()
            else:
                self.dismiss()
        finally:
            self._open.__exit__(kind, error, trace)

    def workers(self, decision: Decision, options: LoadOptions) -> Workers:
        """The workers of a run. Raises an error now, before anything is changed, if a function cannot be sent to a
        pool.
        """
        if decision.mode == "sequential":
            return self.inline
        if options.parallel.executor is None:
            if options.enrichment is not None:
                options.enrichment.require_sendable()
            for rule in options.alerts:
                rule.require_sendable()
        return self.pool()

    def pool(self) -> Workers:
        """The pool, started if it is not running. Raises `ConfigurationError` if it cannot be started."""
        restore(self.folder)
        if self._pool is not None and self._pool.fell_back is None:
            return self._pool
        self._pool_open.close()
        self._pool = self._pool_open.enter_context(opened_pool(self._parallel, self.folder, self.inline))
        return self._pool

    def dismiss(self) -> None:
        """End the pool and this process's commits at once: a run failed, and the rest of its work is useless."""
        if self._pool is not None:
            self._pool.kill()
        self._pool_open.close()
        self._pool = None
        self.inline.abandon()

    def known(self, agreement: Agreement, options: LoadOptions) -> KnownIds:
        """The known IDs for a run: those of the last run over the same table and contract, if they were kept."""
        restore(self.folder)
        about = (agreement.table, agreement.contract, options.window)
        if self._known is not None and self._known[0] == about and not agreement.created:
            self._known[1].begin_again(in_doubt=not self._one_command)
            return self._known[1]
        self._drop_known()
        known = KnownIds(
            self._store,
            agreement.table,
            agreement.contract,
            folder=self.folder,
            window=options.window,
            budget=options.snapshot_budget,
            empty=agreement.created,
        )
        self._known = (about, known)
        return known

    def met(self, most: int) -> tuple[int, bytes] | None:
        """The number of distinct events that the last run met, and the packed IDs of all or `most` of them, the refused
        ones left out: they are rejects. ``None`` where that is not known any more.
        """
        if self._known is None:
            return None
        known = self._known[1]
        ids = known.seen.sample(most)
        return len(known.seen), ids[~among(ids, known.refused)].tobytes()

    def forget(self) -> None:
        """Drop what earlier runs have found in the tables: the known IDs, and whose contract made them."""
        self.same_ids.forget()
        self._drop_known()

    def _drop_known(self) -> None:
        if self._known is not None:
            self._known[1].close()
            self._known = None
