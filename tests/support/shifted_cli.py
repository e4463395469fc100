"""The command line on a machine whose clock is wrong: ``python shifted_cli.py DAYS WORD...``.

Every clock that Headrace's own code can read is off by so many days; the database server's is right.
"""

from __future__ import annotations

import pkgutil
import sys
import time
from datetime import datetime, timedelta, tzinfo
from importlib import import_module
from typing import Self

import headrace
from headrace.cli.main import main


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


def wrong_clock(days: float) -> type[datetime]:
    """A ``datetime`` whose ``now`` is off by `days`."""

    class Wrong(datetime, metaclass=_AnyDatetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return datetime.now(tz) + timedelta(days=days)  # type: ignore[return-value]

    return Wrong


def shift(days: float) -> None:
    """Set the clocks of this process's Headrace wrong."""
    for module in pkgutil.walk_packages(headrace.__path__, "headrace."):
        if not module.name.endswith("__main__"):
            loaded = import_module(module.name)
            if getattr(loaded, "datetime", None) is datetime:
                loaded.datetime = wrong_clock(days)  # type: ignore[attr-defined]
    right = time.time
    time.time = lambda: right() + days * 86_400


if __name__ == "__main__":
    shift(float(sys.argv.pop(1)))
    main()
