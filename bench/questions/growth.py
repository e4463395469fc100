"""Does a load stay as fast as the table grows? Fresh loads into a growing table and into an empty one, in turn.

Layout `time`, whose IDs come in the order of the events; and layout `hash`, where no time column is named and IDs are
random: a table that grows all over its key, with no window to its snapshot. The events are years old, for the window
counts from the server's clock: what it holds is another question.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from bench.measure import server
from bench.measure.datasets import DATASETS
from bench.measure.events import SCHEMA, event_blocks, write_tables
from bench.measure.harness import Bench, Run, run_process, warm
from bench.peers.job import TABLE
from bench.peers.registry import HEADRACE
from bench.questions.loads import job_for

__all__ = ["grown", "measure"]

STEP = 5_000_000  # events of one input while the table is made to grow
EARLIER = np.timedelta64(9 * 365, "D")  # a hundred million events take eight years


def measure(bench: Bench) -> None:
    """At each size as many pairs as there are rounds. The table is kept, so that a later run goes on from it."""
    for layout, sizes in (("time", bench.options.growth), ("hash", bench.options.growth_random)):
        for size in sorted(sizes):
            _measure(bench, layout, size)


def _measure(bench: Bench, layout: str, size: int) -> None:
    results = bench.results("growth")
    rows, rounds = bench.options.rows, bench.options.rounds
    if results.has(layout=layout, existing=size, rows=rows, round=rounds, table="grown"):
        return
    url = _grown(bench, layout, size)
    for number in range(1, rounds + 1):
        there = _count(url)
        path = _input(bench.data, rows, there)
        for table, target in (("empty", server.create_database(bench.url, "run")), ("grown", url)):
            cell = {"layout": layout, "existing": size, "rows": rows, "round": number, "table": table}
            there_now = {"rows_there": 0 if table == "empty" else there}
            results.add(cell | there_now | _load(bench, layout, target, path), **cell)
        path.unlink()
        bench.say(f"{layout} {size:>12,} rows there, round {number}: {results.runs[-1]['report_seconds']:.2f} s")


def grown(bench: Bench, layout: str) -> tuple[str, int]:
    """The URL of the table that an earlier run has made to grow, and how many events it has: none if there is none."""
    name = f"growing_{layout}"
    url = f"{bench.url.rpartition('/')[0]}/{name}"
    return url, _count(url) if server.database_exists(bench.url, name) else 0


def _grown(bench: Bench, layout: str, size: int) -> str:
    """The URL of the growing table once it has `size` events."""
    url, there = grown(bench, layout)
    if not there:
        server.create_database(bench.url, f"growing_{layout}")
    while (there := _count(url)) < size:
        rows = min(STEP, size - there)
        path = _input(bench.data, rows, there)
        _load(bench, layout, url, path)
        path.unlink()
        bench.say(f"{layout} grown to {there + rows:,}")
    server.settle(url)
    return url


def _input(folder: Path, rows: int, first: int) -> Path:
    """`rows` events from the `first` on, years before those of the other questions."""

    def earlier(table: pa.Table) -> pa.Table:
        times = pc.subtract(table["acq_time"], pa.scalar(EARLIER.astype("timedelta64[us]")))
        return table.set_column(table.schema.get_field_index("acq_time"), "acq_time", times)

    path = folder / f"growing-{rows}-from-{first}.parquet"
    return write_tables(path, SCHEMA, (earlier(table) for table in event_blocks(rows, first=first, known=0.0)))


def _load(bench: Bench, layout: str, url: str, path: Path) -> Run:
    warm(path)
    job = job_for(bench, url, path, DATASETS["fires"])
    job = job if layout == "time" else replace(job, time="")
    outcome = run_process(HEADRACE.command_line(sys.executable, job), scratch=bench.scratch)
    if outcome.exit_code:
        sys.exit(f"a load into {url} failed:\n{outcome.complaint}")
    report = json.loads(outcome.said)
    if report["inserted"] != report["read"]:
        sys.exit(f"a fresh load found duplicates: {report}")
    return outcome.figures | {"report_seconds": report["seconds"]}


def _count(url: str) -> int:
    """Events in the growing table, as its ledger has them."""
    with psycopg.connect(url) as connection:
        exists = connection.execute("SELECT to_regclass(%s)", [TABLE]).fetchone()
        if exists is None or exists[0] is None:
            return 0
        row = connection.execute("SELECT sum(inserted)::bigint FROM headrace_receipts").fetchone()
    return int(row[0] or 0) if row else 0
