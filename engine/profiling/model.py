"""Whether parallel mode pays for this data and this database: a model of the pipeline, and advice. Pure.

    sequential   reader thread ─► decider ─► gatherer ─► committer    as long as the busiest, and what nothing hides
    parallel     start ─► first chunks ─► max of      ─► last slices
                          what the reader takes · what the decider takes · what the workers take ÷ N ·
                          all seconds on cores ÷ the free cores · what the database takes ÷ its gain from N connections

Nothing is fitted. The sample is loaded both ways, and the model predicts only the additional time of the other rows.
Its error on the sample counts as a fixed cost of every run, and half of it widens the range. Each prediction has a
range of its own; the speed-up is a quotient of both, and its range includes both errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, hypot

from headrace.profiling.costs import Costs

__all__ = [
    "CANDIDATES",
    "WORTH",
    "Advice",
    "Machine",
    "Prediction",
    "amdahl",
    "best_workers",
    "busiest",
    "connections_gain",
    "judge",
    "parallel_seconds",
    "sequential_seconds",
    "threads",
]

WORTH = 1.1
"""Parallel mode is advised from this expected speed-up on: it has a price in memory and in what can go wrong."""
LEAST_MARGIN = 0.15
"""The part by which two runs of one load differ on a quiet machine."""
SETTLING = 0.25
"""Seconds by which the start of a load differs from one run to the next: most of the error of a load of one second."""
SHORTEST = 0.001  # seconds; no load takes less, and a smaller divisor would make a range infinite
CLOSE = 1.05
LEAST_FREE = 0.02
CANDIDATES = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class Machine:
    """`cores` this process may use; `start` are the seconds until workers work; `gain` is how many times as fast two
    connections of the database write as one; `writers` how many can write at a time, ``None`` where nothing bounds it;
    `others` are the cores that other processes keep busy.
    """

    cores: int
    start: float
    gain: float = 2.0
    writers: int | None = None
    others: float = 0.0

    @property
    def free(self) -> float:
        """The cores that are left for the load. If other processes take all cores, a small share is assumed."""
        return max(LEAST_FREE, self.cores - self.others)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds that `rows` rows take with `workers` workers (0: sequential), with a range; `bound` is what limits it."""

    workers: int
    seconds: float
    low: float
    high: float
    bound: str


def sequential_seconds(costs: Costs, rows: int, measured: float) -> float:
    """The seconds that `rows` rows take sequentially, if the sample took `measured` seconds: the busiest thread sets
    the pace of the rows that the sample does not have.
    """
    left = max(0, rows - costs.rows)
    commits = ceil(left * costs.chunks / costs.rows) if costs.rows else 0  # a last chunk costs as much, however small
    return measured + max(threads(costs, left, commits).values())


def saved_seconds(costs: Costs, rows: int, chunk_rows: int, first_rows: int | None) -> float:
    """The seconds by which the first COPY begins earlier if the first chunk has `first_rows` rows instead of
    `chunk_rows`.
    """
    if first_rows is None:
        return 0.0
    return max(0, min(rows, chunk_rows) - first_rows) * (costs.reader + costs.prepare + costs.decider)


def threads(costs: Costs, rows: int, commits: int) -> dict[str, float]:
    """The seconds that each of sequential mode's threads works for `rows` rows in `commits` commits."""
    return {
        "reading and preparing": (costs.reader + costs.prepare) * rows,
        "deciding": costs.decider * rows,
        "gathering": costs.gather * rows,
        "committing": max(0.0, costs.carry - costs.gather) * rows + costs.commit * commits,
    }


def connections_gain(machine: Machine, connections: int) -> float:
    """How many times as fast `connections` write as one: Amdahl's law with the share that two of them show."""
    if machine.writers is not None:
        connections = min(connections, machine.writers)
    alone = min(1.0, max(0.0, 2.0 / machine.gain - 1.0))
    return connections / (1.0 + alone * (connections - 1))


def amdahl(costs: Costs, workers: int) -> float:
    """The most that `workers` could gain if only the coordinator's own work were in the way."""
    whole = costs.reader + costs.decider + costs.worker
    return whole / (costs.reader + costs.decider + costs.worker / workers) if whole else 1.0


