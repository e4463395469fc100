"""Inputs that can be read only once, kept in a file: standard input, web addresses, objects in S3.

A load reads its input more than once (a sample, the rows, the lines of rejects), and resumes by its content: so what
streams in is written to a private file first, and hashed on the way.
"""

from __future__ import annotations

import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import xxhash

from headrace.errors import ConfigurationError, InputError

__all__ = ["Spooled", "is_remote", "spool_stdin", "spool_url"]

_BLOCK = 1 << 20
_TIMEOUT = 30.0
_TYPES = {
    "text/csv": "x.csv",
    "text/tab-separated-values": "x.tsv",
    "application/geo+json": "x.geojson",
    "application/vnd.geo+json": "x.geojson",
    "application/x-ndjson": "x.jsonl",
    "application/jsonl": "x.jsonl",
    "application/json": "x.json",
    "application/vnd.apache.parquet": "x.parquet",
}


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file in the spool: what the user calls it, a name that tells its format, and the hash of its content."""

    name: str
    path: Path
    name_hint: str
    fingerprint: str
    size: int


def is_remote(text: str) -> bool:
    """Whether `text` is an address to fetch."""
    return urlsplit(text).scheme in ("http", "https", "s3")


def spool_stdin(folder: Path) -> Spooled:
    """Standard input, to its end. Raises `InputError` if it cannot be read."""
    try:
        return _spool(sys.stdin.buffer.read, "-", "-", folder)
    except OSError as error:
        raise InputError(f"standard input cannot be read ({error})", where="-", hint="pipe the data in") from error


def spool_url(url: str, folder: Path) -> Spooled:
    """What `url` gives. Raises `InputError` (status, unreachable, cut short); its message has no credentials."""
    name = _without_credentials(url)
    return _from_s3(url, name, folder) if urlsplit(url).scheme == "s3" else _from_web(url, name, folder)


def _from_web(url: str, name: str, folder: Path) -> Spooled:
    request = urllib.request.Request(_without_user(url), headers={"User-Agent": "headrace"})  # noqa: S310 is_remote has seen to the scheme
    for header, value in _authorization(url).items():
        request.add_unredirected_header(header, value)  # another host must not be told the password
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 the same
            kind = response.headers.get_content_type()
            path = urlsplit(url).path
            spooled = _spool(response.read, name, path if Path(path).suffix else _TYPES.get(kind, path), folder)
            announced = response.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        error.close()
        raise InputError(
            f"the server answered {error.code} {error.reason}", where=name, hint="check the address and the permissions"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise InputError(
            f"the address cannot be read ({why})", where=name, hint="check the network, then run the same command again"
        ) from error
    # http.client tells of an answer cut short only to those who read it in one piece
    if announced is not None and announced.isdigit() and spooled.size != int(announced):
        raise InputError(
            f"the answer was cut short: {spooled.size} of {announced} bytes",
            where=name,
            hint="run the same command again",
        )
    return spooled


def _from_s3(url: str, name: str, folder: Path) -> Spooled:
    try:
        fsspec: Any = import_module("fsspec")
        import_module("s3fs")
    except ImportError:
        raise ConfigurationError("reading s3:// needs an extra", hint="pip install 'headrace[s3]'") from None
    try:
        with fsspec.open(url, "rb") as file:
            return _spool(file.read, name, urlsplit(url).path, folder)
    except FileNotFoundError:
        raise InputError("there is no such object", where=name, hint="check the bucket and the key") from None
    except Exception as error:  # whatever the S3 client underneath raises: its classes are not ours to know
        raise InputError(
            f"the object cannot be read ({error})", where=name, hint="check the credentials and the network"
        ) from error


def _spool(read: Callable[[int], bytes], name: str, name_hint: str, folder: Path) -> Spooled:
    """Write all that `read` gives to a new file that only this user can read."""
    folder.mkdir(parents=True, exist_ok=True)
    number, path = tempfile.mkstemp(dir=folder, prefix="input-")  # created with mode 0600
    digest = xxhash.xxh3_128()
    with os.fdopen(number, "wb") as file:
        while block := read(_BLOCK):
            digest.update(block)
            file.write(block)
        size = file.tell()
    return Spooled(name, Path(path), name_hint, f"xxh3_128:{digest.hexdigest()}", size)


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _without_credentials(url: str) -> str:
    """The address fit for messages: neither user nor password, and no query, which may hold a key."""
    return urlunsplit(urlsplit(_without_user(url))._replace(query="", fragment=""))


def _authorization(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    headers: dict[str, str] = {}
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"
    return headers
