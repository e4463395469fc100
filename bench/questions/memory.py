"""Does memory stay put as the input grows? Peak resident memory of `headrace load` for inputs of several sizes."""

from __future__ import annotations

import sys

from bench.measure import server
from bench.measure.datasets import DATASETS, Situation, write_input
from bench.measure.harness import Bench, paired, run_process
from bench.peers.registry import HEADRACE
from bench.questions.loads import job_for

__all__ = ["measure"]


def measure(bench: Bench) -> None:
    """Each size fresh and then once more, in rounds."""
    results = bench.results("memory")
    for kind in bench.options.formats:
        sizes = {f"{rows}": rows for rows in bench.options.memory}

        def missing(name: str, number: int, kind: str = kind) -> bool:
            return not results.has(format=kind, rows=int(name), round=number, load="repeated")

        for number, name in paired(bench.options.rounds, sizes, missing):
            path = write_input(bench.data, "fires", kind, sizes[name], 0, Situation("fresh"))
            url = server.create_database(bench.url, "run")
            for load in ("fresh", "repeated"):
                job = job_for(bench, url, path, DATASETS["fires"])
                outcome = run_process(HEADRACE.command_line(sys.executable, job), scratch=bench.scratch)
                if outcome.exit_code:
                    sys.exit(f"headrace load of {sizes[name]:,} rows failed:\n{outcome.complaint}")
                cell = {"format": kind, "rows": sizes[name], "load": load, "round": number}
                results.add(cell | outcome.figures, **cell)
            bench.say(f"{kind:<8} {sizes[name]:>12,} rows {outcome.peak_bytes >> 20} MiB")
