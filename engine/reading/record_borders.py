"""Where the records of a text file begin and end, told from a part of the file: so that a worker reads its own range.

    … 3,"a        range k of the file, bytes low to high
    b",7⏎  ◄────── begins behind the first line feed: a guess, right unless that is inside quotes
    4,c,8⏎
    5,"d⏎
    e",9⏎  ◄────── ends behind the record that crosses `high`: exact, if the range's beginning is

A range whose beginning is not the end of the range before it has guessed wrongly, and is read again from there. So
nothing depends on the guess, nor on how many quotes a file has.

Quotes are counted where each stands as it should: an opening one behind a delimiter or a line's end, a closing one
before such a thing, a doubled one between. Then a line feed behind an even number of quotes ends a record. In a range
with any other quote, records are told apart line by line (`headrace.reading.csv_records`), which costs a microsecond
each.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headrace.errors import InputError
from headrace.reading.csv_records import quoted_after, text_lines
from headrace.reading.text_stream import LONGEST

__all__ = ["ReadAt", "count_lines", "next_line", "record_end"]

ReadAt = Callable[[int, int], bytes]
"""Reads the file's bytes from one offset up to another."""

_LF, _CR, _QUOTE = b'\n\r"'
_LOOK = 1 << 16


def next_line(read: ReadAt, low: int, size: int) -> int:
    """The offset behind the first line feed at or after ``low - 1``: where a record begins, if no quote is open there;
    `size`, the file's, if there is none.
    """
    at = max(0, low - 1)
    while at < size:
        found = read(at, min(size, at + _LOOK)).find(b"\n")
        if found >= 0:
            return at + found + 1
        at += _LOOK
    return size


def record_end(read: ReadAt, start: int, high: int, size: int, delimiter: str | None, name: str) -> memoryview:
    """The file's bytes from `start`, where a record begins, up to the first record that begins at or after `high`.

    `delimiter` is that of a CSV file; ``None``: each line is a record. Raises `InputError` for a record longer than
    `LONGEST`.
    """
    behind, text = _LOOK, b""
    while True:
        more = read(start + len(text), min(size, high + behind))
        text = text + more if text else more
        border = _border(text, max(0, high - 1 - start), delimiter, name, whole=start + len(text) >= size)
        if border is not None:
            return memoryview(text)[:border]
        if behind > LONGEST:
            raise InputError(
                f"a line or record has more than {LONGEST >> 20} MiB",
                where=name,
                hint="look for a quote that opens and never closes, or for a file that is not text",
            )
        behind *= 4


def count_lines(text: memoryview, *, carriage_returns: bool) -> int:
    """The physical lines of whole records: their ends are LF, or with `carriage_returns` also CRLF and CR."""
    numbers = np.frombuffer(text, dtype=np.uint8)
    feeds = numbers == _LF
    returns = numbers == _CR if carriage_returns else feeds[:0]
    if not returns.any():
        return int(feeds.sum())
    return int(feeds.sum() + returns.sum() - (returns[:-1] & feeds[1:]).sum())


def _border(text: bytes, least: int, delimiter: str | None, name: str, *, whole: bool) -> int | None:
    """The first offset behind `least` where a record of `text` begins, its end if it is the `whole` rest; ``None`` if
    more must be read.
    """
    if delimiter is None or b'"' not in text:
        found = text.find(b"\n", least)
    else:
        numbers = np.frombuffer(text, dtype=np.uint8)
        quotes = np.flatnonzero(numbers == _QUOTE)
        if not _in_place(numbers, quotes, ord(delimiter)):
            found = _line_by_line(text, least, delimiter, name)
        else:
            ends = least + np.flatnonzero(numbers[least:] == _LF)
            outside = ends[np.searchsorted(quotes, ends) % 2 == 0]
            found = int(outside[0]) if len(outside) else -1
    if found >= 0:
        return found + 1
    return len(text) if whole else None


def _in_place(text: NDArray[np.uint8], quotes: NDArray[np.int64], delimiter: int) -> bool:
    """Whether each quote opens a field, closes it, or is doubled inside it. The last may go on behind `text`."""
    opening, closing = quotes[0::2], quotes[1::2]
    before = text[np.maximum(opening, 1) - 1]
    after = text[np.minimum(closing + 1, len(text) - 1)]
    begins = (opening == 0) | _separates(before, delimiter) | (before == _QUOTE)
    ends = (closing == len(text) - 1) | _separates(after, delimiter) | (after == _QUOTE)
    return bool(begins.all() and ends.all())


def _separates(characters: NDArray[np.uint8], delimiter: int) -> NDArray[np.bool_]:
    separates: NDArray[np.bool_] = (characters == delimiter) | (characters == _LF) | (characters == _CR)
    return separates


def _line_by_line(text: bytes, least: int, delimiter: str, name: str) -> int:
    """The offset of the line feed at or after `least` that ends a record, -1 if there is none."""
    opening, at, quoted = delimiter.encode() + b'"', 0, False
    for line in text_lines(io.BytesIO(text), name):
        quoted = quoted_after(line, opening, quoted, begins=not quoted)
        at += len(line)
        if not quoted and at > least and line.endswith(b"\n"):
            return at - 1
    return -1
