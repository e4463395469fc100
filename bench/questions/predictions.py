"""Does `headrace profile` tell the truth? Its predictions from a sample beside what the whole loads then take.

For each situation three whole processes: the profile of a third of the input, the load in sequential mode, the load
with the workers that the profile considers. It knows nothing of the loads, and nothing in it was fitted to them.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import server
from bench.measure.datasets import DATASETS, Situation, write_input
from bench.measure.harness import Bench, Run, importing, run_process, warm
from bench.measure.latency import far_away
from bench.peers.registry import headrace_command
from bench.questions.loads import job_for

__all__ = ["CASES", "measure"]

FIRES = DATASETS["fires"]
CHUNK_ROWS = 16_384
SAMPLE = 3  # the part of the input that is tried: one in so many
KNOWN = "predictions_known"


@dataclass(frozen=True, slots=True)
class Case:
    """A situation: the database and the seconds to it and back, the function given to ``--enrich``, and whether the
    store holds the events already.
    """

    database: str
    round_trip: float
    costly: bool
    known: bool

    @property
    def name(self) -> str:
        """As the table has it."""
        far = f", {self.round_trip * 1000:.0f} ms away" if self.round_trip else ""
        return f"{self.database}{far}, {'costly' if self.costly else 'cheap'}, all {'known' if self.known else 'new'}"


CASES = (
    *(
        Case(database, far, costly, known)
        for database, far in (("PostgreSQL", 0.0), ("SQLite", 0.0), ("PostgreSQL", 0.005), ("PostgreSQL", 0.02))
        for known in (False, True)
        for costly in (False, True)
    ),
)


def measure(bench: Bench) -> None:
    """Each situation's three processes, those that the results do not have yet."""
    results = bench.results("predictions")
    rows = bench.options.rows
    path = write_input(bench.data, "fires", "parquet", rows, 0, Situation("fresh"))
    for number in range(1, bench.options.rounds + 1):
        for case in CASES:
            workers = 0
            for way in ("profile", "sequential", "parallel"):
                cell = {"case": case.name, "way": way, "rows": rows, "round": number}
                if not results.has(**cell):
                    run = _measured(bench, case, way, path, workers)
                    results.add(cell | run)
                    bench.say(f"{case.name:<44} {way:<10} {run['seconds']:6.2f} s")
                if way == "profile":
                    workers = _found(results.runs, cell)["workers"]


def _found(runs: list[Run], cell: Run) -> Run:
    return next(run for run in runs if all(run[name] == value for name, value in cell.items()))


def _measured(bench: Bench, case: Case, way: str, path: Path, workers: int) -> Run:
    near = _store(bench, case, path)
    with ExitStack() as opened:
        url = opened.enter_context(far_away(near, case.round_trip)) if case.round_trip else near
        command = _command(bench, url, path, way, workers)
        if case.costly:
            command += ["--enrich", "bench.measure.costly:costly"]
        done = _run(bench, command, path)
    told: dict[str, Any] = json.loads(done.said)
    if way == "profile":
        return done.figures | told["verdict"] | {"machine": told["machine"], "predicted_rows": told["rows"]}
    expected = "duplicate_in_store" if case.known else "inserted"
    if told[expected] != bench.options.rows or told["fell_back"]:
        sys.exit(f"{case.name}, {way} gave a wrong result: {told}")
    return done.figures | {"report_seconds": told["seconds"], "workers": told["workers"]}


def _command(bench: Bench, url: str, path: Path, way: str, workers: int) -> list[str]:
    job = job_for(bench, url, path, FIRES)
    load = [*headrace_command(sys.executable, job, Path(job.scratch)), "--chunk-rows", str(CHUNK_ROWS)]
    if way == "profile":
        kept = [word for word in load if word not in {"--progress", "none"}]
        kept[kept.index("load")] = "profile"
        return [*kept, "--sample", str(bench.options.rows // SAMPLE)]
    return [*load, "--mode", way, *(["--workers", str(workers)] if way == "parallel" else [])]


def _run(bench: Bench, command: list[str], path: Path) -> Any:
    warm(path)
    done = run_process(
        command,
        scratch=bench.scratch,
        env=importing(),
    )
    if done.exit_code:
        sys.exit(f"{' '.join(command)} failed:\n{done.complaint}")
    return done


def _store(bench: Bench, case: Case, path: Path) -> str:
    """A database as the situation has it: empty, or with the input's events."""
    if case.database == "SQLite":
        file = bench.work / f"{KNOWN if case.known else 'predictions'}.db"
        if not case.known:
            for left in bench.work.glob(f"{file.name}*"):
                left.unlink()
        url = f"sqlite:///{file}"
        if case.known and not file.exists():
            _fill(bench, url, path)
        return url
    if not case.known:
        return server.create_database(bench.url, "predictions")
    if not server.database_exists(bench.url, KNOWN):
        _fill(bench, server.create_database(bench.url, "predictions"), path)
        server.rename_database(bench.url, "predictions", KNOWN)
    return f"{bench.url.rpartition('/')[0]}/{KNOWN}"


def _fill(bench: Bench, url: str, path: Path) -> None:
    job = job_for(bench, url, path, FIRES)
    _run(bench, headrace_command(sys.executable, job, Path(job.scratch)), path)
    if not url.startswith("sqlite"):
        server.settle(url)
