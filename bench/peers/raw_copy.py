"""The lower bound: chunks encoded beforehand, written by COPY, a transaction each, over one connection or two.

    python raw_copy.py JOB              write the chunks beside the input
    python raw_copy.py JOB 1 2          write the second of two shares of them

`encoded.py` makes the files. They are in the order of the input, the rows of each sorted by ID.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psycopg
from job import Job, chunk_folder

NAMES = ("event_id", "provider", "headrace_receipt")
BLOCK = 1 << 20


def main(job: Job, share: int, shares: int) -> None:
    """Write every chunk of the share; prints the seconds from connecting to the end."""
    began = time.perf_counter()
    names = ", ".join((*job.columns, *NAMES))
    with psycopg.connect(job.url) as connection:
        for path in sorted(chunk_folder(Path(job.path)).iterdir())[share::shares]:
            with (
                connection.transaction(),
                connection.cursor().copy(f"COPY {job.table} ({names}) FROM STDIN (FORMAT binary)") as copy,
                path.open("rb") as stream,
            ):
                while block := stream.read(BLOCK):
                    copy.write(block)
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main(Job.given(), *(map(int, sys.argv[2:4]) if len(sys.argv) > 2 else (0, 1)))  # noqa: PLR2004
