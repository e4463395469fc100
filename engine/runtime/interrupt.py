"""SIGINT and SIGTERM: the first signal finishes the current chunk, a second one stops at once. Both runs can be
resumed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

__all__ = ["StopSignal", "stopping"]


class StopSignal(Event):
    """Set by the first signal; `number` is the signal's, 0 before it came."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return 128 + (self.number or signal.SIGINT)


@contextmanager
def stopping(at_once: Callable[[], None]) -> Iterator[StopSignal]:
    """Catch both signals while inside. `at_once` is called before a second signal ends the process (to clean up)."""
    stop = StopSignal()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            at_once()
            os._exit(128 + number)
        stop.number = number
        stop.set()
        print("headrace: stopping after the current chunk; a second signal stops at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
