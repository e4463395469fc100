"""From a row's number to the line where it starts and its text: a second pass over the file, made only when asked.

Only rows that are refused are looked up, and they come in ascending order: a locator goes on where it stopped, and
starts again only for a row that lies behind it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from headrace.errors import InputError
from headrace.reading import Place
from headrace.streams import Utf8, open_bytes, unescape

__all__ = ["CsvLocator", "LineLocator", "text_lines"]

_BLOCK = 1 << 20
# The reader's own limit on a record, in characters: the csv module's default of 131,072 is too short for a field.
_FIELD_LIMIT = 64 << 20


def text_lines(stream: Utf8) -> Iterator[bytes]:
    """The stream's physical lines with their ends (LF, CRLF or CR), the last one perhaps without."""
    rest = b""
    while block := stream.read(_BLOCK):
        lines = (rest + block).splitlines(keepends=True)
        # the last may go on in the next block; so may a CR before an LF
        rest = lines.pop()
        yield from lines
    yield from rest.splitlines(keepends=True)


class _Locator:
    """Walks rows with their places; subclasses say how a file's rows are told apart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = ExitStack()
        self._walk: Iterator[Place] = iter(())
        self._next: int | None = None

    def locate(self, rows: Sequence[int]) -> dict[int, Place]:
        """The places of `rows`; a row that is not found again is left out."""
        found: dict[int, Place] = {}
        for row in sorted(set(rows)):
            place = self._seek(row)
            if place is not None:
                found[row] = place
        return found

    def _seek(self, row: int) -> Place | None:
        if self._next is None or row < self._next:
            self._restart()
        try:
            for place in self._walk:
                self._next = (self._next or 0) + 1
                if self._next == row + 1:
                    return place
        except (InputError, csv.Error):
            self._next = None
        return None

    def _restart(self) -> None:
        self._open.close()
        self._walk, self._next = self._places(Utf8(self._open.enter_context(open_bytes(self._path)))), 0

    def _places(self, stream: Utf8) -> Iterator[Place]:
        raise NotImplementedError


class CsvLocator(_Locator):
    """Places of CSV records. The csv module and Arrow's parser agree on where records end; tests hold them to it."""

    def __init__(self, path: Path, delimiter: str, *, header: bool) -> None:
        super().__init__(path)
        self._delimiter = delimiter
        self._header = header

    def _places(self, stream: Utf8) -> Iterator[Place]:
        read: list[str] = []

        def lines() -> Iterator[str]:
            for line in text_lines(stream):
                read.append(line.decode())
                yield read[-1]

        csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
        records = csv.reader(lines(), delimiter=self._delimiter)
        before, skip = 0, self._header
        for record in records:
            line, before, text = before + 1, records.line_num, "".join(read)
            read.clear()
            if record and not skip:
                yield line, unescape(text.rstrip("\r\n"))
            skip = skip and not record


class LineLocator(_Locator):
    """Places of JSON lines: every line that is not blank is a row."""

    def _places(self, stream: Utf8) -> Iterator[Place]:
        for number, line in enumerate(text_lines(stream), start=1):
            if line.strip():
                yield number, unescape(line.decode().rstrip("\r\n"))
