"""Does parallel mode pay? Sequential beside parallel loads and the lower bound, each whole processes, in turn.

cheap      events from Parquet, the database on the same cores: the most that parallel mode can cost
costly     an `enrich` that takes about 20 µs for each event
far away   many files of 5,000 rows, and 20 ms to the database and back
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import server
from bench.measure.check import expected, found, verdict
from bench.measure.datasets import DATASETS, Situation, write_input
from bench.measure.encoded import create_table, encode_chunks
from bench.measure.harness import Bench, Run, importing, paired, run_process, warm
from bench.measure.latency import far_away
from bench.peers.job import TABLE
from bench.peers.registry import HEADRACE, LOWER_BOUND
from bench.questions.loads import job_for

__all__ = ["measure"]

ROUND_TRIP = 0.020
SMALL_ROWS = 5_000
FIRES = DATASETS["fires"]
PARALLEL = {"partitioned": [], "upsert": [], "locked": ["--partitions", "2"]}
LIMITS = {"raw COPY, 1 connection": 1, "raw COPY, 2 connections": 2}


@dataclass(frozen=True, slots=True)
class Case:
    """A situation: what share of the rows it takes, with how many workers, which ways are compared, what is added."""

    name: str
    share: float
    workers: int
    strategies: tuple[str, ...]
    extra: tuple[str, ...] = ()
    limits: bool = False
    far: bool = False


CASES = (
    Case("cheap", 1.0, 2, ("partitioned", "upsert", "locked"), limits=True),
    Case("costly", 0.5, 2, ("partitioned",), extra=("--enrich", "bench.measure.costly:costly")),
    Case("far away", 0.2, 4, ("partitioned", "upsert", "locked"), far=True),
)


def measure(bench: Bench) -> None:
    """Each case, its ways in turn."""
    results = bench.results("parallel")
    for case in CASES:
        rows = max(SMALL_ROWS, round(bench.options.rows * case.share))
        path = write_input(bench.data, "fires", "parquet", rows, 0, Situation("fresh"))
        inputs = _split(path) if case.far else path
        if case.limits:
            encode_chunks(path, FIRES)

        def missing(name: str, number: int, case: Case = case, rows: int = rows) -> bool:
            return not results.has(case=case.name, way=name, rows=rows, round=number)

        for number, name in paired(bench.options.rounds, _ways(case), missing):
            run = {"case": case.name, "way": name, "rows": rows, "workers": case.workers, "round": number}
            run |= _limit(bench, path, LIMITS[name]) if name in LIMITS else _load(bench, case, name, path, inputs, rows)
            results.add(run)
            bench.say(f"{case.name:<9} {name:<24} {run['seconds']:8.2f} s")


def _ways(case: Case) -> Mapping[str, list[str]]:
    ways = {"sequential": ["--mode", "sequential"]}
    for strategy in case.strategies:
        extra = PARALLEL[strategy] if case.far else []
        ways[strategy] = ["--mode", "parallel", "--workers", str(case.workers), "--strategy", strategy, *extra]
    return ways | ({name: [] for name in LIMITS} if case.limits else {})


def _load(bench: Bench, case: Case, way: str, path: Path, inputs: Path, rows: int) -> Run:
    url = server.create_database(bench.url, "run")
    with ExitStack() as opened:
        through = opened.enter_context(far_away(url, ROUND_TRIP)) if case.far else url
        job = job_for(bench, through, inputs, FIRES)
        warm(path)
        outcome = run_process(
            [*HEADRACE.command_line(sys.executable, job), *_ways(case)[way], *case.extra],
            scratch=bench.scratch,
            env=importing(),
        )
    if outcome.exit_code:
        sys.exit(f"{case.name}, {way} failed:\n{outcome.complaint}")
    report = json.loads(outcome.said)
    if report["inserted"] != rows or report["fell_back"]:
        sys.exit(f"{case.name}, {way} gave a wrong result: {report}")
    _require_right(bench, url, path)
    return outcome.figures | {"report_seconds": report["seconds"]}


def _limit(bench: Bench, path: Path, connections: int) -> Run:
    """Raw COPY by as many processes as connections, which share the chunks."""
    url = server.create_database(bench.url, "run")
    create_table(url, TABLE, FIRES)
    command = LOWER_BOUND.command_line(sys.executable, job_for(bench, url, path, FIRES))
    shares = [shlex.join([*command, str(share), str(connections)]) for share in range(connections)]
    outcome = run_process(["sh", "-c", f"{' & '.join(shares)} & wait"], scratch=bench.scratch)
    _require_right(bench, url, path)
    return outcome.figures | {"report_seconds": max(json.loads(line)["seconds"] for line in outcome.said.splitlines())}


def _require_right(bench: Bench, url: str, path: Path) -> None:
    judged = verdict(expected(FIRES, [path], bench.data), found(FIRES, url, TABLE))
    if judged != "right":
        sys.exit(f"{judged}: its time would mean nothing")


def _split(path: Path) -> Path:
    """The same events as many small files."""
    folder = path.with_suffix(".small")
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        unfinished.mkdir(exist_ok=True)
        for number, batch in enumerate(pq.ParquetFile(path).iter_batches(SMALL_ROWS)):
            pq.write_table(pa.Table.from_batches([batch]), unfinished / f"{number:04}.parquet")
        unfinished.rename(folder)
    return folder
