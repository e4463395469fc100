"""What fault tests have tried and found, as lines of JSON: kept in the file that ``HEADRACE_EVIDENCE`` names."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Record", "keep"]


@dataclass(frozen=True)
class Record:
    """One series of tries: `fault` at `moment`, against `where` (store, mode, strategy), over `rows` rows a load."""

    fault: str
    moment: str
    where: str
    tries: int
    lost: int
    duplicated: int
    unexpected: int
    seed: int
    rows: int


def keep(record: Record) -> None:
    """Print `record`, and add it to the file of evidence if there is one."""
    line = json.dumps(asdict(record))
    print(line)
    if path := os.environ.get("HEADRACE_EVIDENCE"):
        with Path(path).open("a") as file:  # appended in one write: several test processes share it
            file.write(line + "\n")
