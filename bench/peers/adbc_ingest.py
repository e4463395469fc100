"""ADBC: `adbc_ingest` (binary COPY of Arrow) into a temporary table, INSERT … ON CONFLICT DO NOTHING."""

from __future__ import annotations

import pyarrow as pa
from adbc_driver_postgresql import dbapi
from job import Job, arrow_batches, arrow_schema, timed


def main(job: Job) -> None:
    """Load in one transaction."""
    with dbapi.connect(job.url) as connection, connection.cursor() as cursor:
        reader = pa.RecordBatchReader.from_batches(arrow_schema(job), arrow_batches(job))
        cursor.adbc_ingest("aside", reader, mode="create", temporary=True)
        cursor.execute(f"INSERT INTO {job.table} ({job.names}) SELECT {job.names} FROM aside {job.conflict}")
        connection.commit()


if __name__ == "__main__":
    timed(main, Job.given())
