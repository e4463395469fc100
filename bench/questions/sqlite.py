"""How fast a load into SQLite is beside plain `executemany`.

    python -m bench.questions.sqlite plain|keyed INPUT DATABASE    by hand, in a process of its own; prints its seconds

plain      rows ready as tuples, one executemany into a table without any key, one commit: a lower bound in Python
keyed      the same with the natural key as primary key, and ON CONFLICT DO NOTHING: the same promise by hand
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure.events import COLUMNS, IDENTITY

if TYPE_CHECKING:
    from bench.measure.harness import Bench

__all__ = ["measure"]

SQLITE_TYPES = {"double": "DOUBLE", "timestamp[us]": "TIMESTAMP", "string": "TEXT", "int64": "BIGINT"}
WAYS = ("headrace", "plain", "keyed")


def measure(bench: Bench) -> None:
    """The three in turn, each fresh and then, where duplicates are found, repeated."""
    from bench.measure.datasets import DATASETS, Situation, write_input
    from bench.measure.harness import paired, run_module, run_process, warm
    from bench.peers.registry import HEADRACE
    from bench.questions.loads import job_for

    results, rows = bench.results("sqlite"), bench.options.rows
    path = write_input(bench.data, "fires", "parquet", rows, 0, Situation("fresh"))
    for number, way in paired(
        bench.options.rounds, WAYS, lambda way, number: not results.has(way=way, rows=rows, round=number)
    ):
        job = job_for(bench, "", path, DATASETS["fires"])
        database = Path(job.scratch) / "events.db"
        for load in ("fresh", "repeated") if way != "plain" else ("fresh",):
            warm(path)
            if way == "headrace":
                command = HEADRACE.command_line(sys.executable, job)
                command[command.index("--to") + 1] = f"sqlite:///{database}"
                outcome = run_process(command, scratch=bench.scratch)
            else:
                words = [way, str(path), str(database)]
                outcome = run_module("bench.questions.sqlite", *words, scratch=bench.scratch)
            if outcome.exit_code:
                sys.exit(f"{way} failed:\n{outcome.complaint}")
            if (there := _count(database)) != rows:
                sys.exit(f"{way} left {there:,} rows of {rows:,}")
            inner = json.loads(outcome.said)["seconds"]
            cell = {"way": way, "load": load, "rows": rows, "round": number}
            results.add(cell | outcome.figures | {"report_seconds": inner}, **cell)
            bench.say(f"{way:<9} {load:<9} {inner:8.2f} s, process {outcome.seconds:8.2f} s")


def by_hand(way: str, path: str, database: str) -> float:
    """Seconds of executemany and commit; the rows are tuples already."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    times = table.column("acq_time").cast("string").to_pylist()
    columns = [times if name == "acq_time" else table.column(name).to_pylist() for name in COLUMNS]
    rows = list(zip(*columns, strict=True))
    # as headrace declares them
    declared = [f"{name} {SQLITE_TYPES[str(kind)]}" for name, kind in COLUMNS.items()]
    key = f", PRIMARY KEY ({', '.join(IDENTITY)})" if way == "keyed" else ""
    conflict = f"ON CONFLICT ({', '.join(IDENTITY)}) DO NOTHING" if way == "keyed" else ""
    with sqlite3.connect(database) as connection:
        # as headrace has it: a commit that has returned survives a power loss
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"CREATE TABLE IF NOT EXISTS events ({', '.join(declared)}{key})")
        began = time.perf_counter()
        connection.executemany(f"INSERT INTO events VALUES ({', '.join('?' * len(COLUMNS))}) {conflict}", rows)
        connection.commit()
        return time.perf_counter() - began


def _count(database: Path) -> int:
    with sqlite3.connect(database) as connection:
        (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    return int(count)


if __name__ == "__main__":
    print(json.dumps({"seconds": by_hand(*sys.argv[1:4])}))
