"""Opening a pool: the workers of the built-in crew, of a given executor, or of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from headrace.execution.cluster import connected
from headrace.execution.crew import ProcessCrew
from headrace.execution.pool import PooledWorkers
from headrace.execution.workers import InlineWorkers
from headrace.options.load import ParallelOptions
from headrace.partitioning.folders import private_folder
from headrace.runtime.worker_logs import worker_logging

__all__ = ["opened_pool"]


@contextmanager
def opened_pool(parallel: ParallelOptions, folder: Path, inline: InlineWorkers) -> Iterator[PooledWorkers]:
    """A pool that spools into `folder`; `inline` does the rest of the work if the pool breaks.

    Raises `ConfigurationError` if it cannot be started.
    """
    spool = folder / "spool"
    private_folder(spool)
    with (
        _source(parallel, folder) as source,
        PooledWorkers(
            source, count=parallel.workers, spool=spool, inline=inline, task_timeout=parallel.task_timeout
        ) as pool,
    ):
        yield pool


@contextmanager
def _source(parallel: ParallelOptions, folder: Path) -> Iterator[ProcessCrew | Executor]:
    """Where the workers come from: the built-in crew with its logs, a given executor, or a cluster's."""
    if isinstance(parallel.executor, Executor):
        yield parallel.executor
    elif parallel.executor is not None:
        with connected(parallel.executor) as executor:
            yield executor
    else:
        with worker_logging() as channel:
            yield ProcessCrew(parallel.workers, folder, task_timeout=parallel.task_timeout, channel=channel)
