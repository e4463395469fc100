"""From what the user names to files of a known format, in a fixed order.

path  glob  directory ──► sorted files
-  http(s)://  s3://  ──► spooled to a private file, hashed while it is written     ──► Located: path, format, key
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Literal, get_args

from headrace.errors import ConfigurationError, InputError
from headrace.spool import is_remote, spool_stdin, spool_url
from headrace.spooled import Spooled
from headrace.streams import Utf8, open_bytes, readable

__all__ = ["Format", "Located", "locate_inputs", "locate_spooled"]

Format = Literal["csv", "tsv", "json", "jsonl", "geojson", "parquet"]

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
_GEOJSON = re.compile(rb'"features"\s*:\s*\[')


@dataclass(frozen=True, slots=True)
class Located:
    """One file to read. `name` is what the user calls it, `fingerprint` tells its content from another's."""

    name: str
    path: Path
    format: Format
    fingerprint: str
    size: int


def locate_inputs(text: str, forced: str | None, spool: Path | None) -> list[Located]:
    """The files that `text` stands for: itself, what a pattern matches, what a directory holds, or what was spooled.

    Raises `InputError` where there is nothing, `ConfigurationError` for a format that does not exist.
    """
    if forced is not None and forced not in get_args(Format):
        raise ConfigurationError(f"there is no format {forced!r}", hint=f"one of {', '.join(get_args(Format))}")
    if text == "-" or is_remote(text):
        if spool is None:
            raise ConfigurationError(f"{text} needs a folder to be spooled to", hint="give a file instead")
        spooled = spool_stdin(spool) if text == "-" else spool_url(text, spool)
        return [locate_spooled(spooled, forced)]
    return [_located(path, forced, text) for path in _files(text, forced)]


def locate_spooled(spooled: Spooled, forced: str | None) -> Located:
    """A file that was spooled already. Raises `InputError` if it cannot be read."""
    kind = _format(spooled.path, spooled.name_hint, forced, spooled.name)
    return Located(spooled.name, spooled.path, kind, spooled.fingerprint, spooled.size)


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


def _located(path: Path, forced: str | None, text: str) -> Located:
    name = text if str(path) == text else str(path)
    with readable(name):
        facts = path.stat()
        kind = _format(path, path.name, forced, name)
    key = f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}"
    return Located(name, path, kind, key, facts.st_size)


def _by_suffix(name: str) -> Format | None:
    path = Path(name.lower())
    while path.suffix in _COMPRESSED:
        path = path.with_suffix("")
    return _SUFFIXES.get(path.suffix)


def _format(path: Path, hint: str, forced: str | None, name: str) -> Format:
    """The format forced, or the suffix's, or the content's. ``json`` is told apart by content in any case."""
    kind: str = forced or _by_suffix(hint) or _by_content(path, name)
    if kind == "json":
        return _json_shape(_head(path, name))
    return next(known for known in get_args(Format) if known == kind)


def _by_content(path: Path, name: str) -> Format:
    head = _head(path, name)
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


def _head(path: Path, name: str) -> bytes:
    with readable(name), path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return b"PAR1"
    with open_bytes(path) as stream, readable(name):
        return b"".join(_blocks(Utf8(stream)))


def _blocks(text: Utf8) -> Iterator[bytes]:
    left = _HEAD
    while left > 0 and (block := text.read(left)):
        left -= len(block)
        yield block
