"""Inputs that can be read only once, kept in a file: standard input, web addresses, objects in S3.

A load reads its input more than once (a sample, the rows, the lines of rejects), and resumes by its content: so a
stream is first written to a private file, and hashed on the way.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from headrace.errors import ConfigurationError, InputError
from headrace.reading.fetch.spool import Spooled, spool

__all__ = ["is_remote", "spool_file", "spool_stdin", "spool_url"]


def is_remote(text: str) -> bool:
    """Whether `text` is an address to fetch."""
    return urlsplit(text).scheme in ("http", "https", "s3")


def spool_stdin(folder: Path) -> Spooled:
    """Standard input, to its end. Raises `InputError` if it cannot be read."""
    try:
        return spool(sys.stdin.buffer.read, "-", "-", folder)
    except OSError as error:
        raise InputError(f"standard input cannot be read ({error})", where="-", hint="pipe the data in") from error


def spool_file(path: Path, name: str, folder: Path) -> Spooled:
    """A pipe or another file that can be read once, to its end. Raises `OSError`."""
    with path.open("rb") as file:
        return spool(file.read, name, path.name, folder)


def spool_url(url: str, folder: Path, *, shown: str | None = None) -> Spooled:
    """What `url` gives, called `shown`. Raises `InputError` (status, unreachable, cut short), without credentials."""
    name = shown or _without_credentials(url)
    if urlsplit(url).scheme == "s3":
        return _from_s3(url, name, folder)
    from headrace.reading.fetch.http import fetch  # noqa: PLC0415 - urllib3 takes its time, and files need none

    return fetch(url, folder, shown=name).spooled


def _from_s3(url: str, name: str, folder: Path) -> Spooled:
    try:
        fsspec: Any = import_module("fsspec")
        import_module("s3fs")
    except ImportError:
        raise ConfigurationError("reading s3:// needs an extra", hint="pip install 'headrace[s3]'") from None
    try:
        with fsspec.open(url, "rb") as file:
            spooled, size = spool(file.read, name, urlsplit(url).path, folder), getattr(file, "size", None)
    except FileNotFoundError:
        raise InputError("there is no such object", where=name, hint="check the bucket and the key") from None
    except Exception as error:  # whatever the S3 client underneath raises: its classes are not ours to know
        raise InputError(
            f"the object cannot be read ({error})", where=name, hint="check the credentials and the network"
        ) from error
    if size is not None and spooled.size != size:
        raise InputError("the object was cut short", where=name, hint="run the same command again")
    return spooled


def _without_credentials(url: str) -> str:
    """The address fit for messages: neither user nor password, and no query, which may hold a key."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
