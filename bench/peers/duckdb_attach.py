"""DuckDB: its `postgres` extension copies (binary) to a staging table, then INSERT … ON CONFLICT DO NOTHING."""

from __future__ import annotations

from pathlib import Path

import duckdb
from job import Job, timed

READERS = {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_json"}


def main(job: Job) -> None:
    """Load: the staging table is unlogged, and gone at the end. Its times have no zone, as DuckDB alone knows none."""
    kinds = {name: kind.replace("timestamptz", "timestamp") for name, kind in job.columns.items()}
    staging = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    with duckdb.connect() as connection:
        _load_extension(connection)
        connection.execute(f"ATTACH '{job.url}' AS store (TYPE postgres)")
        connection.execute("CALL postgres_execute('store', ?)", [f"CREATE UNLOGGED TABLE aside ({staging})"])
        connection.execute("CALL pg_clear_cache()")
        typed = ", ".join(f"CAST({name} AS {kind})" for name, kind in kinds.items())
        connection.execute(f"INSERT INTO store.aside SELECT {typed} FROM {READERS[job.kind]}(?)", [job.path])
        move = f"INSERT INTO {job.table} ({job.names}) SELECT {job.names} FROM aside {job.conflict}; DROP TABLE aside"
        connection.execute("CALL postgres_execute('store', ?)", [move])


def _load_extension(connection: duckdb.DuckDBPyConnection) -> None:
    """From the package that carries it, so that nothing is fetched while the clock runs."""
    import duckdb_extension_postgres_scanner as carrier

    (found,) = Path(carrier.__path__[0]).rglob("postgres_scanner.duckdb_extension")
    connection.execute(f"LOAD '{found}'")


if __name__ == "__main__":
    timed(main, Job.given())
