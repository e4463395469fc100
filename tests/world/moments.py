"""Moments inside a command at which something happens: the k-th statement, or the k-th chunk that is read.

Everything happens in the thread that reached the moment, while all others wait: a history is the same each time it is
played. The product knows nothing of this: `listen` wraps what every store, source and commit goes through.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, Literal

from support import shifted_cli
from support.program import Crash

from headrace import storage
from headrace.execution import workers
from headrace.loading import intake
from headrace.reading import inputs
from headrace.storage.sql import retry as retries

__all__ = ["Kind", "Moments", "listen", "wrong_clocks"]

Kind = Literal["statement", "chunk"]


class Moments:
    """What is to happen in the command at hand: at most one thing, once; a crash then lasts."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._what: Callable[[], None] | None = None
        self._kind: Kind = "statement"
        self._left = 0
        self._dead = False
        self.came = False

    @contextmanager
    def at(self, kind: Kind, number: int, what: Callable[[], None]) -> Iterator[None]:
        """Call `what` when the `number`-th (from 1) such moment is reached; `came` says whether it was."""
        self._kind, self._left, self._what, self._dead, self.came = kind, number, what, False, False
        try:
            yield
        finally:
            self._what, self._dead = None, False

    def reached(self, kind: Kind) -> None:
        """Called by what was wrapped."""
        if self._what is None or (self._dead and kind == "statement"):
            if self._dead:
                raise Crash
            return
        with self._lock:
            if kind != self._kind or self.came:
                return
            self._left -= 1
            if self._left > 0:
                return
            self.came = True
        try:
            self._what()
        except Crash:
            self._dead = True
            raise


@contextmanager
def listen(moments: Moments) -> Iterator[None]:
    """Have every store and every source of this process tell `moments`, and wait for no server for long."""
    inner = storage.open_store

    def open_store(url: str, *, on_statement: Callable[[str], None] | None = None) -> Any:
        def hear(statement: str) -> None:
            moments.reached("statement")
            if on_statement is not None:
                on_statement(statement)

        return inner(url, on_statement=hear)

    chunks = inputs._Source.chunks

    def told(self: Any, *args: Any, **named: Any) -> Iterator[Any]:
        for chunk in chunks(self, *args, **named):
            moments.reached("chunk")
            yield chunk

    with ExitStack() as replaced:
        for module in [one for name, one in sys.modules.items() if name.startswith("headrace")]:
            if getattr(module, "open_store", None) is inner:
                replaced.enter_context(_with(module, "open_store", open_store))
        replaced.enter_context(_with(inputs._Source, "chunks", told))
        replaced.enter_context(_with(workers.InlineWorkers, "commit", _one_at_a_time(workers.InlineWorkers.commit)))
        replaced.enter_context(_with(intake, "ahead", lambda items, depth: items))
        for name, seconds in (("FIRST_PAUSE", 0.002), ("LONGEST_PAUSE", 0.01), ("SERVER_AWAY", 0.3)):
            replaced.enter_context(_with(retries, name, seconds))
        yield


def _one_at_a_time(commit: Callable[..., Any]) -> Callable[..., Any]:
    """A load reads and commits in threads of their own: here each waits for the other, so that a history goes the same
    way each time.
    """

    def waited(self: Any, order: Any) -> Any:
        task = commit(self, order)
        wait([task])
        return task

    return waited


@contextmanager
def _with(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def wrong_clocks(days: float) -> Iterator[None]:
    """Every clock of this process's Headrace is wrong by so many days."""
    wrong = shifted_cli.wrong_clock(days)
    shifted = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("headrace") and getattr(module, "datetime", None) is datetime
    ]
    with ExitStack() as replaced:
        for module in shifted:
            replaced.enter_context(_with(module, "datetime", wrong))
        yield
