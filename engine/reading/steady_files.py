"""A local file, read as it was when this command first examined it, or not at all.

    looked at ─► opened ─► the same file? ─► bytes, as far as it went then ─► still the same? ─► the next piece goes on
    facts         one                          hashed on the way                └ no: is what was read
                  descriptor                                                          still what is there?

Other processes of this machine get the file to read from by its path, or by the descriptor that is held here, if
another file has taken its place. They read ranges of it, whose digests come back (`RangesRead`).

The facts (inode, size, times) are compared before a piece of the file is handed on. If the facts differ, the part that
was read is read again, and reading continues if its content is the same. So the file may be touched, renamed, removed
or appended to meanwhile; the next command reads the appended part. Any other change ends the command, before the last
piece is handed on.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGURG
from threading import Lock
from typing import Any, NamedTuple

import xxhash

from headrace.errors import InputChangedError, InputError
from headrace.reading.arrow_pacing import ReadOnly
from headrace.runtime.parcel import Unseen

__all__ = ["InputUnseen", "Pass", "RangesRead", "Steady"]

_EDGE = 1 << 16
_BLOCK = 4 << 20
_TICK = 0.012  # seconds: two changes within one tick of the kernel's clock bear the same time
_QUIET = 1.0  # seconds without a change, for a file that ends within a line
_AGAIN = "run the same command again"


class InputUnseen(Unseen):
    """A worker cannot open the coordinator's file."""


class FileFacts(NamedTuple):
    """What tells a file and its state from others."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileFacts:
        """Those of a file or descriptor that was looked at."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Steady:
    """The file at `path`, which messages call `name`.

    With `hold` it stays open from now on, so that it can be read even if it is removed. `vouched` says that nothing is
    missing at its end: its length is known, or somebody closed it. What is `ours` nobody else writes to.
    """

    def __init__(self, path: Path, name: str, *, hold: bool = False, vouched: bool = True, ours: bool = False) -> None:
        self.path = path.absolute()  # this process may change its directory
        self.name = name
        self.vouched = vouched
        self.ours = ours
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        closing = weakref.finalize(self, os.close, number)
        self.facts = FileFacts.of(os.fstat(number))
        if not ours and 0 <= time.time() - self.facts.changed / 1e9 < _TICK:
            time.sleep(_TICK)
            self.facts = FileFacts.of(os.fstat(number))
        self._edges = self.edges(number)
        self._held = number if hold else None
        self._lender: tuple[int, int] | None = None
        self._is_ours_to_judge = True
        if not hold:
            closing()

    def __reduce__(self) -> tuple[Any, ...]:
        lender = self._lender if self._held is None else (os.getpid(), self._held)
        known = (self.path, self.name, self.vouched, self.ours, self.facts, self._edges, lender)
        return _received, known

    @property
    def size(self) -> int:
        """The size when the file was first examined; no more is read."""
        return self.facts.size

    @contextmanager
    def opened(self) -> Iterator[Pass]:
        """The file from its beginning. Raises `InputChangedError` if it is another one by now; `OSError`."""
        if self._held is not None:
            yield self._pass(self._held)
            return
        number = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield self._pass(number)
        finally:
            os.close(number)

    @contextmanager
    def opened_for_range(self) -> Iterator[Pass]:
        """The file, in whatever state it is by now: the coordinator judges that.

        Raises `InputUnseen` where another process has it from the coordinator, and cannot open it; `OSError` and
        `InputChangedError` in the coordinator itself.
        """
        if self._held is not None:
            yield Pass(self, self._held, self.facts)
            return
        number = self._own_number()
        try:
            yield Pass(self, number, self.facts)
        finally:
            os.close(number)

    def _own_number(self) -> int:
        if self._is_ours_to_judge:
            if (number := self._number_at(self.path)) is None:
                raise self.changed("the file was replaced after this command had begun")
            return number
        lent = [] if self._lender is None else [Path("/proc", str(self._lender[0]), "fd", str(self._lender[1]))]
        for path in (self.path, *lent):
            with suppress(OSError):
                if (number := self._number_at(path)) is not None:
                    return number
        raise InputUnseen("a worker cannot open the file", where=self.name)

    def _number_at(self, path: Path) -> int | None:
        """A descriptor of the file at `path`, ``None`` if it is another file."""
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if FileFacts.of(os.fstat(number))[:2] == self.facts[:2]:
            return number
        os.close(number)
        return None

    def edges(self, number: int) -> bytes:
        """A digest of the file's beginning and end, as far as it went when it was looked at."""
        tail = max(0, self.size - _EDGE)
        return xxhash.xxh3_128_digest(
            os.pread(number, min(_EDGE, self.size), 0) + os.pread(number, self.size - tail, tail)
        )

    def is_as_before(self, number: int, now: FileFacts) -> bool:
        """Whether the open file has the beginning and end that it had, and is no shorter."""
        return now.size >= self.size and self.edges(number) == self._edges

    def changed(self, what: str = "the file changed while it was read") -> InputChangedError:
        """The error for a changed file."""
        return InputChangedError(what, where=self.name, hint=f"the rows read so far cannot be used: {_AGAIN}")

    def _pass(self, number: int) -> Pass:
        now = FileFacts.of(os.fstat(number))
        if now[:2] != self.facts[:2]:
            raise self.changed("the file was replaced after this command had begun")
        # what is longer was appended to; of what is as long, and newer, nobody can tell
        same = now.size != self.size or now.modified == self.facts.modified
        if now != self.facts and not (same and self.is_as_before(number, now)):
            raise self.changed("the file changed after this command had begun")
        return Pass(self, number, now)


