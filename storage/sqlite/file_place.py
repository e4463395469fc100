"""The place of an SQLite database, determined once from its URL; and whether the opened file is still in
that place.

    sqlite:///x.db              a file, relative to the folder that the process is in *now*
    sqlite:///file:x.db?uri=true   the same, as SQLite's own URI
    sqlite://, :memory:, mode=memory   in this process's memory: no other process can see it

A process may change its folder, and a worker, or the thread that renews claims, opens the database by its URL later.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

import sqlalchemy as sa

__all__ = ["PlacedFile", "absolute", "file_of", "in_memory"]

_URI = "file:"
_MEMORY = ":memory:"


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """The file of a connection: its path, and the facts that distinguish it from another file under the same path."""

    path: Path
    identity: tuple[int, int] | None

    @classmethod
    def at(cls, path: Path) -> Self:
        """The file that lies there now; links are followed, and so one that is bent leads to another file."""
        return cls(path, _identity(path))

    def is_in_place(self) -> bool:
        """Whether the path still leads to this file. Under Unix a file that was removed can be written to for ever."""
        return _identity(self.path) == self.identity


def absolute(url: str) -> str:
    """`url` with the path of an SQLite file made absolute; any other as it is, also one that cannot be read."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return url  # `open_store` says what is wrong with it
    if parsed.get_backend_name() != "sqlite" or in_memory(parsed):
        return url
    name = str(parsed.database)
    if not _is_uri(parsed):
        placed = str(Path(name).absolute())
    elif (path := name.removeprefix(_URI)).startswith("/"):
        return url
    else:
        placed = f"{_URI}{quote(str(Path.cwd()))}/{path}"
    if placed == name:
        return url
    if "?" in placed:  # which would begin the query: only SQLite's own URI can spell it
        parsed, placed = parsed.update_query_dict({"uri": "true"}), f"{_URI}{quote(placed)}"
    return parsed.set(database=placed).render_as_string(hide_password=False)


def in_memory(url: sa.URL | str) -> bool:
    """Whether the database lies in this process's memory."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return False
    name = parsed.database or _MEMORY
    uri = name.startswith(_URI) and (_MEMORY in name or "mode=memory" in name or parsed.query.get("mode") == "memory")
    return parsed.get_backend_name() == "sqlite" and (name == _MEMORY or uri)


def file_of(url: sa.URL) -> Path | None:
    """The file of an SQLite database, ``None`` for one in memory."""
    if in_memory(url):
        return None
    if not _is_uri(url):
        return Path(str(url.database)).absolute()
    path = unquote(str(url.database).removeprefix(_URI).partition("?")[0])
    # an authority, of which SQLite takes none but localhost
    return Path(path.removeprefix("//localhost").replace("//", "/", 1) if path.startswith("//") else path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _is_uri(url: sa.URL) -> bool:
    asked = str(url.query.get("uri", "")).lower() in ("true", "1", "yes", "on", "y", "t")
    return asked and str(url.database).startswith(_URI)
