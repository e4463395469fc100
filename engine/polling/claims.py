"""Claims on providers. A thread renews them as long as this process lives, so that no other host polls the providers.

claimed ──► renewed every third of its time ──► saved: let go
                  │ the process dies, or the database cannot be reached in time
                  └─► lapses; whoever comes next may claim it
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Collection
from threading import Event, Lock, Thread
from typing import Self
from uuid import uuid4

from headrace.errors import HeadraceError
from headrace.storage import open_store

__all__ = ["Claims", "new_holder"]

log = logging.getLogger("headrace.run")
BEATS = 3  # renewals in the time that a claim lasts


def new_holder() -> str:
    """A unique name for this process among all polling processes: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


class Claims:
    """Keeps the claims of `holder` on `names` alive while inside, over a connection of its own."""

    def __init__(self, url: str, holder: str, names: Collection[str], seconds: float) -> None:
        self._url = url
        self._holder = holder
        self._seconds = seconds
        self._held = set(names)
        self._renewed = time.monotonic()
        self._lock = Lock()
        self._done = Event()
        self._thread = Thread(target=self._keep, name="headrace-claims", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def holds(self, name: str) -> bool:
        """Whether the claim on `name` still holds, as far as this process can know."""
        with self._lock:
            return name in self._held and time.monotonic() - self._renewed < self._seconds

    def _keep(self) -> None:
        while not self._done.wait(self._seconds / BEATS):
            began = time.monotonic()
            try:
                with open_store(self._url) as store:
                    held = store.providers.renew(self._holder, self._seconds)
            except HeadraceError as error:
                log.warning("the claims on providers could not be renewed: %s", error.what)
                continue
            with self._lock:
                self._held &= held
                self._renewed = began
