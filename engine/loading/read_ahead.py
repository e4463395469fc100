"""Work ahead of the consumer, within bounds: the next items are made in a thread while the last one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Condition
from typing import TypeVar

__all__ = ["Allowance", "ahead"]

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made ahead.

    What making an item raises is raised in its place.
    `items` runs in one other thread from its first item to its last, also when the consumer stops early.
    """
    # what is logged there is about the same run
    step = partial(copy_context().run, next, items, None)
    with ThreadPoolExecutor(1, thread_name_prefix="headrace-read") as maker:
        coming: deque[Future[T | None]] = deque(maker.submit(step) for _ in range(depth))
        try:
            while (item := coming.popleft().result()) is not None:
                coming.append(maker.submit(step))
                yield item
        finally:
            for future in coming:
                future.cancel()


class Allowance:
    """The bytes that may be on their way at a time. A consumer with nothing left to take is never kept waiting for
    them: it may be collecting what it needs before it can give anything back.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._out = 0
        self._waiting = 0
        self._closed = False
        self._changed = Condition()

    def take(self, size: int) -> None:
        """Before an item of `size` bytes goes out: wait for room."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting == 0 or self._out + size <= self._limit)
            self._out += size
            self._waiting += 1

    def claim(self) -> None:
        """The consumer has taken an item."""
        with self._changed:
            self._waiting -= 1
            self._changed.notify_all()

    def give_back(self, size: int) -> None:
        """The consumer is done with `size` bytes."""
        with self._changed:
            self._out -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