def _received(
    path: Path, name: str, vouched: bool, ours: bool, facts: FileFacts, edges: bytes, lender: tuple[int, int] | None
) -> Steady:
    file = Steady.__new__(Steady)
    file.path, file.name, file.vouched, file.ours, file.facts = path, name, vouched, ours, facts
    file._edges, file._held, file._lender, file._is_ours_to_judge = edges, None, lender, False
    return file


class RangesRead:
    """The ranges of `file` that were read so far, by whatever process: each with its digest, to be compared again when
    the file's facts have changed.
    """

    def __init__(self, file: Steady) -> None:
        self._file = file
        self._seen = file.facts
        self._read: list[tuple[int, int, bytes]] = []

    def take(self, start: int, stop: int, digest: bytes, facts: FileFacts) -> None:
        """Note a range that was read when the file had these `facts`. Raises `InputChangedError` if the file no longer
        has the content that was read.
        """
        before, self._read = self._read, [*self._read, (start, stop, digest)]
        if facts == self._seen:
            return
        same = facts.size != self._file.size or facts.modified == self._file.facts.modified
        if not before and not same:
            raise self._file.changed("the file changed after this command had begun")
        with self._file.opened_for_range() as source:
            self._seen = source.require_as_before(self._read)

    def finish(self, *, lines: bool) -> None:
        """At the end: the file has the content that was read; where `lines` count, the last is whole if it has no end.

        Raises `InputChangedError`, or `InputError` for a line that may be cut.
        """
        with self._file.opened_for_range() as source:
            if source.facts != self._seen:
                source.require_as_before(self._read)
            if lines and self._file.size and source.read_at(self._file.size - 1, self._file.size) not in (b"\n", b"\r"):
                source.require_finished()


