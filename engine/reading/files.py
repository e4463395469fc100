"""From the user's inputs to files of a known format, in a fixed order.

path  glob  directory ──► sorted files
-  http(s)://  s3://  ──► spooled to a private file, hashed while it is written     ──► Located: path, format, key
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from stat import S_ISREG
from typing import get_args

from headrace.errors import ConfigurationError, InputError
from headrace.reading.choices import Format
from headrace.reading.fetch.spool import Spooled
from headrace.reading.input_spool import is_remote, spool_file, spool_stdin, spool_url
from headrace.reading.not_data import require_data
from headrace.reading.steady_files import Steady
from headrace.reading.text_stream import Utf8, open_text, readable

__all__ = ["Located", "locate_inputs", "locate_spooled"]

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".geojson": "geojson",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED = {".gz", ".zst", ".zip"}
_HEAD = 1 << 16
# files that stay open from the beginning: they are read as they were, whatever takes their place before their turn
_MOST_HELD = 128
_GEOJSON = re.compile(rb'"features"\s*:\s*\[')


@dataclass(frozen=True, slots=True)
class Located:
    """One file to read. `name` is the user's name for it, `fingerprint` distinguishes its content from another's."""

    name: str
    file: Steady
    format: Format
    fingerprint: str
    size: int


def locate_inputs(text: str, forced: str | None, spool: Path | None) -> list[Located]:
    """Locate the files of `text`: the file itself, the matches of a pattern, the content of a directory, or a spooled
    file.

    Raises `InputError` if there is no file, `ConfigurationError` for an unknown format.
    """
    if forced is not None and forced not in get_args(Format):
        raise ConfigurationError(f"there is no format {forced!r}", hint=f"one of {', '.join(get_args(Format))}")
    if text == "-" or is_remote(text):
        folder = _folder(spool, text)
        spooled = spool_stdin(folder) if text == "-" else spool_url(text, folder)
        return [locate_spooled(spooled, forced)]
    found = _files(text, forced)
    return [_located(path, forced, text, spool, hold=len(found) <= _MOST_HELD) for path in found]


def locate_spooled(spooled: Spooled, forced: str | None) -> Located:
    """A file that was spooled already. Raises `InputError` if it cannot be read."""
    with readable(spooled.name):
        file = Steady(spooled.path, spooled.name, hold=True, vouched=spooled.vouched, ours=True)
    if spooled.media is not None:
        require_data(_head(file), spooled.name, spooled.media)
    kind = _format(file, spooled.name_hint, forced)
    return Located(spooled.name, file, kind, spooled.fingerprint, spooled.size)


def _files(text: str, forced: str | None) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        return _in_directory(path, forced)
    if path.exists() or not has_magic(text):
        return [path]
    base = Path(path.anchor) if path.is_absolute() else Path()
    pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
    found = sorted(match for match in base.glob(pattern) if match.is_file() and not _hidden(match, base))
    if not found:
        raise InputError(
            "no file matches this pattern", where=text, hint="check the pattern, and quote it in the shell"
        )
    return found


def _in_directory(folder: Path, forced: str | None) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder))
    known = [path for path in files if forced or _by_suffix(path.name)]
    if not known:
        hint = f"it takes {', '.join(_SUFFIXES)}, also with {', '.join(sorted(_COMPRESSED))}"
        raise InputError("the directory holds no file of a known format", where=str(folder), hint=hint)
    formats = {_by_suffix(path.name) for path in known} if forced is None else {forced}
    if len(formats) > 1:
        raise ConfigurationError(
            f"the directory mixes formats: {', '.join(sorted(filter(None, formats)))}",
            where=str(folder),
            hint="name the files by a pattern, such as 'folder/*.csv'",
        )
    return known


def _hidden(path: Path, base: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(base).parts)


def _located(path: Path, forced: str | None, text: str, folder: Path | None, *, hold: bool) -> Located:
    name = text if str(path) == text else str(path)
    with readable(name):
        if _is_read_once(path):
            return locate_spooled(spool_file(path, name, _folder(folder, name)), forced)
        file = Steady(path, name, hold=hold)
    kind = _format(file, path.name, forced)
    key = f"{path.resolve()}:{file.size}:{file.facts.modified}"
    return Located(name, file, kind, key, file.size)


def _is_read_once(path: Path) -> bool:
    """Whether `path` is a pipe or the like: what was read of it is gone, or its length says nothing."""
    facts = path.stat()
    if S_ISREG(facts.st_mode) and not facts.st_size:
        with path.open("rb") as file:
            return bool(file.read(1))
    return not S_ISREG(facts.st_mode)


def _folder(folder: Path | None, name: str) -> Path:
    if folder is None:
        raise ConfigurationError(f"{name} needs a folder to be spooled to", hint="give a file instead")
    return folder


def _by_suffix(name: str) -> Format | None:
    path = Path(name.lower())
    while path.suffix in _COMPRESSED:
        path = path.with_suffix("")
    return _SUFFIXES.get(path.suffix)


def _format(file: Steady, hint: str, forced: str | None) -> Format:
    """The format forced, or the suffix's, or the content's. ``json`` is told apart by content in any case."""
    kind: str = forced or _by_suffix(hint) or _by_content(file)
    if kind == "json":
        return _json_shape(_head(file))
    return next(known for known in get_args(Format) if known == kind)


def _by_content(file: Steady) -> Format:
    head = _head(file)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.lstrip()[:1] in (b"{", b"["):
        return _json_shape(head)
    return "tsv" if b"\t" in head.split(b"\n")[0] else "csv"


def _json_shape(head: bytes) -> Format:
    """``geojson``, ``json`` (an array, or values over several lines) or ``jsonl``."""
    start = head.lstrip()
    if start[:1] != b"{":
        return "json"
    if _GEOJSON.search(head):
        return "geojson"
    first = start.split(b"\n", 1)[0].rstrip()
    return "jsonl" if first.endswith(b"}") or b"\n" not in start else "json"


def _head(file: Steady) -> bytes:
    with readable(file.name), file.opened() as source:
        if source.peek(4) == b"PAR1":
            return b"PAR1"
    with open_text(file) as text, readable(file.name):
        return b"".join(_blocks(text))


def _blocks(text: Utf8) -> Iterator[bytes]:
    left = _HEAD
    while left > 0 and (block := text.read(left)):
        left -= len(block)
        yield block
