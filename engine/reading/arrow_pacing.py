"""Pacing: a file is read no further ahead than its consumer can use.

Arrow's CSV reader reads 32 blocks ahead in a thread of its own, 128 MiB at 4 MiB each, whatever its options say.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition
from typing import Protocol, TypeVar

__all__ = ["Paced", "ReadOnly", "Readable"]

T = TypeVar("T")
# Arrow's parser holds on to the last block while it looks at this one and the next
BLOCKS = 3
# s that a consumer waits for an item. Should another release of Arrow hold on to more, it is slow, and not stuck
_PATIENCE = 2.0


class ReadOnly:
    """The methods that Arrow needs of a Python file object, except `read`."""

    closed = False

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def writable(self) -> bool:
        """Whether it can be written: no."""
        return False

    def seekable(self) -> bool:
        """Whether it can go back: no."""
        return False

    def flush(self) -> None:
        """Nothing to flush."""

    def close(self) -> None:
        """Nothing to close: the stream below belongs to its opener."""
        self.closed = True


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int) -> bytes: ...  # noqa: D102 - a file object's


class Paced(ReadOnly):
    """`stream` for a reader that runs in another thread: the reader has a few blocks at a time, and gets the next when
    it has released one.

    Arrow uses a block without copying it. A block has been used when it has no more references. The reader's results
    tell less, because a block may give none (all of its records are refused).

    `share` is how much of the input the items made so far are, 0 to 1, where `share_read` says how much was read.
    """

    def __init__(self, stream: Readable, share_read: Callable[[], float] = lambda: 0.0) -> None:
        self._stream = stream
        self._share_read = share_read
        self._shares: deque[float] = deque()  # with each block that is read
        self.share = 0.0
        # by the identity of the reference: references are equal where the blocks are
        self._lent: dict[int, weakref.ref[memoryview]] = {}
        self._wanted_since: float | None = time.monotonic()  # before it makes anything, the reader looks at a block
        self._over = False
        self._changed = Condition()

    def read(self, size: int = -1) -> bytes | memoryview:
        """The next block, once there is room for it; ``b""`` at the end, or after `stop`."""
        with self._changed:
            while not self._over and len(self._lent) >= BLOCKS and not self._waits_too_long():
                self._changed.wait(_PATIENCE)
            if self._over:
                return b""
        block = memoryview(self._stream.read(size))
        self._shares.append(self._share_read())
        with self._changed:
            reference = weakref.ref(block, self._returned)
            self._lent[id(reference)] = reference
        return block

    def items(self, made: Iterator[T]) -> Iterator[T]:
        """The items that the reader makes."""
        while True:
            self._wanted_since = time.monotonic()
            item = next(made, None)
            self._wanted_since = None
            if item is None:
                return
            self.share = self._shares.popleft() if self._shares else self.share
            yield item

    def stop(self) -> None:
        """Stop reading: a waiting reader continues, and gets the end."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _waits_too_long(self) -> bool:
        since = self._wanted_since
        return since is not None and time.monotonic() - since > _PATIENCE

    def _returned(self, reference: weakref.ref[memoryview]) -> None:
        with self._changed:
            self._lent.pop(id(reference), None)
            self._changed.notify_all()
