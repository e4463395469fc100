"""From a row's number to its line and its text: a second pass over the file, made only on request.

Only refused rows are looked up, and they come in ascending order: a locator continues where it stopped, and
starts again only for an earlier row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from headrace.errors import InputChangedError, InputError
from headrace.reading.csv_records import records_of
from headrace.reading.reader import RawLine
from headrace.reading.steady_files import Steady
from headrace.reading.text_stream import Excerpt, Utf8, open_text, unescape

__all__ = ["Locator", "csv_places"]


class Locator(threading.local):
    """Walks a file's rows with their places; `places` says how the format tells its rows apart.

    Each thread has a position of its own: one thread looks up rows as they are read, another rows that are refused
    later.
    """

    def __init__(self, file: Steady | Excerpt, places: Callable[[Utf8], Iterator[RawLine]]) -> None:
        self._file = file
        self._text: Utf8 | None = None
        self._places = places
        self._open = ExitStack()
        self._walk: Iterator[RawLine] = iter(())
        self._next: int | None = None

    def locate(self, rows: Sequence[int]) -> dict[int, RawLine]:
        """The places of `rows`; a row that is not found again is left out. Raises `InputChangedError`."""
        found = {row: self._seek(row) for row in sorted(set(rows))}
        if self._text is not None:
            self._text.check()
        return {row: place for row, place in found.items() if place is not None}

    def _seek(self, row: int) -> RawLine | None:
        try:
            if self._next is None or row < self._next:
                self._restart()
            for place in self._walk:
                self._next = (self._next or 0) + 1
                if self._next == row + 1:
                    return place
        except InputChangedError:
            self._next = None
            raise
        except (InputError, OSError):  # the pass that delivers the rows will say so, or has
            self._next = None
        return None

    def _restart(self) -> None:
        self._open.close()
        self._text = self._open.enter_context(open_text(self._file))
        self._walk, self._next = self._places(self._text), 0


def csv_places(stream: Utf8, delimiter: str, *, header: bool, name: str = "") -> Iterator[RawLine]:
    """Places of CSV records. `headrace.reading.csv_records` and Arrow's parser agree on where they end; tests hold them
    to it.
    """
    records = records_of(stream, delimiter, name)
    if header:
        next(records, None)
    for line, record in records:
        raw = record.decode().rstrip("\r\n")
        yield line, unescape(raw) if stream.escaped else raw
