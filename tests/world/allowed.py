"""Acts that are switched off, each because of a fault that is known and not mended yet. Empty is the aim."""

from __future__ import annotations

from collections.abc import Callable

from world.world import Act

__all__ = ["KNOWN", "switched_off"]


def _does(*names: str) -> Callable[[Act], bool]:
    return lambda one: one["do"] in names


KNOWN: dict[str, Callable[[Act], bool]] = {
    "receipts hide what is gone (3)": _does("delete some", "truncate", "drop", "rename and recreate", "restore"),
    "types are believed in (1, 4)": _does("alter payload type", "alter identity type", "rebuild with other type"),
    "triggers, rules and keys that are none (7, 9)": _does("trigger", "replace the key", "row security"),
    "a bad and a good row of one event (5)": lambda one: bool(one.get("enrich")),
    "columns that the database fills (20)": _does("add own column"),
    "a replay in parallel mode (2)": _does("replay"),
    "a poll believes what it has seen (29)": _does("poll"),
    "rows without identity": lambda one: one.get("odd") == "nameless",
    "files that change while they are read (10, 27)": lambda one: bool(one.get("inside")) and "file" in one,
    "lost commits (21)": _does("lose power"),
    "a cleaner of the temporary folder, a moving folder (26, 30)": _does("sweep temporary folder", "change folder"),
}
"""What is known, and which acts show it."""


def switched_off(one: Act) -> bool:
    """Whether `one` is left alone for now."""
    return any(shows(one) for shows in KNOWN.values())
