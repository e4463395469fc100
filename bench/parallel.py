"""Does parallel mode pay? Sequential beside parallel loads, each a process of its own, in pairs, in one run.

cheap      a million events from Parquet, the database on the same cores: the most that parallel mode can cost
costly     an `enrich` that takes about 20 µs for each event
far away   many files of 5,000 rows, and 20 ms to the database and back
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from events import write_events
from latency import far_away
from loads import clear, load_command, server

__all__ = ["costly"]

SPIN_SECONDS = 20e-6
ROUND_TRIP = 0.020
SMALL_ROWS = 5_000


def costly(events: pa.RecordBatch) -> pa.RecordBatch:
    """Python code that keeps a core busy for about 20 µs for each event, as a parser or a rule engine would."""
    scores = []
    for row in range(events.num_rows):
        until = time.perf_counter() + SPIN_SECONDS
        while time.perf_counter() < until:
            pass
        scores.append(row % 100)
    return events.append_column("score", pa.array(scores, pa.int64()))


def main() -> None:
    """Run the pairs and print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the cheap load; the others are smaller")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["cheap", "costly", "far away"])
    parser.add_argument("--database", help="a PostgreSQL URL on a Unix socket whose schema `public` may be dropped")
    parser.add_argument("--data", type=Path, help="a folder that keeps the generated files")
    options = parser.parse_args()
    with server(options.database) as url, tempfile.TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch)
        print("| situation | way | seconds | rows/s | ÷ sequential |\n|---|---|---|---|---|")
        for name, situation in SITUATIONS.items():
            if options.only in (None, name):
                for line in situation(url, folder, options.rows, options.rounds):
                    print(f"| {name} | {line} |", flush=True)


def _cheap(url: str, folder: Path, rows: int, rounds: int) -> Iterator[str]:
    path, _ = write_events(folder, rows)
    ways = [[], ["--strategy", "partitioned"], ["--strategy", "upsert"], ["--strategy", "locked"]]
    yield from _compared(url, [path], rows, rounds, ways, workers=2)


def _costly(url: str, folder: Path, rows: int, rounds: int) -> Iterator[str]:
    rows //= 2
    path, _ = write_events(folder, rows)
    enrich = ["--enrich", "parallel:costly"]
    yield from _compared(url, [path], rows, rounds, [enrich, ["--strategy", "partitioned", *enrich]], workers=2)


def _far_away(url: str, folder: Path, rows: int, rounds: int) -> Iterator[str]:
    rows //= 5
    path, _ = write_events(folder, rows)
    small = folder / f"small-{rows}"
    small.mkdir(exist_ok=True)
    for number, batch in enumerate(pq.ParquetFile(path).iter_batches(SMALL_ROWS)):
        pq.write_table(pa.Table.from_batches([batch]), small / f"{number:04}.parquet")
    ways = [[], ["--strategy", "partitioned"], ["--strategy", "upsert"], ["--strategy", "locked", "--partitions", "2"]]
    with far_away(url, ROUND_TRIP) as distant:
        yield from _compared(url, [small], rows, rounds, ways, workers=4, through=distant)


SITUATIONS: dict[str, Callable[[str, Path, int, int], Iterator[str]]] = {
    "cheap": _cheap,
    "costly": _costly,
    "far away": _far_away,
}


def _compared(
    url: str,
    paths: Sequence[Path],
    rows: int,
    rounds: int,
    ways: Sequence[list[str]],
    *,
    workers: int,
    through: str | None = None,
) -> Iterator[str]:
    """A line for each way, the first of which is sequential: rounds alternate, so that noise hits all alike."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, seconds, strict=True):
            clear(url)
            taken.append(_load(through or url, paths, rows, way, workers))
    medians = [statistics.median(taken) for taken in seconds]
    for way, median in zip(ways, medians, strict=True):
        name = f"{way[1]}, {workers} workers" if "--strategy" in way else "sequential"
        yield f"{name} | {median:.2f} | {rows / median:,.0f} | {medians[0] / median:.2f}"


def _load(url: str, paths: Sequence[Path], rows: int, way: list[str], workers: int) -> float:
    mode = ["--mode", "parallel", "--workers", str(workers)] if "--strategy" in way else ["--mode", "sequential"]
    done = subprocess.run(  # noqa: S603 - our own command line
        [*load_command(paths[0]), *map(str, paths[1:]), *mode, *way],
        env={**os.environ, "HEADRACE_DATABASE_URL": url, "PYTHONUNBUFFERED": "1"},
        cwd=Path(__file__).parent,
        check=True,
        stdout=subprocess.PIPE,
    )
    report = json.loads(done.stdout)
    if report["inserted"] != rows or report["fell_back"]:
        sys.exit(f"{way} gave a wrong result: {report}")
    return float(report["seconds"])


if __name__ == "__main__":
    main()
