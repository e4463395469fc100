"""The ends of CSV records, for the rare file that has a record too long for Arrow's parser.

    text ──► physical lines ──► records ──► those that Arrow has seen: skipped
                                       ├──► those that fit a block: on to Arrow
                                       └──► those that do not: kept aside as rejects

Arrow parses a block at a time, and gives up if a record does not end within a block. Only then this module reads the
text, line by line; it costs about a microsecond a record. A quote counts as in Arrow's parser: only at a field's
beginning.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator

from headrace.errors import InputError
from headrace.reading.arrow_pacing import Readable, ReadOnly
from headrace.reading.text_stream import LONGEST, Utf8

__all__ = ["Careful", "quoted_after", "records_of", "text_lines"]

_BLOCK = 1 << 20


def text_lines(stream: Readable, name: str = "") -> Iterator[bytes]:
    """The stream's physical lines with their ends (LF, CRLF or CR); the last line may have none.

    Raises `InputError` for a line longer than `LONGEST`, because it must not fill the memory.
    """
    rest = b""
    while block := stream.read(_BLOCK):
        lines = (rest + block).splitlines(keepends=True)
        # the last may go on in the next block; so may a CR before an LF
        rest = lines.pop()
        _require_short(len(rest), name)
        yield from lines
    yield from rest.splitlines(keepends=True)


def records_of(stream: Utf8, delimiter: str, name: str) -> Iterator[tuple[int, bytes]]:
    """The line (1-based) where each record begins, and its text; empty lines left out.

    Raises `InputError` for a record longer than `LONGEST`.
    """
    opening = delimiter.encode() + b'"'
    held = bytearray()  # a record of several lines: one buffer, not a list of what may be millions of lines
    quoted, begun = False, 1
    for number, line in enumerate(text_lines(stream, name), start=1):
        if not quoted:
            begun = number
            if not line.strip(b"\r\n"):
                continue
        still = quoted_after(line, opening, quoted, begins=not quoted)
        if quoted or still:
            held += line
            _require_short(len(held), name)
        if not still:
            yield begun, bytes(held) if quoted else line
            held.clear()
        quoted = still
    if held:
        yield begun, bytes(held)


def quoted_after(line: bytes, opening: bytes, quoted: bool, *, begins: bool) -> bool:
    """Whether a quoted field is open behind `line`; `begins` says that a record begins with it."""
    at = 0
    if begins and line.startswith(b'"'):
        quoted, at = True, 1
    while True:
        if quoted:
            at = line.find(b'"', at) + 1
            if not at:
                return True
            if line[at : at + 1] == b'"':  # a doubled one is a character of the field
                at += 1
                continue
            quoted = False
        at = line.find(opening, at)
        if at < 0:
            return False
        quoted, at = True, at + len(opening)


def _require_short(size: int, name: str) -> None:
    if size > LONGEST:
        raise InputError(
            f"a line or record has more than {LONGEST >> 20} MiB",
            where=name,
            hint="look for a quote that opens and never closes, or for a file that is not text",
        )


class Careful(ReadOnly):
    """A file object for Arrow: the records from number `first` on, without those longer than `limit` bytes.

    These go to `refuse(number, text)`. Records are numbered from 0, the header included.
    """

    def __init__(self, records: Iterator[bytes], first: int, limit: int, refuse: Callable[[int, bytes], None]) -> None:
        self._records = records
        self._first = first
        self._limit = limit
        self._refuse = refuse
        self._fed = 0
        self._gaps: list[int] = []  # for each record left out, how many were fed before it
        self._ready = bytearray()
        for _ in range(first):
            next(records, None)

    def number(self, fed: int) -> int:
        """The number in the file of the record that Arrow knows as `fed`, counted from 0."""
        return self._first + fed + bisect_right(self._gaps, fed)

    def has_more(self) -> bool:
        """Whether there is anything to read: Arrow accepts no empty file."""
        self._fill(1)
        return bool(self._ready)

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer at the end only: so that a record that fits a block ends in the next one."""
        self._fill(size)
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def _fill(self, size: int) -> None:
        while len(self._ready) < size:
            record = next(self._records, None)
            if record is None:
                return
            if len(record) > self._limit:
                self._refuse(self._first + self._fed + len(self._gaps), record)
                self._gaps.append(self._fed)
            else:
                self._ready += record
                self._fed += 1
