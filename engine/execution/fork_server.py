"""The process from which workers are forked, with their libraries imported once for all of them.

A new fork server imports `headrace.execution.tasks` (0.4 s of one core) and then forks each worker in milliseconds;
without the fork server every worker would import them itself. Importing starts no thread that a fork could break:
Arrow's allocator keeps one for giving memory back, which is made for forking, and nothing else is opened before a
worker has work.

This module imports nothing heavy, so that the command line can start the fork server before its own imports.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["METHOD", "await_ready", "send_ahead"]

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_PRELOADED = ["__main__", "headrace.execution.tasks"]


def send_ahead() -> None:
    """Start the fork server, unless it runs, and return at once. On systems without a fork server, do nothing."""
    if METHOD != "forkserver" or multiprocessing.parent_process() is not None:
        return
    from multiprocessing import forkserver  # noqa: PLC0415 - not to be had everywhere

    forkserver.set_forkserver_preload(_PRELOADED)
    with _one_thread_each():
        forkserver.ensure_running()


def await_ready() -> None:
    """Start the fork server, unless it runs, and wait until it has finished its imports. On systems without a fork
    server, or if this process may start none, do nothing.
    """
    if METHOD != "forkserver" or multiprocessing.parent_process() is not None:
        return
    send_ahead()
    # it answers no sooner; what it forks does nothing
    probe = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    probe.start()
    probe.join()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """NumPy's linear algebra, which nothing here uses, would start threads on import; what the user says stays."""
    name = "OPENBLAS_NUM_THREADS"
    said = name in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if not said:
            del os.environ[name]
