"""pgloader: a CSV load command into a staging table, and after it INSERT … ON CONFLICT DO NOTHING.

pgloader itself knows no ON CONFLICT for files: without the staging table, each duplicate makes it retry a batch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from job import Job, timed

COMMAND = """
LOAD CSV
     FROM '{job.path}' ({job.names})
     INTO postgresql://postgres@{job.tcp}
     TARGET TABLE aside ({job.names})
     WITH skip header = 1, fields terminated by ',', fields optionally enclosed by '"', fields escaped by double-quote,
          batch rows = 100000, batch size = 200MB, prefetch rows = 100000,
          workers = 2, concurrency = 1, on error stop
   BEFORE LOAD DO
      $$ CREATE UNLOGGED TABLE aside ({job.staging}); $$
    AFTER LOAD DO
      $$ INSERT INTO {job.table} ({job.names}) SELECT {job.names} FROM aside {job.conflict}; $$,
      $$ DROP TABLE aside; $$;
"""


def main(job: Job) -> None:
    """Run pgloader, in place of which nothing else can say how long it took."""
    command = Path(job.scratch) / "events.load"
    command.write_text(COMMAND.format(job=job))
    arguments = ["pgloader", "--quiet", "--root-dir", job.scratch, "--dynamic-space-size", "4096", str(command)]
    subprocess.run(arguments, check=True, stdout=sys.stderr)  # the benchmark's own command


if __name__ == "__main__":
    timed(main, Job.given())
