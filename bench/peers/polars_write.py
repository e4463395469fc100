"""Polars: `scan_*`, `write_database` through ADBC to a temporary table, INSERT … ON CONFLICT DO NOTHING."""

from __future__ import annotations

import polars as pl
from adbc_driver_postgresql import dbapi
from job import Job, timed

POLARS_TYPES = {
    "double precision": pl.Float64,
    "text": pl.String,
    "bigint": pl.Int64,
    "timestamptz": pl.Datetime("us"),
}


def main(job: Job) -> None:
    """Load in one transaction."""
    with dbapi.connect(job.url) as connection, connection.cursor() as cursor:
        _read(job).write_database("aside", connection, engine="adbc", engine_options={"temporary": True})
        cursor.execute(f"INSERT INTO {job.table} ({job.names}) SELECT {job.names} FROM aside {job.conflict}")
        connection.commit()


def _read(job: Job) -> pl.DataFrame:
    schema = {name: POLARS_TYPES[kind] for name, kind in job.columns.items()}
    if job.kind == "parquet":
        return pl.read_parquet(job.path)
    if job.kind == "csv":
        return pl.read_csv(job.path, schema=schema)
    times = pl.col(job.time).str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us")
    return pl.read_ndjson(job.path, schema={**schema, job.time: pl.String}).with_columns(times)


if __name__ == "__main__":
    timed(main, Job.given())
