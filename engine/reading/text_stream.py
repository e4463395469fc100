"""Bytes of a file as text: decompressed, checked to be UTF-8, with every fault turned into an `InputError`.

    file ──► gzip, zstd, zip undone ──► UTF-8, or each invalid byte escaped ──► the CSV and JSON readers

An invalid byte must reject its row and not the load, but the readers below give up at the first invalid byte. So each
is replaced by a character of a private-use plane, U+10FF00 plus the byte: the text stays valid, the row is found by
that character and refused, and the character gives the byte back (`unescape`).
"""

from __future__ import annotations

import codecs
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa

from headrace.errors import InputError
from headrace.reading.arrow_pacing import Readable, ReadOnly
from headrace.reading.steady_files import Pass, Steady

__all__ = [
    "ESCAPED",
    "LONGEST",
    "TAIL",
    "Excerpt",
    "FileProgress",
    "Utf8",
    "is_compressed",
    "open_text",
    "readable",
    "unescape",
]

_PLANE = 0x10FF00
ESCAPED = f"[{chr(_PLANE + 0x80)}-{chr(_PLANE + 0xFF)}]"
"""A regular expression for one escaped byte."""
LONGEST = 80 << 20
"""The most bytes that a line, a record or a JSON value may have: what is longer must not fill the memory."""
_BLOCK = 1 << 20
TAIL = 1 << 16
"""How many bytes of a text's end are kept."""
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_PLANE + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("headrace-escape", _escape)


def unescape(text: str) -> str:
    r"""`text` with escaped bytes shown as ``\xff``."""
    return re.sub(ESCAPED, lambda match: f"\\x{ord(match[0]) - _PLANE:02x}", text)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn failures of reading `name` into an `InputError` that says what to do."""
    try:
        yield
    except FileNotFoundError:
        raise InputError("there is no such file", where=name, hint="check the path") from None
    except PermissionError:
        raise InputError("the file may not be read", where=name, hint="check its permissions") from None
    except IsADirectoryError:
        raise InputError("this is a directory, not a file", where=name, hint="give a file in it") from None
    except (pa.ArrowException, OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"cannot be read to its end ({str(error).splitlines()[0]})",
            where=name,
            hint="it may be truncated or damaged: fetch it again, then run the same command",
        ) from error


class FileProgress:
    """The progress in a file, by its compressed bytes, because the size of the others is unknown beforehand."""

    def __init__(self) -> None:
        self._file: Any = None
        self._size = 0

    def watch(self, file: Any, size: int) -> None:
        """Follow `file`, an open file of `size` bytes."""
        self._file, self._size = file, size

    @property
    def share(self) -> float:
        """From 0 to 1."""
        if self._file is None:
            return 0.0
        return 1.0 if self._file.closed or not self._size else min(1.0, self._file.tell() / self._size)


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins with `head` is compressed: names lie."""
    return any(head.startswith(magic) for magic in _MAGIC)


@contextmanager
def open_text(file: Steady | Excerpt, progress: FileProgress | None = None) -> Iterator[Utf8]:
    """The decompressed bytes of `file` as text. A zip must hold exactly one file."""
    if isinstance(file, Excerpt):
        yield Utf8(_ExcerptBytes(file.text), at_start=file.at_start)
        return
    with readable(file.name), file.opened() as source:
        (progress or FileProgress()).watch(source, file.size)
        start = source.peek(4)
        # names lie
        compression = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
        if compression is None:
            yield Utf8(source, source)
        elif compression == "zip":
            with _open_zip(source, file.name) as stream:
                yield Utf8(stream, source)
        else:
            with pa.CompressedInputStream(pa.PythonFile(source, mode="r"), compression) as stream:
                yield Utf8(stream, source)


@contextmanager
def _open_zip(source: Pass, name: str) -> Iterator[Readable]:
    with zipfile.ZipFile(cast("IO[bytes]", source)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise InputError(
                f"the archive holds {len(names)} files; exactly one is allowed", where=name, hint="unpack it first"
            )
        try:
            member = archive.open(names[0])
        except (NotImplementedError, RuntimeError) as error:  # its way of packing, or a password
            raise InputError(f"the archive cannot be unpacked ({error})", where=name, hint="unpack it first") from error
        with member:
            yield member


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Whole records of an uncompressed text file, to be read in its place; `at_start` if they are its first."""

    text: memoryview
    name: str
    at_start: bool


class _ExcerptBytes:
    """Bytes to read, of which only what is read is copied."""

    def __init__(self, text: memoryview) -> None:
        self._text = text
        self._at = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; ``b""`` at the end."""
        block = bytes(self._text[self._at : self._at + size])
        self._at += len(block)
        return block


class Utf8(ReadOnly):
    """A stream of bytes that are always UTF-8: a file object to read from, without a byte order mark.

    `escaped` says whether a byte had to be escaped so far, `tail` is the end of what was read, `at_start` whether the
    stream begins where its file does.
    """

    def __init__(self, stream: Readable, source: Pass | None = None, *, at_start: bool = True) -> None:
        self._stream = stream
        self._source = source
        self._ready = b""
        self._cut = b""
        self._first = self.at_start = at_start
        self.escaped = False
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; ``b""`` at the end only."""
        if not self._ready:
            self._ready = self._next(size if size > 0 else _BLOCK)
        part, self._ready = (self._ready, b"") if size < 0 else (self._ready[:size], self._ready[size:])
        return part

    def check(self) -> None:
        """Check the file before a piece is handed on. Raises `InputChangedError` if the file has changed."""
        if self._source is not None:
            self._source.check()

    def finish(self, *, lines: bool) -> None:
        """At the end: `check`, and where `lines` count, that the last one is whole if it has no end."""
        if self._source is not None:
            self._source.check(last=True)
            if lines and self.tail and not self.tail.endswith((b"\n", b"\r")):
                self._source.require_finished()

    def _next(self, size: int) -> bytes:
        while True:
            block = self._stream.read(size)
            clean = (
                block if block and not self._cut and block.isascii() else self._checked(self._cut + block, not block)
            )
            if self._first and clean:
                clean, self._first = clean.removeprefix(codecs.BOM_UTF8), False
            if clean or not block:
                self.tail = clean[-TAIL:] if len(clean) >= TAIL else (self.tail + clean)[-TAIL:]
                return clean

    def _checked(self, data: bytes, final: bool) -> bytes:
        """`data` as UTF-8; a character that the block's end cut in two waits for the next block."""
        try:
            _, used = codecs.utf_8_decode(data, "strict", final)
            clean = data[:used]
        except UnicodeDecodeError:
            text, used = codecs.utf_8_decode(data, "headrace-escape", final)
            clean, self.escaped = text.encode(), True
        self._cut = data[used:]
        return clean
