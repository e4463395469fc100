"""What does a poll cost in production? 5,000 events, nine tenths of them known, into a large table, the engine warm.

python -m bench.questions.poll URL EXISTING POLLS    in a process of its own; prints the seconds of each poll
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import pyarrow as pa

import headrace
from bench.measure.events import IDENTITY, event_blocks

if TYPE_CHECKING:
    from bench.measure.harness import Bench

__all__ = ["measure"]

ROWS = 5_000
NEW = 500
POLLS = 40


def measure(bench: Bench) -> None:
    """Polls in one process, each round from the same table."""
    from bench.measure.harness import run_module
    from bench.peers.registry import HEADRACE
    from bench.questions.loads import Templates

    results, existing = bench.results("poll"), bench.options.poll_store
    for number in range(1, bench.options.rounds + 1):
        if results.has(existing=existing, round=number):
            continue
        url = Templates(bench).copy("fires", existing, HEADRACE)
        outcome = run_module("bench.questions.poll", url, str(existing), str(POLLS), scratch=bench.scratch)
        if outcome.exit_code:
            sys.exit(f"a poll failed:\n{outcome.complaint}")
        figures = json.loads(outcome.said)
        results.add({"existing": existing, "round": number, **figures, "peak_bytes": outcome.peak_bytes})
        bench.say(f"first poll {figures['first_seconds']:.3f} s, then {sorted(figures['polls'])[POLLS // 2]:.3f} s")


def polls(url: str, existing: int, number: int) -> dict[str, object]:
    """Seconds of the first poll, which fetches what is there, and of those after it."""
    batches = [
        pa.concat_tables(event_blocks(ROWS, first=existing - ROWS + (poll + 1) * NEW)) for poll in range(number + 1)
    ]
    seconds = []
    with headrace.Engine(to=url, table="events", id=list(IDENTITY), time="acq_time") as engine:
        for batch in batches:
            began = time.perf_counter()
            report = engine.ingest(batch)
            seconds.append(time.perf_counter() - began)
            if (report.inserted, report.duplicate_in_store) != (NEW, ROWS - NEW):
                sys.exit(f"a poll gave a wrong result: {report}")
    return {"first_seconds": seconds[0], "polls": seconds[1:]}


if __name__ == "__main__":
    print(json.dumps(polls(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
