"""Cutting a long JSON document into its elements, one at a time, each with its line and its exact text.

Python's own scanner finds where a value ends; the buffer holds little more than one value. The scanner builds what it
reads, up to thirty times the text, so that long values are followed by their brackets instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NoReturn

from headrace.errors import InputError
from headrace.reading.json_brackets import Brackets
from headrace.reading.text_stream import LONGEST, Utf8

__all__ = ["elements"]

_BLOCK = 1 << 20
_LONG = 4 << 20  # characters of a value that the scanner is not given any more
_SPACE = " \t\r\n"


def elements(stream: Utf8, name: str, *, features: bool) -> Iterator[tuple[int, bytes]]:
    """The line (1-based) and UTF-8 text of each element: of the top-level array, or with `features` of the array that
    is the top-level object's member ``features``, or else of each value where values follow one another.

    Raises `InputError` where the document is malformed or ends too early.
    """
    document = _Document(stream, name)
    if document.peek() == "[":
        yield from _array(document)
    elif features:
        yield from _features(document)
    else:
        while document.peek():
            yield document.value()
    if document.peek():
        document.fail("something follows the end of the document")


def _array(document: _Document) -> Iterator[tuple[int, bytes]]:
    document.expect("[")
    if document.peek() == "]":
        document.expect("]")
        return
    while True:
        yield document.value()
        if document.expect(",]") == "]":
            return


def _features(document: _Document) -> Iterator[tuple[int, bytes]]:
    document.expect("{")
    if document.peek() == "}":
        document.fail("there is no member 'features'")
    found = False
    while True:
        name = document.name()
        document.expect(":")
        if name == "features" and document.peek() == "[":
            found = True
            yield from _array(document)
        else:
            document.value()
        if document.expect(",}") == "}":
            break
    if not found:
        document.fail("there is no array 'features'")


class _Document:
    """The part of the text that is not consumed yet, and the line where it begins.

    UTF-8 is held as if it were Latin-1, one character a byte: all that JSON is built of is ASCII, and one rare
    character would make Python hold four bytes for each of the others.
    """

    def __init__(self, stream: Utf8, name: str) -> None:
        self._stream = stream
        self._name = name
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False
        # what the scanner lets through here, DuckDB judges value by value; Python refuses integers of 4,300 digits
        self._scan = json.JSONDecoder(strict=False, parse_int=str).raw_decode

    def peek(self) -> str:
        """The next character that is no white space; ``""`` at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._line += self._text[self._at] == "\n"
                self._at += 1
            if self._ended:
                return ""
            self._more()

    def expect(self, wanted: str) -> str:
        """Consume the next character, which must be one of `wanted`."""
        found = self.peek()
        if not found:
            self.fail("the document ends too early")
        if found not in wanted:
            found = self._text[self._at : self._at + 4].encode("latin-1").decode(errors="replace")[0]
            self.fail(f"there is {found!r} where one of {' '.join(wanted)} is expected")
        self._at += 1
        return found

    def value(self) -> tuple[int, bytes]:
        """Consume the next value: its line and text."""
        bracketed, brackets = self.peek() in {"{", "[", '"'}, Brackets()
        while True:
            held = len(self._text) - self._at
            end = brackets.end(self._text, self._at) if bracketed and held > _LONG else self._end_of_value()
            if end is not None:
                break
            if self._ended or held > LONGEST:
                self.fail("no JSON value can be read here: it has no end, or is too long")
            self._more()
        text, line = self._text[self._at : end], self._line
        self._line += text.count("\n")
        self._at = end
        return line, text.encode("latin-1")

    def name(self) -> str:
        """Consume the name of a member."""
        if self.peek() not in {'"', ""}:
            self.fail("the name of a member must be a string, and there is something else")
        _, text = self.value()
        try:
            found: str = json.loads(text.decode(), strict=False)
        except ValueError as error:  # its brackets alone were looked at
            self.fail(f"no name of a member can be read here ({error})")
        return found

    def fail(self, what: str) -> NoReturn:
        """Raise `InputError` for the place reached."""
        raise InputError(
            what, where=f"{self._name}, line {self._line}", hint="the file is malformed or truncated: fetch it again"
        )

    def _end_of_value(self) -> int | None:
        """Where the value that begins here ends; ``None`` if more text is needed to tell."""
        try:
            _, end = self._scan(self._text, self._at)
        except (json.JSONDecodeError, RecursionError) as error:
            if self._ended or isinstance(error, RecursionError):
                self.fail(f"no JSON value can be read here ({error})")
            return None
        # a number may go on in the next block, also where ".", "e" or "e+" stands between it and the end of this one
        return end if self._ended or end + 2 < len(self._text) or self._text[end - 1] in '}]"' else None

    def _more(self) -> None:
        """Read on; as much again as is held, so that one long value is scanned a logarithmic number of times, and never
        much beyond the longest value there may be.
        """
        rest = self._text[self._at :]
        self._text, self._at = "", 0
        wanted, blocks = min(max(_BLOCK, len(rest)), LONGEST + _BLOCK - len(rest)), [rest]
        while wanted > 0 and not self._ended:
            block = self._stream.read(_BLOCK)
            self._ended = not block
            blocks.append(block.decode("latin-1"))
            wanted -= len(block)
        self._text = "".join(blocks)
