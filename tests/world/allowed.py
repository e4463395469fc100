"""Acts that are switched off, each because of a fault that is known and not mended yet. Empty is the aim."""

from __future__ import annotations

from collections.abc import Callable

from world.world import Act

__all__ = ["KNOWN", "switched_off"]


KNOWN: dict[str, Callable[[Act], bool]] = {}
"""What is known, and which acts show it."""


def switched_off(one: Act) -> bool:
    """Whether `one` is left alone for now."""
    return any(shows(one) for shows in KNOWN.values())
