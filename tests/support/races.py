"""What the suites about races share: loaders that meet at the worst moment, chunks that contradict each other, and an
oracle that knows nothing of Headrace.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from golden.reference import encoding, event_id

from support.naive_loader import PAGE

__all__ = ["PATIENCE", "Meeting", "Row", "chunks_of_round", "first_of_each", "id_of"]

PATIENCE = 240  # seconds after which a test is hung rather than slow: machines are shared
Row = tuple[int, str]


class Meeting:
    """A barrier that its parties may leave: nobody waits for who is done."""

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._waiting = 0
        self._times = 0
        self._changed = threading.Condition()

    def wait(self) -> None:
        """Return when every party that has not left is here."""
        with self._changed:
            self._waiting += 1
            before = self._times
            self._end_if_complete()
            assert self._changed.wait_for(lambda: self._times > before, PATIENCE), "the others never came"

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Be one of the parties, and leave at the end, however that comes."""
        try:
            yield
        finally:
            with self._changed:
                self._parties -= 1
                self._end_if_complete()

    def _end_if_complete(self) -> None:
        if self._waiting >= self._parties:
            self._waiting = 0
            self._times += 1
            self._changed.notify_all()


def chunks_of_round(number: int, workers: int) -> list[list[Row]]:
    """A chunk for each worker: the same events in all, each beginning where another ends, then a page of its own.

    Keys are new in every round; values tell the chunks apart.
    """
    base, shared = number * 10_000, workers * PAGE
    chunks = []
    for chunk in range(workers):
        keys = [base + (chunk * PAGE + at) % shared for at in range(shared)]
        keys += range(base + shared + chunk * PAGE, base + shared + (chunk + 1) * PAGE)
        chunks.append([(key, f"{key} of chunk {chunk}") for key in keys])
    return chunks


def first_of_each(rows: Sequence[Row]) -> dict[bytes, str]:
    """What a table must hold: the ID of each event, and the value that came first."""
    found: dict[bytes, str] = {}
    for key, value in rows:
        found.setdefault(id_of(key), value)
    return found


def id_of(key: int) -> bytes:
    """The event ID where the one identity column is an integer, by the slow implementation of the specification."""
    return event_id(encoding(["integer"], [key], "default"), "xxh3_128", None, None)
