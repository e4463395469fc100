"""Which lines and branches of each room the tests have run, as a page.

``python tests/support/coverage_by_room.py coverage.json`` prints it; ``make coverage`` writes it.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["page"]

ENOUGH = 90.0
"""Percent of a module's branches. A module below has its reason in `REASONS`, or needs a test."""
REASONS: dict[str, str] = {}
"""By module: why so few of its branches run."""
HEAD = """# Branch coverage

`make coverage` runs `make test` and writes this page. Tests run real commands, in processes that are killed: what such
a process ran before its death is not counted. A branch is a jump from one line to another; the sum counts lines and
branches together.

| room | lines | of them run | branches | of them run | sum |
|---|--:|--:|--:|--:|--:|
"""
BELOW = f"""
Modules of which less than {ENOUGH:.0f} % of the branches ran:

| module | branches | why |
|---|--:|---|
"""


@dataclass
class Ran:
    """Lines and branches, and how many of them ran."""

    lines: int = 0
    lines_run: int = 0
    branches: int = 0
    branches_run: int = 0

    def add(self, summary: Mapping[str, Any]) -> None:
        """Add the figures of a file."""
        self.lines += summary["num_statements"]
        self.lines_run += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.branches_run += summary["covered_branches"]

    @property
    def percent(self) -> float:
        """Of lines and branches together."""
        every = self.lines + self.branches
        return 100 * (self.lines_run + self.branches_run) / every if every else 100.0

    @property
    def branch_percent(self) -> float:
        """Of the branches."""
        return 100 * self.branches_run / self.branches if self.branches else 100.0


def page(found: Mapping[str, Any]) -> str:
    """The page for the content of a ``coverage.json``."""
    rooms: dict[str, Ran] = defaultdict(Ran)
    modules: dict[str, Ran] = defaultdict(Ran)
    for path, told in found["files"].items():
        module = path.rpartition("headrace/")[2].removesuffix(".py").replace("/", ".")
        for where in (rooms[module.partition(".")[0]], rooms["all"], modules[module]):
            where.add(told["summary"])
    order = sorted(rooms, key=lambda room: (room == "all", room))
    rows = [
        f"| {room} | {ran.lines:,} | {100 * ran.lines_run / max(1, ran.lines):.1f} % | {ran.branches:,} | "
        f"{ran.branch_percent:.1f} % | {ran.percent:.1f} % |"
        for room in order
        for ran in [rooms[room]]
    ]
    low = sorted((ran.branch_percent, name) for name, ran in modules.items() if ran.branch_percent < ENOUGH)
    told = [f"| `{name}` | {percent:.0f} % | {REASONS.get(name, 'a test is missing')} |" for percent, name in low]
    return HEAD + "\n".join([*rows, ""]) + BELOW + "\n".join([*told, ""])


if __name__ == "__main__":
    print(page(json.loads(Path(sys.argv[1]).read_text())), end="")
