"""An oracle of what a table must hold, which shares nothing with the product: a plain dict by a key of its own.

It makes the input as well: events with duplicates in the input, some of them with other values, rows that must be
rejected, and events that are in the table before. It asks the database in plain SQL.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from support.program import Headrace

__all__ = ["OPTIONS", "WAYS", "Found", "Oracle", "first_wins", "forget"]

OPTIONS = ("--table", "t", "--id", "key,at", "--time", "at", "--type", "key=integer", "--alert", "third=key % 3 = 0")
WAYS = {
    "sequential": ("--mode", "sequential"),
    "partitioned": ("--mode", "parallel", "--workers", "2", "--partitions", "2"),
    "upsert": ("--mode", "parallel", "--workers", "2", "--strategy", "upsert"),
    "locked": ("--mode", "parallel", "--workers", "2", "--strategy", "locked", "--partitions", "2"),
}
LEDGER = (
    "headrace_alerts",
    "headrace_contracts",
    "headrace_receipts",
    "headrace_rejects",
    "headrace_runs",
    "headrace_providers",
)
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
Key = tuple[int, str]


class Found(NamedTuple):
    """What there is too little of, twice, and beyond its due: events, rejects and alerts together."""

    lost: int
    duplicated: int
    unexpected: int


@dataclass
class Oracle:
    """The input of `rows` rows in `path`, and what must come of it. `seed` decides both."""

    path: Path
    rows: int
    seed: int
    rejects: set[int] = field(default_factory=set)
    events: int = 0
    """Rows that are events: all but the rejects."""
    first: dict[Key, int] = field(default_factory=dict)
    """For each event, the digest of its first row in the input, the row that must win unless workers race."""
    later: dict[Key, set[int]] = field(default_factory=dict)
    """The digests of its other rows, where there are any."""

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)
        lines = ["key,at,value"]
        for number in range(self.rows):
            if number % 97 == 41:
                lines.append(f"not a number,{EPOCH.isoformat()},value {number}")
                self.rejects.add(number)
                continue
            known = chance.randrange(max(1, self.rows * 4 // 5))
            moment = _text(EPOCH + timedelta(seconds=known % 5000))
            lines.append(f"{known},{moment},value {number}")
            self._expect((known, moment), f"value {number}")
        self.path.write_text("\n".join(lines) + "\n")

    def _expect(self, key: Key, value: str) -> None:
        self.events += 1
        digest = _digest(key, value)
        if self.first.setdefault(key, digest) != digest:
            self.later.setdefault(key, set()).add(digest)

    # Judging ----------------------------------------------------------------------------------------------------

    def look(self, headrace: Headrace, *, first_wins: bool) -> Found:
        """Compare events, rejects and alerts with what must be there, one by one."""
        if headrace.query_one_if_table("t", "SELECT count(*) FROM t") is None:
            return Found(len(self.first) + self.rejects, 0, 0)
        rows = Counter(_row(*row) for row in headrace.query("SELECT key, at, value FROM t"))
        keys = Counter({key: 0 for key, _ in rows})
        for (key, _), count in rows.items():
            keys[key] += count
        # a run over what an earlier one finished keeps the rejects again, as its own
        kept = Counter((run, row) for run, row in headrace.query("SELECT run_id, row_number FROM headrace_rejects"))
        rejected = {row for _, row in kept}
        raised = Counter(
            json.loads(payload)["key"] for (payload,) in headrace.query("SELECT payload FROM headrace_alerts")
        )
        alerts = {key for key, _ in self.first if key % 3 == 0}
        return Found(
            lost=len(self.first.keys() - keys.keys()) + len(self.rejects - rejected) + len(alerts - raised.keys()),
            duplicated=sum(count - 1 for count in [*keys.values(), *kept.values(), *raised.values()]),
            unexpected=sum(not self._may_be(key, digest, first_wins) for key, digest in rows)
            + len(rejected - self.rejects)
            + len(raised.keys() - alerts),
        )

    def _may_be(self, key: Key, digest: int, first_wins: bool) -> bool:
        return digest == self.first.get(key) or (not first_wins and digest in self.later.get(key, set()))

    def check_ledger(self, headrace: Headrace) -> None:
        """The receipts of the first run tell the books of the whole input; one after it has found nothing new."""
        runs = headrace.query("SELECT run_id, status, inserted FROM headrace_runs ORDER BY started_at")
        assert [(status, inserted) for _, status, inserted in runs[1:]] == [("done", 0)] * (len(runs) - 1)
        assert runs[0][1] == "done"
        counted = headrace.query(
            'SELECT run_id, sum("read"), sum(inserted), sum(duplicate_in_input) + sum(duplicate_in_store), '
            "sum(rejected) FROM headrace_receipts GROUP BY run_id"
        )
        books = {run: tuple(map(int, sums)) for run, *sums in counted}
        repeated = self.events - len(self.first)
        assert books[runs[0][0]] == (self.rows, len(self.first), repeated, len(self.rejects))

    def check_rerun(self, headrace: Headrace, load: Callable[[Sequence[str]], dict[str, Any]]) -> None:
        """Loaded once more, nothing goes in."""
        report = load(["--no-resume"])
        assert (report["read"], report["inserted"], report["rejected"]) == (self.rows, 0, len(self.rejects))
        assert headrace.count("t") == len(self.first)


def first_wins(way: str) -> bool:
    """Whether the first of several rows of an event is the one that is kept."""
    return way in ("sequential", "partitioned")


def forget(headrace: Headrace) -> None:
    """Empty the database."""
    for table in ("t", *LEDGER):
        headrace.query(f"DROP TABLE IF EXISTS {table}")


def _row(key: int, at: Any, value: str) -> tuple[Key, int]:
    moment = at if isinstance(at, datetime) else datetime.fromisoformat(at).replace(tzinfo=UTC)
    own = (key, _text(moment.astimezone(UTC)))
    return own, _digest(own, value)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _digest(key: Key, value: str) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps([*key, value]).encode()).digest()[:8])
