"""Does memory stay put as the input grows? Peak resident memory of `headrace load` for inputs of several sizes."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from events import write_events
from loads import clear, load_command, server


def main() -> None:
    """Load each size into an empty table and print the peak of each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--csv", action="store_true", help="from CSV rather than Parquet")
    parser.add_argument("--database", help="a PostgreSQL URL whose schema `public` may be dropped")
    parser.add_argument("--data", type=Path, help="a folder that keeps the generated files")
    options = parser.parse_args()
    with server(options.database) as url, tempfile.TemporaryDirectory() as scratch:
        print("| rows | peak memory, fresh | ÷ first | repeated | ÷ first |\n|---|---|---|---|---|")
        first: list[int] = []
        for rows in options.rows:
            path = write_events(options.data or Path(scratch), rows, csv=options.csv)[int(options.csv)]
            clear(url)
            peaks = [_peak(url, path), _peak(url, path)]
            first = first or peaks
            ratios = [peak / base for peak, base in zip(peaks, first, strict=True)]
            print(f"| {rows:,} | {peaks[0]} MiB | {ratios[0]:.2f} | {peaks[1]} MiB | {ratios[1]:.2f} |", flush=True)


def _peak(url: str, path: Path) -> int:
    """Peak resident memory of one load, in MiB, as the kernel accounts for the finished process."""
    process = subprocess.Popen(  # noqa: S603 - our own command line
        load_command(path),
        env={**os.environ, "HEADRACE_DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"headrace load exited {process.returncode}")
    return usage.ru_maxrss >> 10


if __name__ == "__main__":
    main()
