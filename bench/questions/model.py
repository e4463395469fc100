"""When is it the database, the network or the workers that bound a load? The model of the verdict, checked.

    calibrate     `headrace profile` of a million events, once: what each stage costs a row, what a commit costs
    predict       every load that the other questions measured, from those costs and nothing else
    extrapolate   the same model for more cores, with the database on a machine of its own

What the model knows of the database's gain from more connections is what raw COPY over two of them showed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from bench.measure import server
from bench.measure.datasets import DATASETS, Situation, write_input
from bench.measure.harness import Bench, Run, medians, run_process, warm
from bench.peers.registry import headrace_command
from bench.questions.loads import job_for
from headrace.loading.intake import FIRST_ROWS
from headrace.profiling.costs import Costs
from headrace.profiling.model import Machine, parallel_seconds

__all__ = ["Case", "cases", "measure", "outlook", "seconds_of"]

CHUNK_ROWS = 131_072
# of a commit: BEGIN, receipt and savepoint; COPY and its end; the books and COMMIT
ROUND_TRIPS = 4
ROUND_TRIPS_OF_A_RUN = 25
ENRICH = 20e-6


@dataclass(frozen=True, slots=True)
class Case:
    """A load that was measured: its rows and their cut, workers (0: sequential), what is added, what it took."""

    name: str
    rows: int
    measured: float
    chunk_rows: int = CHUNK_ROWS
    workers: int = 0
    round_trip: float = 0.0
    enrich: float = 0.0


def measure(bench: Bench) -> None:
    """The calibration, in rounds."""
    results, rows = bench.results("model"), bench.options.rows
    path = write_input(bench.data, "fires", "parquet", rows, 0, Situation("fresh"))
    for number in range(1, bench.options.rounds + 1):
        if results.has(rows=rows, round=number):
            continue
        job = job_for(bench, server.create_database(bench.url, "run"), path, DATASETS["fires"])
        words = headrace_command(sys.executable, job, Path(job.scratch))
        words[words.index("load")] = "profile"
        words = [word for word in words if word not in {"--progress", "none"}]
        warm(path)
        done = run_process([*words, "--sample", "0"], scratch=bench.scratch)
        if done.exit_code:
            sys.exit(f"the profile failed:\n{done.complaint}")
        told = json.loads(done.said)
        results.add({"rows": rows, "round": number, "costs": told["costs"], "machine": told["machine"], **done.figures})


def calibrated(runs: Sequence[Run]) -> tuple[Costs, Machine]:
    """The median of each cost, and of the machine."""
    return Costs(**_middle([run["costs"] for run in runs])), Machine(**_middle([run["machine"] for run in runs]))


def _middle(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    every = {name: sorted(one[name] for one in found if one[name] is not None) for name in found[0]}
    return {name: values[len(values) // 2] if values else None for name, values in every.items()}


def seconds_of(costs: Costs, machine: Machine, case: Case) -> tuple[float, str]:
    """What the load takes by its own report, and what bounds it."""
    paid = replace(
        costs,
        carry=costs.carry + case.enrich,
        processor=costs.processor + case.enrich,
        commit=costs.commit + ROUND_TRIPS * case.round_trip,
        agree=costs.agree + ROUND_TRIPS_OF_A_RUN * case.round_trip,
    )
    if case.workers:
        return parallel_seconds(paid, machine, case.rows, case.workers, case.chunk_rows)
    first = min(case.rows, case.chunk_rows, FIRST_ROWS) * (paid.reader + paid.prepare + paid.decider)
    chunks = ceil(case.rows / case.chunk_rows) + (min(case.rows, case.chunk_rows) > FIRST_ROWS)
    network = chunks * ROUND_TRIPS * case.round_trip
    commits = chunks * costs.commit
    bounds = {
        "reading and preparing": (paid.reader + paid.prepare) * case.rows,
        "the database": paid.carry * case.rows + commits + network,
        "the cores": paid.processor * case.rows / machine.cores,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    if bound == "the database":
        shares = {"the database": paid.database * case.rows, "the network": network, "enrich": case.enrich * case.rows}
        return paid.agree + first + bounds[bound], max(shares, key=lambda name: shares[name])
    return paid.agree + first + bounds[bound], bound


def cases(contents: Mapping[str, Mapping[str, Any]]) -> Iterator[Case]:
    """What the other questions measured, from Parquet, all new, into PostgreSQL."""
    if "loads" in contents:
        runs = [
            run
            for run in contents["loads"]["runs"]
            if (run["peer"], run["dataset"], run["situation"]) == ("headrace", "fires", "fresh")
            and run["format"] == "parquet"
        ]
        for (rows, there), took in medians(runs, ("rows", "existing"), "report_seconds").items():
            yield Case(f"{rows:,} rows, {there:,} in the table", rows, took)
    if "parallel" in contents:
        runs = [run for run in contents["parallel"]["runs"] if run["way"] in {"sequential", "partitioned"}]
        for (name, rows, way, workers), took in medians(
            runs, ("case", "rows", "way", "workers"), "report_seconds"
        ).items():
            far = name == "far away"
            yield Case(
                f"{name}, {rows:,} rows, {way}" + (f", {workers} workers" if way != "sequential" else ""),
                rows,
                took,
                chunk_rows=5_000 if far else CHUNK_ROWS,
                workers=0 if way == "sequential" else workers,
                round_trip=0.02 if far else 0.0,
                enrich=ENRICH if name == "costly" else 0.0,
            )


def outlook(costs: Costs, gain: float) -> Iterator[tuple[int, float, int, float, float, str]]:
    """For machines of so many cores, the database on one of its own: cores, seconds of `enrich` a row, the workers that
    are best, rows a second sequentially and with them, and what bounds it then.
    """
    rows = 100_000_000
    # of the calibration's seconds on cores, the database's own are on another machine now
    processor = max(costs.reader + costs.prepare + costs.decider, costs.processor - costs.database)
    for cores in (4, 16, 64):
        machine = Machine(cores, start=1.0, gain=gain)
        for enrich in (0.0, ENRICH, 10 * ENRICH):
            paid = replace(costs, processor=processor)
            alone, _ = seconds_of(paid, machine, Case("", rows, 0.0, enrich=enrich))
            tried = {
                workers: seconds_of(paid, machine, Case("", rows, 0.0, workers=workers, enrich=enrich))
                for workers in (2, 4, 8, 16, 32, 64)
                if workers <= cores
            }
            least = min(took for took, _ in tried.values())
            best = min(workers for workers, (took, _) in tried.items() if took <= least * 1.05)
            took, bound = tried[best]
            yield cores, enrich, best, rows / alone, rows / took, bound
