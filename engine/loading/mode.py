"""Sequential or parallel: what options, flag and database allow, and how a run in this mode cuts its input."""

from __future__ import annotations

import logging
from dataclasses import replace

from headrace.errors import ConfigurationError
from headrace.options.flag import Decision, decide
from headrace.options.load import LoadOptions
from headrace.options.shape import SEQUENTIAL, Shape, parallel_shape
from headrace.storage.sqlite.file_place import in_memory
from headrace.storage.store import Store

__all__ = ["settled", "shape_for"]

log = logging.getLogger("headrace.session")


def settled(store: Store, table: str, options: LoadOptions) -> Decision:
    """The decision of options and flag, if workers can use the database; a flag that requests the impossible is
    ignored. Raises `ConfigurationError` if the options request it.
    """
    decision = decide(options.mode, options.provider, table)
    if decision.mode == "sequential" or not in_memory(store.url):
        return decision
    if decision.source == "argument":
        raise ConfigurationError(
            "workers of parallel mode cannot use a database in this process's memory",
            where=store.url,
            hint="--mode sequential, or a file: sqlite:///events.db",
        )
    log.warning("the database is in this process's memory, where no worker can use it: the load is sequential")
    return replace(decision, mode="sequential")


def shape_for(decision: Decision, options: LoadOptions) -> Shape:
    """How a new run cuts its input."""
    if decision.mode == "sequential":
        return SEQUENTIAL
    how = options.parallel
    # an executor that was given may have its workers anywhere
    ranges = how.executor is None
    return parallel_shape(how.strategy, workers=how.workers, partitions=how.partitions, ranges=ranges)
