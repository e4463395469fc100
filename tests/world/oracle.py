"""What must be there after a command: the rule, as a model that shares nothing with the product.

It knows the rows of every input, because it wrote them, and an event by provider and ``k``; it knows nothing of IDs,
chunks, snapshots or receipts. It is asked with two pictures of the table, and says for each event that a command read
which rows the table may hold of it.

**What is owed.** After a command that ends with exit 0 (or returns a report):

- an event that was there when the command began, and that the world did not touch meanwhile, is there with the same
  values; under ``update``, with those of its newest version, of the table's and the input's rows;
- an event that was not there, and is read, is there once, with the values of its first row in input order; where
  workers race for it (``upsert``, ``locked``) with those of one of its rows; under ``update`` with those of its newest;
- or all its rows are kept as rejects of this run.

**What the world does inside a command.** The judge takes pictures before and after each act of the world. What differs
between the two is *touched*: such an event may be in the table or not, with any of the values that it had or came with.
An event that the act did not touch is owed as if nothing had happened. In particular an event that was not in the table
when the world emptied it in the middle of a load is owed: no belief may hide it. For an input that the world replaced
while it was read, either content may have been read, but one of them whole.

**A neighbour's own trigger** may set columns that no input has. What it makes of a column that an input has is its own
doing, and not played here; that it swallows, moves or renames an event is.

**Columns.** A column that an input does not have is null in the rows that it brings, or what the table's default says.
A value is compared as text, alike for all types that lose nothing (`world.database.norm`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from world.database import Key, Picture, norm
from world.files import Row, is_bad, key_of

__all__ = ["Input", "Owed", "Shown", "expected", "fails", "good", "matches", "owed"]

Shown = dict[str, str | None]


@dataclass(frozen=True)
class Input:
    """What a command read: the rows by source in order, the provider, and how repeats are treated."""

    rows: Sequence[tuple[str, int, Row]]
    provider: str
    policy: str = "ignore"
    races: bool = False
    """Whether any row of an event may win, not only its first."""
    unlucky: bool = False
    """Whether an enrichment rejects some rows (`unlucky`)."""


@dataclass(frozen=True)
class Owed:
    """What the table may hold of one event: rows, each by its values."""

    may_be: tuple[Shown, ...]
    new: bool


def good(row: Row, table: Picture) -> bool:
    """Whether `row` can be an event of the table as it is: a text column takes any words."""
    return bool(row["k"]) and (not is_bad(row) or table.is_text("v"))


def fails(row: Row) -> bool:
    """Whether an enrichment raises on `row`: the oracle's own copy of the user's rule."""
    return row["v"].isdigit() and int(row["v"]) % 7 == 0


def expected(read: Input, after: Picture) -> dict[Key, list[Shown]]:
    """The values of every distinct event of the input, in input order; those that an enrichment rejects left out."""
    found: dict[Key, list[Shown]] = {}
    for _, _, row in read.rows:
        if good(row, after) and not (read.unlucky and fails(row)):
            # a field that is empty is null
            shown = {name: norm(value) if value else None for name, value in row.items()}
            found.setdefault(key_of(row, read.provider), []).append(shown)
    return found


def owed(read: Input, before: Picture, after: Picture) -> dict[Key, Owed]:
    """What the table must hold of each event that was read, and that no neighbour touched."""
    result = {}
    for key, rows in expected(read, after).items():
        held = before.events.get(key, [])
        if read.policy == "update":
            result[key] = Owed(tuple(_newest([*held, *rows], held)), not held)
        elif held:
            result[key] = Owed(tuple(held), False)
        else:
            result[key] = Owed(tuple(rows) if read.races else (rows[0],), True)
    return result


def _newest(rows: Iterable[Shown], held: Sequence[Shown]) -> list[Shown]:
    rows = list(rows)
    if any(not (row.get("ver") or "").isdigit() for row in rows):
        return rows  # a version that says nothing: no row is newer
    best = max(int(row["ver"] or 0) for row in rows)
    of_table = [row for row in held if int(row["ver"] or 0) == best]
    # a tie leaves the table's row as it is
    return of_table or [row for row in rows if int(row["ver"] or 0) == best]


def matches(row: Shown, one: Shown, columns: Iterable[str]) -> bool:
    """Whether the table's `row` has the values of `one` in all of its `columns` that `one` has."""
    return all(row.get(name) == one[name] for name in columns if name in one)
