"""A file that is read no further ahead than its consumer can use.

Arrow's CSV reader reads 32 blocks ahead in a thread of its own, 128 MiB at 4 MiB each, whatever its options say.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Condition
from typing import Protocol, TypeVar

__all__ = ["Paced", "ReadOnly", "Readable"]

T = TypeVar("T")
BLOCKS_AHEAD = 3
# A block may yield nothing (all of its records are refused): after this long without an item it counts as used.
_PATIENCE = 0.05


class ReadOnly:
    """What Arrow asks of a file object in Python, but for `read`."""

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
        """Nothing to close: the stream underneath is its opener's."""
        self.closed = True


class Readable(Protocol):
    """Where the bytes come from."""

    def read(self, size: int) -> bytes: ...  # noqa: D102 - a file object's


class Paced(ReadOnly):
    """`stream` for a reader that runs in another thread, kept at most a few blocks ahead of the items it makes."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._ahead = 0
        self._wanted = True  # before it makes anything, the reader looks at the first block
        self._over = False
        self._changed = Condition()

    def read(self, size: int = -1) -> bytes:
        """The next block, once there is room for it; ``b""`` at the end, or when nobody wants more."""
        with self._changed:
            while not self._over and self._ahead >= BLOCKS_AHEAD:
                if not self._changed.wait(_PATIENCE) and self._wanted:
                    self._ahead -= 1
            if self._over:
                return b""
            self._ahead += 1
        return self._stream.read(size)

    def items(self, made: Iterator[T]) -> Iterator[T]:
        """The items that the reader makes, about one of each block."""
        while (item := next(made, None)) is not None:
            self._note(wanted=False)
            yield item
            self._note(wanted=True)

    def stop(self) -> None:
        """Nobody wants more: a reader that waits goes on, to the end that it is told."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _note(self, *, wanted: bool) -> None:
        with self._changed:
            self._wanted = wanted
            if not wanted:
                self._ahead = max(0, self._ahead - 1)
                self._changed.notify_all()
