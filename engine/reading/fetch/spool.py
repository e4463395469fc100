"""A stream kept in a private file, hashed while it is written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from headrace.partitioning.folders import private_folder

__all__ = ["Spooled", "spool"]

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file in the spool: the user's name for it, a name that shows its format, and the hash of its content.

    `vouched` says that nothing is missing at its end, as far as the sender said how long it is; `media` is the type
    that a server gave it.
    """

    name: str
    path: Path
    name_hint: str
    fingerprint: str
    size: int
    vouched: bool = True
    media: str | None = None


def spool(read: Callable[[int], bytes], name: str, name_hint: str, folder: Path) -> Spooled:
    """Write all that `read` gives to a new file that only this user can read."""
    private_folder(folder)
    number, path = tempfile.mkstemp(dir=folder, prefix="input-")  # created with mode 0600
    digest = xxhash.xxh3_128()
    with os.fdopen(number, "wb") as file:
        while block := read(_BLOCK):
            digest.update(block)
            file.write(block)
        size = file.tell()
    return Spooled(name, Path(path), name_hint, f"xxh3_128:{digest.hexdigest()}", size)
