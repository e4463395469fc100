"""A resource that a service keeps open, reopened after a temporary failure of the database.

    use ──► work ──► use ──► work …
              │ fails
              ├─ a setting, a missing table, no privilege; anything at all before it ever worked ──► the service ends
              └─ the rest: server restarted, read-only, out of room, file replaced ──► closed; the next use opens it

Reopening distinguishes a server that is away from a server that refuses this user (a changed password). A server
without a free connection looks the same, so a refusal is outlasted too, for some minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

from headrace.errors import HeadraceError, Interrupted, RefusedStoreError, RetryableStoreError, UsageError

__all__ = ["Renewed"]

log = logging.getLogger("headrace.run")
REFUSED_FOR = 300.0  # seconds for which a server that took us before may refuse us
T = TypeVar("T")


class Renewed(Generic[T]):
    """A resource that `make` opens, for repeated use. One thread at a time."""

    def __init__(self, make: Callable[[], AbstractContextManager[T]]) -> None:
        self._make = make
        self._open = ExitStack()
        self._it: T | None = None
        self._worked = False
        self._refused_since: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._it = None
        self._open.__exit__(kind, error, trace)

    def use(self) -> T:
        """The open resource. Raises the errors of opening it."""
        if self._it is None:
            self._it = self._open.enter_context(self._make())
        else:
            self._worked = True  # what failed at its last use would have closed it
        self._refused_since = None
        return self._it

    def outlasts(self, error: HeadraceError) -> bool:
        """Whether a service continues after `error`, which its last use raised; the resource is then closed."""
        opened, self._it = self._it is not None, None
        self._close()
        if isinstance(error, RetryableStoreError):
            return True
        if isinstance(error, UsageError | Interrupted) or not self._worked:
            return False
        if opened:
            return not isinstance(error, RefusedStoreError)
        self._refused_since = self._refused_since or time.monotonic()
        return time.monotonic() - self._refused_since < REFUSED_FOR

    def _close(self) -> None:
        try:
            self._open.close()
        except HeadraceError as error:
            log.debug("closing failed as well: %s", error)
