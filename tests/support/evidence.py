"""What fault tests have tried and found, as lines of JSON, and the table of ``docs/reliability.md`` made of them.

Each test records what it found before it judges it. With ``HEADRACE_EVIDENCE`` set to a file, records are kept there;
``python -m support.evidence FILE PAGE``, in ``tests/``, writes them into the page, between its two markers. Nobody
types the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import combinations
from pathlib import Path

import world.record
from world.record import keep_world

__all__ = [
    "BEGIN",
    "COMPARED",
    "END",
    "Record",
    "keep",
    "keep_pairs",
    "keep_world",
    "table",
    "taken_now",
    "unkept",
    "write_page",
]

BEGIN, END = "<!-- evidence: begin -->", "<!-- evidence: end -->"
SEEDS_SHOWN = 2
COMPARED = ("canonical forms", "golden vectors")
"""What compares IDs with each other: a comparison is no fault, and is never added to the faults."""
OUTCOMES = ("tries", "lost", "duplicated", "unexpected")
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Record:
    """One series of tries: `fault` at `moment`, against `where` (store, mode, strategy), over `rows` rows a load.

    Where it was measured: `longest` is how many seconds what was told to end needed at most, `memory` how much of it
    (MiB) the load took at most. `taken` is the date, and the commit of the code that was tried.
    """

    fault: str
    moment: str
    where: str
    tries: int
    lost: int
    duplicated: int
    unexpected: int
    seed: int
    rows: int
    longest: float | None = None
    memory: int | None = None
    taken: str = ""

    @property
    def compares(self) -> bool:
        """Whether a try is a comparison of IDs, and no fault."""
        return self.fault.startswith(COMPARED)

    @classmethod
    def of(
        cls,
        fault: str,
        moment: str,
        where: str,
        founds: Sequence[tuple[int, int, int]],
        *,
        seed: int,
        rows: int,
        longest: float | None = None,
    ) -> Record:
        """The tries that ended as `founds` tells: lost, duplicated and unexpected rows."""
        lost, duplicated, unexpected = (sum(column) for column in zip(*founds, strict=True))
        return cls(fault, moment, where, len(founds), lost, duplicated, unexpected, seed, rows, longest)


def keep(record: Record) -> None:
    """Print `record`, and add it to the file of evidence if there is one."""
    line = json.dumps({**asdict(record), "taken": record.taken or taken_now()})
    print(line)
    if path := os.environ.get("HEADRACE_EVIDENCE"):
        with Path(path).open("a") as file:  # appended in one write: several test processes share it
            file.write(line + "\n")


@cache
def taken_now() -> str:
    """The date and the commit of the tests' folder; ``+`` where the code was changed since."""
    words = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+", "--exclude", "*"]
    try:
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "no commit"
    return f"{datetime.now(UTC):%Y-%m-%d} {commit}"


def keep_pairs(what: str, where: str, meanings: Sequence[Hashable], ids: Sequence[str | None], seed: int = 0) -> None:
    """Keep what comparing each row's ID with each other's has found; a row that means ``None`` must have no ID.

    A pair of one meaning and two IDs is *duplicated*, as a table would hold both; one of two meanings and one ID is
    *lost*; *unexpected* are rows that have no ID and should, or the other way round.
    """
    known = [(meaning, one) for meaning, one in zip(meanings, ids, strict=True) if meaning is not None and one]
    lost = duplicated = 0
    for (meaning, one), (other_meaning, other) in combinations(known, 2):
        lost += meaning != other_meaning and one == other
        duplicated += meaning == other_meaning and one != other
    wrong = sum((meaning is None) != (one is None) for meaning, one in zip(meanings, ids, strict=True))
    tries = len(known) * (len(known) - 1) // 2 + len(ids) - len(known)
    keep(Record(f"canonical forms: {what}", "in the input", where, tries, lost, duplicated, wrong, seed, len(ids)))


def unkept() -> dict[str, str]:
    """The environment of a test run that is to fail: what it finds says nothing about the product."""
    return {name: value for name, value in os.environ.items() if name != "HEADRACE_EVIDENCE"}


def table(records: Sequence[Record]) -> str:
    """The records as a Markdown table, those of one fault, moment and place added up.

    Faults and comparisons of IDs have a sum each.
    """
    groups: dict[tuple[str, str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.fault, record.moment, record.where, record.rows].append(record)
    lines = [
        "| fault | moment | where | rows | tries | lost | duplicated | unexpected | longest, s | memory, MiB | seeds "
        "| date, commit |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for (fault, moment, where, rows), group in sorted(groups.items()):
        seeds = sorted({one.seed for one in group})
        shown = ", ".join(map(str, seeds[:SEEDS_SHOWN])) + (" …" if len(seeds) > SEEDS_SHOWN else "")
        longest = _most([one.longest for one in group], ".1f")
        memory = _most([one.memory for one in group], ",")
        taken = ", ".join(sorted({one.taken for one in group}))
        cells = [fault, moment, where, f"{rows:,}", *_sums(group), longest, memory, shown, taken]
        lines.append(f"| {' | '.join(cells)} |")
    for name, kind in (("all faults", False), ("all comparisons of IDs", True)):
        sums = _sums([one for one in records if one.compares is kind])
        lines.append(f"| **{name}** | | | | {' | '.join(f'**{one}**' for one in sums)} | | | | |")
    return "\n".join(lines)


def _sums(records: Sequence[Record]) -> list[str]:
    return [f"{sum(getattr(one, name) for one in records):,}" for name in OUTCOMES]


def _most(measured: Sequence[float | None], form: str) -> str:
    known = [one for one in measured if one is not None]
    return format(max(known), form) if known else ""


def write_page(evidence: Path, page: Path) -> None:
    """Put the table of `evidence` between the markers of `page`."""
    lines = [json.loads(line) for line in evidence.read_text().splitlines()]
    records = [Record(**line) for line in lines if "world" not in line]
    text = between(page.read_text(), BEGIN, table(records), END) if records else page.read_text()
    if worlds := [line["world"] for line in lines if "world" in line]:
        text = between(text, world.record.BEGIN, world.record.page(worlds), world.record.END)
    page.write_text(text)


def between(text: str, begin: str, new: str, end: str) -> str:
    """`text` with `new` between two markers."""
    return f"{text[: text.index(begin) + len(begin)]}\n\n{new}\n\n{text[text.index(end) :]}"


if __name__ == "__main__":
    write_page(Path(sys.argv[1]), Path(sys.argv[2]))
