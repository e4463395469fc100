"""Die at every step of a load, at its k-th time: run again, and the table is what it must be.

Whole, k rises at each step until the load survives; by default a sample of the same deaths is tried, drawn by a seed.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.evidence import Record, keep
from support.failpoints import FAULT, HITS
from support.nursery import Ended, Nursery
from support.oracle import OPTIONS, WAYS, Found, Oracle, first_wins, forget
from support.processes import left_behind
from support.program import Headrace, scaled

ROWS = 60
BOTH = ("before", "after")
ANYWHERE = [
    *(f"{what} {when}" for what in ("ledger", "table", "contract", "run", "dispatch", "land") for when in BOTH),
    *(
        f"{what} {when}"
        for what in ("receipt", "alerts", "rejects", "COMMIT", "discard", "books", "cleanup")
        for when in BOTH
    ),
    "read chunk",
    "read end",
]
WRITING = {"sqlite": "INSERT", "postgresql": "COPY"}


@dataclass
class Bench:
    """One store and one way to load, in a folder of its own."""

    nursery: Nursery
    headrace: Headrace
    oracle: Oracle
    way: str
    scratch: Path
    lingered: float = 0.0
    """Seconds that the last process of a load outlived its coordinator, at most."""

    def load(self, *, fault: str = "", mode: Sequence[str] | None = None, words: Sequence[str] = ()) -> Ended:
        self.hits.write_text("")
        chosen = WAYS[self.way] if mode is None else mode
        return self.nursery.run(
            ["load", str(self.oracle.path), *OPTIONS, "--chunk-rows", "20", *chosen, "--output", "json", *words],
            {
                "HEADRACE_DATABASE_URL": self.headrace.url,
                "TMPDIR": str(self.scratch),
                HITS: str(self.hits),
                FAULT: fault or "none:0:alone",
            },
            self.headrace.folder,
        )

    def load_again(self, words: Sequence[str]) -> dict[str, Any]:
        ended = self.load(mode=WAYS["sequential"], words=words)
        assert ended.code == 3, ended.stderr
        report: dict[str, Any] = json.loads(ended.stdout)
        return report

    @property
    def hits(self) -> Path:
        return self.scratch / "hits"

    def reached(self) -> Counter[str]:
        """The steps that the last load reached, and how often."""
        return Counter(self.hits.read_text().split("\n")[:-1])

    def die_until_it_survives(self, step: str, whom: str, chance: random.Random, *, most: int) -> Iterator[Found]:
        """Die at `step` for the first time, the second …: what the oracle says after each death and resumption."""
        for number in range(1, most + 1):
            forget(self.headrace)
            where = f"{step} {number} {whom}"
            ended = self.load(fault=f"{step}:{number}:{whom}")
            assert not ended.orphans, f"{where}: {ended.orphans}"
            self.lingered = max(self.lingered, ended.lingered)
            if self.reached()[step] < number:
                assert ended.code == 3, f"{where}\n{ended.stderr}"
                return
            yield self._resumed(ended, where, chance)

    def _resumed(self, ended: Ended, where: str, chance: random.Random) -> Found:
        if ended.code != 3:
            # what one way has begun another may finish; mostly the one that costs least
            ended = self.load(mode=WAYS[self.way if chance.random() < 0.25 else "sequential"])
            assert ended.code == 3, f"{where}\n{ended.stderr}"
        found = self.oracle.look(self.headrace, first_wins=first_wins(self.way))
        if not any(found):
            self.oracle.check_ledger(self.headrace)
            assert left_behind(self.headrace, self.scratch, "none") == {}, where
        return found


@pytest.fixture
def bench(nursery: Nursery, headrace: Headrace, tmp_path: Path, scratch: Path, seed: int, way: str) -> Bench:
    return Bench(nursery, headrace, Oracle(tmp_path / "events.csv", ROWS, seed), way, scratch)


def steps_of(store: str, way: str) -> list[str]:
    """The steps that every load of this kind reaches."""
    steps = [*ANYWHERE, *(f"{WRITING[store]} {when}" for when in ("start", "middle", "end"))]
    if way != "sequential":
        steps += ["spool start", "spool middle", "spool end"]
    return steps


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_step_run_again_done(bench: Bench, seed: int, way: str) -> None:
    chance = random.Random(seed)
    store = bench.headrace.url.partition(":")[0]
    steps = steps_of(store, way)
    whole = scaled(10) == 10
    # a worker may die alone, or with the coordinator; in sequential mode there is only the one process
    deaths = [(step, whom) for step in steps for whom in (["all"] if way == "sequential" else ["alone", "all"])]
    if not whole:
        deaths = chance.sample(deaths, 4 if way == "sequential" else 1)
    wrong = False
    for step, whom in deaths:
        bench.lingered = 0.0
        founds = list(bench.die_until_it_survives(step, whom, chance, most=1000 if whole else 1))
        assert founds, f"{step} is never reached: bring the list of steps up to date"
        moment = step if whom == "all" else f"{step} (one process)"
        where = f"{store}, {way}"
        lingered = None if way == "sequential" else bench.lingered
        keep(Record.of("SIGKILL at a step", moment, where, founds, seed=seed, rows=ROWS, longest=lingered))
        wrong = wrong or any(any(found) for found in founds)
    assert not wrong
    bench.oracle.check_rerun(bench.headrace, bench.load_again)
