"""The site of a database's loads, measured, and the advice that its kept past loads give for this site.

past loads ─► histories (`headrace.profiling.history`), told of ─► the cores · the round trip · whether the server is on
this
                                                         machine · how long workers take to start, if it matters
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import sqlalchemy as sa

from headrace.errors import ConfigurationError
from headrace.execution.crew import ProcessCrew
from headrace.options.load import cores
from headrace.profiling.history import History, Site, histories
from headrace.runtime.scratch import scratch_folder
from headrace.storage.store import Store

__all__ = ["histories_in"]

PINGS = 5
ROUND_TRIPS = 3  # of a transaction with one question
_HERE = {None, "", "localhost", "127.0.0.1", "::1"}


def histories_in(store: Store, url: str, providers: Sequence[str] | None) -> list[History]:
    """The histories of `providers` (``None``: of all) that `store`, the database at `url`, keeps."""
    loads = store.providers.past_loads(providers)
    return histories(loads, _place(store, url)) if loads else []


def _place(store: Store, url: str) -> Site:
    """Where loads run, as far as a few questions tell."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return Site(cores(), 0.0, database_here=True, writers=1, start=_seconds_to_start)
    sockets = parsed.query.get("host")
    here = parsed.host in _HERE and (sockets is None or str(sockets).startswith("/"))
    return Site(cores(), _round_trip(store), database_here=here, writers=None, start=_seconds_to_start)


def _round_trip(store: Store) -> float:
    """Seconds to the database and back, by a question that costs nothing."""
    store.checks.server_now()
    return statistics.median(_timed(store) for _ in range(PINGS)) / ROUND_TRIPS


def _timed(store: Store) -> float:
    began = time.perf_counter()
    store.checks.server_now()
    return time.perf_counter() - began


def _seconds_to_start(workers: int) -> float:
    """How long workers take to start here, by starting some."""
    with scratch_folder() as folder:
        crew = ProcessCrew(workers, folder, task_timeout=60.0)
        began = time.perf_counter()
        try:
            pool = crew.start()
        except ConfigurationError:
            return float("inf")  # none can be started here: then they pay at no size
        try:
            for one in [pool.submit(time.sleep, 0) for _ in range(workers)]:
                one.result()
            return time.perf_counter() - began
        finally:
            crew.kill()
            pool.shutdown(wait=False, cancel_futures=True)
