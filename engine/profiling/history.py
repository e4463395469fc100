"""Whether a provider has grown into needing parallel mode, from what its last loads took. Pure.

    past loads of a provider ─► the newest sequential ones ─► Costs ─► the model of `headrace.profiling.model` ─► a
    verdict
                             ├► the oldest third beside the newest third: rows and seconds a load
                             └► loads in parallel mode beside sequential ones: rows a second, as they were

No load is tried here, so the range is wide: it goes from a database that gains nothing from a second connection to one
that gains all. `headrace profile` with a delivery as its input says it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from statistics import fmean, median
from typing import Any

from headrace.loading.intake import FIRST_ROWS
from headrace.observability.stages import StageTotal
from headrace.profiling.costs import Costs, costs_from, split
from headrace.profiling.model import (
    CANDIDATES,
    Advice,
    Machine,
    Prediction,
    best_workers,
    busiest,
    parallel_seconds,
    sequential_seconds,
    threads,
)
from headrace.storage.providers import PastLoad

__all__ = ["LEAST", "Growth", "History", "Site", "histories"]

LEAST = 3
"""Loads from which on something can be said of a provider."""
NEWEST = 5
"""Sequential loads, the newest, from which the costs are taken."""
MOST_ROWS = 10**9
MARGIN = 0.1
SHORTEST = 1e-6  # seconds: what takes none at all has no speed to compare
SHOWN_STAGES = 4


@dataclass(frozen=True, slots=True)
class Site:
    """Where loads run: the cores, the seconds to the database and back, whether it is on this machine (then it works on
    the same cores), how many can write to it at a time (``None``: no bound known), and how long `workers` take to
    start, which is only asked if it matters.
    """

    cores: int
    round_trip: float
    database_here: bool
    writers: int | None
    start: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Growth:
    """The medians of the oldest and of the newest third of the loads."""

    rows_then: float
    rows_now: float
    seconds_then: float
    seconds_now: float


@dataclass(frozen=True, slots=True)
class History:
    """A provider's past loads, and what they say. `verdict` is ``None`` where there is too little to tell from;
    `pays_from` is the rows a load from which on parallel mode would pay, ``None`` if never.
    """

    provider: str
    loads: Sequence[PastLoad]
    growth: Growth | None = None
    verdict: Advice | None = None
    pays_from: int | None = None

    @property
    def in_parallel(self) -> bool:
        """Whether the newest load was in parallel mode."""
        return self.loads[-1].parallel

    @property
    def grown(self) -> bool:
        """Whether parallel mode is advised, and not on."""
        return self.verdict is not None and self.verdict.parallel and not self.in_parallel

    @property
    def advice(self) -> str:
        """What to do, in a sentence."""
        if self.in_parallel:
            return f"parallel mode is on: {self._measured()}"
        if self.verdict is None:
            return f"{len(self.loads)} loads are too few for advice; at least {LEAST} are needed"
        told = self.verdict.advice("partitioned")
        if self.verdict.parallel:
            return told
        if self.pays_from is None:
            return f"{told}; larger loads would not change this"
        return f"{told}; parallel mode would pay from about {self.pays_from:,} rows a load on"

    def _measured(self) -> str:
        speeds = {which: _speed([one for one in self.loads if one.parallel is which]) for which in (True, False)}
        told = f"{speeds[True]:,.0f} rows/s"
        return f"{told}; sequential loads ran at {speeds[False]:,.0f} rows/s" if speeds[False] else told

    def to_text(self) -> str:
        """Some lines."""
        first, last = self.loads[0], self.loads[-1]
        lines = [
            f"{self.provider} → {last.table}: the last {len(self.loads)} loads, "
            f"{first.polled_at:%Y-%m-%d %H:%M} to {last.polled_at:%Y-%m-%d %H:%M} UTC"
        ]
        if self.growth is not None:
            grown = self.growth
            lines += [
                f"  rows a load     {grown.rows_then:>12,.0f} then {grown.rows_now:>12,.0f} now",
                f"  seconds a load  {grown.seconds_then:>12,.2f} then {grown.seconds_now:>12,.2f} now",
            ]
        recent = self.loads[-NEWEST:]
        wall = sum(one.seconds for one in recent) or 1.0
        lines.append(
            f"  recent loads: {_speed(recent):,.0f} rows/s, "
            f"{sum(one.cpu_seconds for one in recent) / wall:.0%} of a core; "
            f"the machine {fmean(one.machine_cpu for one in recent):.0%} busy"
        )
        groups = sorted(split(_totals(recent)), key=lambda one: -one.seconds)
        every = sum(one.seconds for one in groups) or 1.0
        lines.append(
            "  time spent on: " + ", ".join(f"{one.name} {one.seconds / every:.0%}" for one in groups[:SHOWN_STAGES])
        )
        return "\n".join([*lines, f"  {self.advice}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        verdict = self.verdict
        return {
            "provider": self.provider,
            "table": self.loads[-1].table,
            "in_parallel": self.in_parallel,
            "grown": self.grown,
            "growth": None if self.growth is None else asdict(self.growth),
            "pays_from_rows": self.pays_from,
            "verdict": None
            if verdict is None
            else {
                "parallel": verdict.parallel,
                "workers": verdict.candidate.workers,
                "speedup": [round(one, 3) for one in (verdict.speedup_low, verdict.speedup, verdict.speedup_high)],
                "limit": verdict.candidate.bound,
            },
            "advice": self.advice,
            "loads": [{**asdict(one), "polled_at": one.polled_at.isoformat()} for one in self.loads],
        }


def histories(loads: Sequence[PastLoad], place: Site) -> list[History]:
    """What the loads say, for each provider; `loads` are by provider, the oldest first."""
    return [_history(name, list(some), place) for name, some in groupby(loads, key=lambda one: one.provider)]


def _history(provider: str, loads: list[PastLoad], place: Site) -> History:
    if len(loads) < LEAST:
        return History(provider, loads)
    growth = _growth(loads)
    alone = [one for one in loads if not one.parallel][-NEWEST:]
    if len(alone) < LEAST or loads[-1].parallel:
        return History(provider, loads, growth)
    view = _View.of(alone, place)
    verdict = view.verdict(view.costs.rows)
    return History(provider, loads, growth, verdict, view.costs.rows if verdict.parallel else view.pays_from())


def _growth(loads: Sequence[PastLoad]) -> Growth:
    third = -(-len(loads) // 3)
    then, now = loads[:third], loads[-third:]
    return Growth(
        *(median(one.read for one in some) for some in (then, now)),
        *(median(one.seconds for one in some) for some in (then, now)),
    )


@dataclass(frozen=True, slots=True)
class _View:
    """What a load of a provider costs, on the average, and where; `chunk_rows` are the rows of its chunks, `others` the
    cores that whoever else is on the machine kept busy meanwhile.
    """

    costs: Costs
    seconds: float
    chunk_rows: int
    others: float
    place: Site

    @classmethod
    def of(cls, loads: Sequence[PastLoad], place: Site) -> _View:
        rows, one_writer = sum(load.read for load in loads), place.writers == 1
        costs = costs_from(_totals(loads), rows=rows, round_trip=place.round_trip, processor=0.0, one_writer=one_writer)
        # what the database does it does on cores too: here, if it is on this machine; SQLite's is in the process's own
        served = costs.database * rows if place.database_here and not one_writer else 0.0
        used = sum(load.cpu_seconds for load in loads) + served
        wall = sum(load.seconds for load in loads)
        busy = fmean(load.machine_cpu for load in loads) * place.cores
        chunks = max(1, costs.chunks - sum(map(_began_small, loads)))
        each = replace(
            costs,
            rows=max(1, round(rows / len(loads))),
            chunks=max(1, round(chunks / len(loads))),
            agree=costs.agree / len(loads),
            processor=used / max(rows, 1),
        )
        others = min(float(place.cores), max(0.0, busy - used / wall)) if wall else 0.0
        return cls(each, wall / len(loads), max(1, round(rows / chunks)), others, place)

    def verdict(self, rows: int) -> Advice:
        """The verdict for loads of `rows` rows; workers are only started to be timed if it could matter."""
        free = self._judged(rows, 0.0)
        return self._judged(rows, self.place.start(free.candidate.workers)) if free.parallel else free

    def pays_from(self) -> int | None:
        """The rows a load from which on parallel mode would pay, to a tenth."""
        if not self._judged(MOST_ROWS, 0.0).parallel:
            return None
        start = self.place.start(CANDIDATES[0])
        low, high = self.costs.rows, MOST_ROWS
        if not self._judged(high, start).parallel:
            return None
        while high > low * 1.1 + 1:
            middle = round((low * high) ** 0.5)
            low, high = (low, middle) if self._judged(middle, start).parallel else (middle, high)
        return high

    def _judged(self, rows: int, start: float) -> Advice:
        costs, chunk_rows = self.costs, self.chunk_rows
        alone = SHORTEST + sequential_seconds(costs, rows, self.seconds)
        workers = best_workers(costs, self._machine(start, 2.0), rows, chunk_rows)
        low, high = (
            self._beside()
            + SHORTEST
            + parallel_seconds(costs, self._machine(start, gain), rows, workers, chunk_rows)[0]
            for gain in (2.0, 1.0)
        )
        _, bound = parallel_seconds(costs, self._machine(start, 1.0), rows, workers, chunk_rows)
        expected = (low + high) / 2
        sequential = Prediction(0, alone, alone / (1 + MARGIN), alone * (1 + MARGIN), busiest(costs))
        candidate = Prediction(workers, expected, low / (1 + MARGIN), high * (1 + MARGIN), bound)
        return Advice.of(costs, rows, (sequential, candidate), alone / candidate.high, alone / candidate.low)

    def _beside(self) -> float:
        """What a load takes that no stage accounts for, and that it would take in parallel mode too."""
        costs = self.costs
        each = threads(costs, costs.rows, costs.chunks).values()
        # a first chunk has passed the other threads before the busiest sets the pace
        modelled = max(each) + (sum(each) - max(each)) / costs.chunks
        return max(0.0, self.seconds - modelled - costs.agree)

    def _machine(self, start: float, gain: float) -> Machine:
        return Machine(self.place.cores, start, gain, self.place.writers, self.others)


def _began_small(load: PastLoad) -> bool:
    """Whether the load's first chunk was smaller than the others, as far as can be told from their number."""
    return not load.parallel and load.chunks > 1 and load.read > max(FIRST_ROWS, load.chunks * FIRST_ROWS // 2)


def _speed(loads: Sequence[PastLoad]) -> float:
    """Rows a second of these loads together, 0 where there are none."""
    seconds = sum(one.seconds for one in loads)
    return sum(one.read for one in loads) / seconds if seconds else 0.0


def _totals(loads: Sequence[PastLoad]) -> dict[str, StageTotal]:
    totals: dict[str, StageTotal] = {}
    for load in loads:
        for name, stage in load.stages.items():
            totals.setdefault(name, StageTotal()).take(StageTotal(*stage))
    return totals