class Pass(ReadOnly):
    """One reading of a `Steady` file: a file object, for one reader, in whatever thread."""

    def __init__(self, file: Steady, number: int, facts: FileFacts) -> None:
        self._file = file
        self._number = number
        self._seen = facts
        self._at = 0
        self._digest = xxhash.xxh3_128()  # of all before `_hashed`
        self._hashed = self._compared = 0
        self._lock = Lock()

    def seekable(self) -> bool:
        """Whether it can go back: yes."""
        return True

    def tell(self) -> int:
        """The present position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def peek(self, size: int) -> bytes:
        """The file's first bytes."""
        return os.pread(self._number, min(size, self._file.size), 0)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; ``b""`` at the end. Raises `InputChangedError` if the file has become shorter."""
        with self._lock:
            left = max(0, self._file.size - self._at)
            wanted = left if size < 0 else min(size, left)
            block = self.read_at(self._at, self._at + wanted)
            if self._at == self._hashed:
                self._digest.update(block)
                self._hashed += len(block)
            self._at += len(block)
            return block

    @property
    def facts(self) -> FileFacts:
        """The file's facts at this moment."""
        return FileFacts.of(os.fstat(self._number))

    def read_at(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`. Raises `InputChangedError` if the file has become shorter."""
        block = os.pread(self._number, stop - start, start)
        while len(block) < stop - start:
            more = os.pread(self._number, stop - start - len(block), start + len(block))
            if not more:
                raise self._file.changed("the file was cut while it was read")
            block += more
        return block

    def require_as_before(self, ranges: Sequence[tuple[int, int, bytes]]) -> FileFacts:
        """Compare `ranges` with their digests; returns the facts with which they are the same. Raises
        `InputChangedError`.
        """
        now = self.facts
        same = self._file.is_as_before(self._number, now) and all(
            self.digest_of(start, stop) == digest for start, stop, digest in ranges
        )
        if not same:
            raise self._file.changed()
        return now

    def digest_of(self, start: int, stop: int) -> bytes:
        """A digest of the bytes from `start` up to `stop`."""
        digest = xxhash.xxh3_128()
        for at in range(start, stop, _BLOCK):
            digest.update(self.read_at(at, min(stop, at + _BLOCK)))
        return digest.digest()

    def check(self, *, last: bool = False) -> None:
        """Check the file before a piece is handed on, and with `last` at its end.

        Raises `InputChangedError` if the file no longer has the content that was read.
        """
        now = FileFacts.of(os.fstat(self._number))
        # one that is appended to all the time is looked at again when twice as much was read
        if now == self._seen or (not last and self._compared and self._hashed < 2 * self._compared):
            return
        with self._lock:
            if not self._file.is_as_before(self._number, now) or self._prefix() != self._digest.digest():
                raise self._file.changed()
            self._seen, self._compared = now, self._hashed

    def require_finished(self) -> None:
        """For a file whose last line has no end. Raises `InputError` if somebody is still writing to it, or if nobody
        said that it ends there: the line may be cut.
        """
        if not self._file.vouched:
            raise InputError(
                "the answer ends within a line and gave no length: it may be cut short",
                where=self._file.name,
                hint=f"{_AGAIN}; an answer with Content-Length, or whose last line has its end, is accepted",
            )
        if not self._file.ours and self._is_written_to():
            raise InputError(
                "the last line has no end, and the file is still being written: the line may be cut",
                where=self._file.name,
                hint=f"{_AGAIN} when it is finished; events already in the table stay there once",
            )

    def _is_written_to(self) -> bool:
        """Whether the file has grown, does so when it is waited for, or is open for writing."""
        left = _QUIET - (time.time() - self._seen.modified / 1e9)
        if self._seen.size == self._file.size and 0 < left <= _QUIET:
            time.sleep(left)
        now = FileFacts.of(os.fstat(self._number))
        return (now.size, now.modified) != (self._file.size, self._seen.modified) or _open_for_writing(self._number)

    def _prefix(self) -> bytes:
        digest, at = xxhash.xxh3_128(), 0
        while at < self._hashed and (block := os.pread(self._number, min(_BLOCK, self._hashed - at), at)):
            digest.update(block)
            at += len(block)
        return digest.digest()


def _open_for_writing(number: int) -> bool:
    """Whether anybody is known to have the file open for writing.

    The kernel grants a lease on reading if nobody has. A writer that opens the file in the instant in which it is held
    waits for its end, and the signal that tells of it is one that is ignored.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        fcntl.fcntl(number, fcntl.F_SETSIG, SIGURG)
        fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # not our file, or a file system without leases: it cannot be told
        return False
    else:
        return False
    finally:
        with suppress(OSError):
            fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_UNLCK)
