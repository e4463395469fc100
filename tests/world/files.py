"""The inputs: rows as texts, written by the standard library, and remembered as they were written.

``k`` is the identity, and ``at`` its time, which hangs on ``k`` alone. ``v`` is a number, ``w`` a text and ``ver`` a
version. A *bad* row has words where ``v`` should be a number. A *nameless* row has neither ``k`` nor ``at``.
"""

from __future__ import annotations

import csv
import json
import os
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from world.database import Key, norm

__all__ = ["DATA", "KEYS", "File", "Row", "is_bad", "key_of", "make_rows", "moment_of"]

Row = dict[str, str]
KEYS = 30
DATA = ("k", "at", "v", "w", "ver")
LONG_AGO = datetime(2024, 2, 29, tzinfo=UTC)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
WORDS = ("plain", "a", "é", 'say "b"', "c,d", "ß" * 3)


def moment_of(k: int) -> str:
    """When event `k` happened: half of them lie before every window."""
    base = LONG_AGO if k % 2 else TODAY
    return (base + timedelta(minutes=k)).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_rows(pick: int, count: int, *, extra: bool = False, bad: float = 0.0, nameless: float = 0.0) -> list[Row]:
    """`count` rows as the number `pick` has them; some events come more than once, with other values."""
    chance = random.Random(pick)
    rows = []
    for _ in range(count):
        k, version = chance.randrange(KEYS), chance.randrange(1, 9)
        words = f"{chance.choice(WORDS)}{version}"
        row = {"k": str(k), "at": moment_of(k), "v": str(chance.randrange(200)), "w": words, "ver": str(version)}
        if extra:
            row["x"] = f"x{chance.randrange(9)}"
        if chance.random() < bad:
            row["v"] = "oops"
        if chance.random() < nameless:
            row["k"] = row["at"] = ""
        rows.append(row)
    return rows


def key_of(row: Row, provider: str) -> Key:
    """The event that `row` is a row of."""
    return provider, norm(row["k"]) or ""


def is_bad(row: Row) -> bool:
    """Whether ``v`` is no number."""
    return row["v"] == "oops"


@dataclass
class File:
    """A file, and its rows as they were written last."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    there: bool = False

    def write(self, rows: list[Row]) -> None:
        """Replace it, under its name, by a new file."""
        text = _json_lines(rows) if self.path.suffix == ".jsonl" else _csv(rows)
        beside = self.path.with_name(self.path.name + ".new")
        beside.write_bytes(text)
        beside.replace(self.path)
        self.rows, self.there = rows, True

    def grow(self, rows: list[Row]) -> None:
        """Add rows at its end."""
        if self.rows and self.rows[0].keys() != rows[0].keys():
            rows = [{name: row.get(name, "") for name in self.rows[0]} for row in rows]
        text = _json_lines(rows) if self.path.suffix == ".jsonl" else _csv(rows).split(b"\n", 1)[1]
        with self.path.open("ab") as file:
            file.write(text)
        self.rows = [*self.rows, *rows]

    def cut(self, rows: int) -> None:
        """Leave only so many rows, in the same file."""
        text = _json_lines(self.rows[:rows]) if self.path.suffix == ".jsonl" else _csv(self.rows[:rows])
        os.truncate(self.path, len(text))
        self.rows = self.rows[:rows]

    def disguise(self, rows: list[Row]) -> None:
        """Replace it by other rows under the same size and time, as far as the sizes can be the same."""
        was = self.path.stat()
        self.write(rows)
        lacking = was.st_size - self.path.stat().st_size
        if lacking > 0 and rows:
            rows[-1]["w"] += "z" * lacking
            self.write(rows)
        os.utime(self.path, ns=(was.st_atime_ns, was.st_mtime_ns))

    def remove(self) -> None:
        """Delete it."""
        self.path.unlink(missing_ok=True)
        self.there = False


def _csv(rows: list[Row]) -> bytes:
    names = list(rows[0]) if rows else list(DATA)
    lines: list[str] = []

    class _Lines:
        def write(self, text: str) -> None:
            lines.append(text)

    writer = csv.DictWriter(_Lines(), names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines).encode()


def _json_lines(rows: list[Row]) -> bytes:
    return "".join(
        json.dumps({n: _plain(n, v) for n, v in row.items()}, ensure_ascii=False) + "\n" for row in rows
    ).encode()


def _plain(name: str, value: str) -> object:
    if name in ("k", "v", "ver") and value.isdigit():
        return int(value)
    return value or None
