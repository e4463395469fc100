"""By hand: psycopg, COPY to a temporary table, INSERT … ON CONFLICT DO NOTHING.

A CSV file goes to the server as it is; other formats are made CSV by pyarrow first, which takes less than sending rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
from job import Job, arrow_batches, timed

BLOCK = 1 << 20


def main(job: Job) -> None:
    """Load in one transaction."""
    with psycopg.connect(job.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE aside ({job.staging}) ON COMMIT DROP")
        with cursor.copy(f"COPY aside ({job.names}) FROM STDIN (FORMAT csv, HEADER)") as copy:
            for block in _blocks(job):
                copy.write(block)
        cursor.execute(f"INSERT INTO {job.table} ({job.names}) SELECT {job.names} FROM aside {job.conflict}")


def _blocks(job: Job) -> Iterator[bytes | memoryview]:
    if job.kind == "csv":
        with Path(job.path).open("rb") as stream:
            while block := stream.read(BLOCK):
                yield block
        return
    import pyarrow as pa
    import pyarrow.csv as pc

    for number, batch in enumerate(arrow_batches(job)):
        sink = pa.BufferOutputStream()
        pc.write_csv(batch, sink, pc.WriteOptions(include_header=number == 0))
        yield memoryview(sink.getvalue())


if __name__ == "__main__":
    timed(main, Job.given())
