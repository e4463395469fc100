"""Does `headrace verify` hold its memory as inputs grow, and name what was lost? Whole processes, one by one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psycopg

from bench.measure import server
from bench.measure.datasets import DATASETS, Situation, write_input
from bench.measure.harness import Bench, run_process, warm
from bench.peers.registry import headrace_command
from bench.questions.loads import job_for

__all__ = ["measure"]

LOST = 3


def measure(bench: Bench) -> None:
    """Each size: a load, `verify` of it, and `verify` again after some events were deleted behind its back."""
    results = bench.results("verify")
    for rows in bench.options.verify:
        if all(results.has(rows=rows, table=table) for table in ("whole", "damaged")):
            continue
        path = write_input(bench.data, "fires", "parquet", rows, 0, Situation("fresh"))
        url = server.create_database(bench.url, "verify")
        job = job_for(bench, url, path, DATASETS["fires"])
        loaded = run_process(headrace_command(sys.executable, job, Path(job.scratch)), scratch=bench.scratch)
        if loaded.exit_code:
            sys.exit(f"headrace load of {rows:,} rows failed:\n{loaded.complaint}")
        server.settle(url)
        for table, lost in (("whole", 0), ("damaged", LOST)):
            _lose(url, job.table, lost)
            warm(path)
            command = [sys.executable, "-m", "headrace", "verify", str(path), "--table", job.table, "--to", url]
            done = run_process(
                [*command, "--output", "json"], scratch=bench.scratch, timeout=bench.options.timeout * 10
            )
            told: dict[str, Any] = json.loads(done.said or "{}")
            named = [one for one in told.get("missing_sample", []) if one["place"]]
            if done.exit_code != (4 if lost else 0) or told["missing"] != lost or len(named) != lost:
                sys.exit(f"verify of {rows:,} rows, {lost} of them lost, told {told}\n{done.complaint}")
            cell = {"rows": rows, "table": table}
            results.add(cell | done.figures, **cell)
            bench.say(f"{rows:>12,} rows, {table:<8} {done.seconds:8.1f} s, {done.peak_bytes >> 20} MiB")


def _lose(url: str, table: str, count: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            f"DELETE FROM {table} WHERE event_id IN (SELECT event_id FROM {table} LIMIT {count})"  # type: ignore[call-overload]
        )
