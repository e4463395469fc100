"""Work ahead of the consumer, within bounds: a thread makes the next items while the consumer uses the last one."""

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
    """Yield the same items in the same order, with up to `depth` of them made ahead.

    An error in making an item is raised in the item's place.
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
    """The bytes that may be in progress at a time. A consumer with nothing left to take never waits for them: it may be
    collecting items before it can give anything back.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._out = 0.0
        self._waiting = 0
        self._closed = False
        self._changed = Condition()

    def take(self, size: int) -> None:
        """Wait for memory before an item of `size` bytes is handed out."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting == 0 or self._out + size <= self._limit)
            self._out += size
            self._waiting += 1

    def claim(self) -> None:
        """Note that the consumer has taken an item."""
        with self._changed:
            self._waiting -= 1
            self._changed.notify_all()

    def give_back(self, size: float) -> None:
        """Note that the consumer has released `size` bytes."""
        with self._changed:
            self._out -= size
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