def parallel_seconds(costs: Costs, machine: Machine, rows: int, workers: int, chunk_rows: int) -> tuple[float, str]:
    """The seconds that `rows` rows take with `workers` workers, and the bound that sets the pace."""
    batch = min(rows, workers * chunk_rows)
    batches = -(-rows // (workers * chunk_rows)) if rows else 0
    # a last chunk has the round trips of a commit like any other, however small it is
    after_first = _bounds(costs, machine, rows - batch, max(0, batches - 1), workers)
    whole = _bounds(costs, machine, rows, batches, workers)
    bound = max(whole, key=lambda name: whole[name])
    first = max(machine.start, costs.reader * batch) + costs.prepare * batch / workers
    of_one = _bounds(costs, machine, batch, 1, workers)
    last = max(costs.carry * batch / workers, of_one["the database"], of_one["the cores"]) + costs.commit
    seconds = first + max(after_first.values()) + last
    on_cores = machine.start + costs.processor * rows / machine.free
    if on_cores > seconds:
        seconds, bound = on_cores, "the cores"
    if batches <= 1 and machine.start > seconds / 2:
        bound = "starting the workers"
    return costs.agree + seconds, bound


def _bounds(costs: Costs, machine: Machine, rows: int, batches: int, workers: int) -> dict[str, float]:
    """The seconds below which so many rows, in so many rounds of a chunk a worker, cannot come, by what sets them."""
    return {
        "reading": costs.reader * rows,
        "the coordinator": costs.decider * rows,
        "the workers": costs.worker * rows / workers + costs.commit * batches,
        "the cores": costs.processor * rows / machine.free,
        "the database": costs.database * rows / connections_gain(machine, workers),
    }


def best_workers(
    costs: Costs, machine: Machine, rows: int, chunk_rows: int, candidates: Sequence[int] = CANDIDATES
) -> int:
    """The fewest workers that come within 5 % of the best."""
    times = {one: parallel_seconds(costs, machine, rows, one, chunk_rows)[0] for one in candidates}
    return min(one for one in times if times[one] <= min(times.values()) * CLOSE)


@dataclass(frozen=True, slots=True)
class Advice:
    """Both predictions for all rows, the expected speed-up with its range, and the advice.

    `parallel` says whether parallel mode is advised; `because` is why, in a clause.
    """

    rows: int
    sequential: Prediction
    candidate: Prediction
    parallel: bool
    speedup: float
    speedup_low: float
    speedup_high: float
    because: str
    amdahl: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, costs: Costs, rows: int, both: tuple[Prediction, Prediction], low: float, high: float) -> Advice:
        """The advice that follows from `both` predictions, of sequential and of parallel mode; the speed-up is expected
        to be between `low` and `high`.
        """
        sequential, candidate = both
        speedup = sequential.seconds / candidate.seconds if candidate.seconds > 0 else 1.0
        parallel = speedup >= WORTH
        why = _because(costs, sequential, candidate, parallel=parallel)
        return cls(rows, sequential, candidate, parallel, speedup, low, high, why)

    def advice(self, strategy: str) -> str:
        """The recommendation in a sentence."""
        how = f"{self.speedup:.2f} times as fast ({self.speedup_low:.2f} to {self.speedup_high:.2f})"
        if not self.parallel:
            return f"stay sequential, because {self.because} ({self.candidate.workers} workers: {how})"
        options = f"--mode parallel --strategy {strategy} --workers {self.candidate.workers}"
        return f"{options}: {how}, because {self.because}"


def judge(
    costs: Costs,
    machine: Machine,
    *,
    rows: int,
    chunk_rows: int,
    sequential_sample: float,
    parallel_costs: Costs,
    parallel_sample: float,
    workers: int,
    first_rows: int | None = None,
    ranges: bool = False,
) -> Advice:
    """The verdict for `rows` rows: `costs` and `sequential_sample` are the sample's sequential run, `parallel_costs`
    and `parallel_sample` its run with `workers` workers. `first_rows` are those of the load's first chunk where
    they are fewer than the sample's first chunk had. With `ranges`, the load's workers read its inputs; the sample's
    did not.
    """
    modelled, _ = parallel_seconds(parallel_costs, machine, parallel_costs.rows, workers, chunk_rows)
    whole = parallel_costs.read_by_workers() if ranges else parallel_costs
    plain, bound = parallel_seconds(whole, machine, rows, workers, chunk_rows)
    # what the model misses on the sample every run has once: libraries loaded by each worker, plans made, caches filled
    expected = max(parallel_sample + plain - modelled, parallel_sample)
    margin = max(_margin(expected), abs(parallel_sample - modelled) / expected / 2 if expected > 0 else 0.0)
    saved = saved_seconds(costs, rows, chunk_rows, first_rows)
    alone = max(0.0, sequential_seconds(costs, rows, sequential_sample) - saved)
    alone_margin = _margin(alone)
    sequential = Prediction(0, alone, alone / (1 + alone_margin), alone * (1 + alone_margin), busiest(costs))
    candidate = Prediction(workers, expected, expected / (1 + margin), expected * (1 + margin), bound)
    speedup = alone / expected if expected > 0 else 1.0
    both = hypot(margin, alone_margin)
    found = Advice.of(costs, rows, (sequential, candidate), speedup / (1 + both), speedup * (1 + both))
    shared = costs.read_by_workers() if ranges else costs
    return replace(found, amdahl={one: amdahl(shared, one) for one in CANDIDATES})


def _margin(seconds: float) -> float:
    """The part by which a load that is expected to take `seconds` may take more, or less."""
    return LEAST_MARGIN + SETTLING / max(seconds, SHORTEST)


def busiest(costs: Costs) -> str:
    """The thread that sets the pace of sequential mode."""
    each = threads(costs, costs.rows, costs.chunks)
    return max(each, key=lambda name: each[name])


def _because(costs: Costs, sequential: Prediction, candidate: Prediction, *, parallel: bool) -> str:
    """The reason for the advice, in a clause."""
    if parallel:
        whole = costs.reader + costs.decider + costs.worker
        share = costs.worker / whole if whole else 0.0
        return (
            f"{share:.0%} of the stages' time is work that workers can share; then {candidate.bound} would be the limit"
        )
    if candidate.seconds > sequential.seconds:
        return f"{candidate.bound} would be the limit, and sequential mode already reads, prepares and writes at once"
    return f"{candidate.bound} would be the limit, and what it gains is not worth the processes"
