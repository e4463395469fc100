"""Who is measured: how each is started, with which settings and by whose word, and where it keeps the events."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.peers.job import Job

__all__ = ["BY_HASH", "HEADRACE", "LOWER_BOUND", "OURS", "PEERS", "Peer", "headrace_command", "missing_peers"]

HERE = Path(__file__).parent
EVERY_FORMAT = ("parquet", "csv", "jsonl")
CONFLICT = "then `INSERT … SELECT … ON CONFLICT (natural key) DO NOTHING`"


@dataclass(frozen=True, slots=True)
class Peer:
    """One contender. `store` names the kind of table it keeps: those of one kind start from the same prepared one.

    `time_first` puts the event time in front of the natural key's columns, so that rows in event-time order are
    appended to the key's index. As people write the key (place first), its index is hit at random.
    """

    name: str
    script: str
    settings: str
    documentation: str
    store: str = "natural key"
    formats: Sequence[str] = EVERY_FORMAT
    packages: Sequence[str] = ()
    needs: Sequence[str] = ()
    arguments: Sequence[str] = ()
    command: Callable[[str, Job, Path], list[str]] | None = None
    fresh_only: bool = False
    time_first: bool = False

    def key_of(self, job_key: Sequence[str], time: str) -> list[str]:
        """The natural key's columns in the order in which this contender's table has them."""
        return sorted(job_key, key=lambda name: name != time) if self.time_first else list(job_key)

    def command_line(self, python: str, job: Job) -> list[str]:
        """What to run. `python` is that of the environment in which the peer is installed."""
        if self.command is not None:
            return self.command(python, job, Path(job.scratch))
        return [python, str(HERE / self.script), str(job.write(Path(job.scratch) / "job.json")), *self.arguments]


def headrace_command(python: str, job: Job, scratch: Path) -> list[str]:  # noqa: ARG001 - a peer's command
    """`headrace load` with a natural key, and an event time unless that is empty."""
    options = ["--to", job.url, "--table", job.table, "--id", ",".join(job.key)]
    options += ["--time", job.time] if job.time else []
    return [python, "-m", "headrace", "load", job.path, *options, "--output", "json", "--progress", "none"]


HEADRACE = Peer(
    "headrace",
    "",
    "`headrace load`, defaults (sequential)",
    "docs/reference.md",
    store="headrace",
    command=headrace_command,
)
LOWER_BOUND = Peer(
    "raw COPY",
    "raw_copy.py",
    "binary COPY of rows prepared, identified, sorted and encoded beforehand, into the table that headrace makes",
    "lower bound, not a peer: it finds no duplicates",
    store="headrace",
    formats=("parquet",),
    fresh_only=True,
)
BY_HASH = Peer(
    "headrace, IDs by hash",
    "",
    "`headrace load` without `--time`: IDs of layout `hash` come in no order, so that the key's index is hit at random",
    "docs/identity.md",
    store="headrace by hash",
    command=lambda python, job, scratch: headrace_command(python, replace(job, time=""), scratch),
)
OURS = (HEADRACE, BY_HASH)
_AS_WRITTEN = (
    Peer(
        "psycopg COPY",
        "psycopg_copy.py",
        f"`COPY … (FORMAT csv)` to a temporary table, {CONFLICT}",
        "https://www.psycopg.org/psycopg3/docs/basic/copy.html",
        packages=("psycopg", "pyarrow"),
    ),
    Peer(
        "ADBC",
        "adbc_ingest.py",
        f"`adbc_ingest` of a record batch reader into a temporary table, {CONFLICT}",
        "https://arrow.apache.org/adbc/current/python/recipe/postgresql.html",
        packages=("adbc-driver-postgresql", "pyarrow"),
    ),
    Peer(
        "Polars",
        "polars_write.py",
        f"`write_database(engine='adbc')` into a temporary table, {CONFLICT}",
        "https://docs.pola.rs/api/python/stable/reference/api/polars.DataFrame.write_database.html",
        packages=("polars", "adbc-driver-postgresql"),
    ),
    Peer(
        "DuckDB",
        "duckdb_attach.py",
        f"`ATTACH … (TYPE postgres)`, INSERT (binary COPY) into an unlogged table, {CONFLICT}",
        "https://duckdb.org/docs/current/core_extensions/postgres",
        packages=("duckdb", "duckdb-extension-postgres-scanner"),
    ),
    *(
        Peer(
            f"dlt {strategy}",
            "dlt_merge.py",
            f"Arrow batches, `merge` with strategy `{strategy}`, loader files Parquet through ADBC{remark}",
            "https://dlthub.com/docs/general-usage/merge-loading",
            store="dlt",
            packages=("dlt", "adbc-driver-postgresql", "pyarrow"),
            arguments=(strategy,),
        )
        for strategy, remark in (
            ("insert-only", " (it does not look for duplicates in the input)"),
            ("delete-insert", " (its default: it writes anew the rows that are there)"),
        )
    ),
    Peer(
        "SQLAlchemy",
        "sqlalchemy_insert.py",
        "`insert().on_conflict_do_nothing()`, psycopg2, `values_plus_batch`, pages of 10,000 rows",
        "https://docs.sqlalchemy.org/en/20/dialects/postgresql.html#psycopg2-fast-execution-helpers",
        packages=("SQLAlchemy", "psycopg2-binary"),
    ),
    Peer(
        "pandas",
        "pandas_to_sql.py",
        "`to_sql` with the documented `method` for conflicts, `chunksize=10000`",
        "https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.to_sql.html",
        packages=("pandas", "SQLAlchemy", "psycopg2-binary"),
    ),
    Peer(
        "pg-bulk-ingest",
        "pg_bulk_upsert.py",
        "upsert on the natural key as primary key, one batch (it updates the rows that are there)",
        "https://pg-bulk-ingest.docs.trade.gov.uk/",
        packages=("pg-bulk-ingest", "psycopg"),
    ),
    Peer(
        "PySpark",
        "spark_jdbc.py",
        f"JDBC append, `batchsize=10000`, `reWriteBatchedInserts`, into an unlogged table, {CONFLICT}",
        "https://spark.apache.org/docs/latest/sql-data-sources-jdbc.html",
        packages=("pyspark", "psycopg"),
        needs=("java", "/usr/share/java/postgresql.jar"),
    ),
    Peer(
        "pgloader",
        "pgloader_csv.py",
        f"`LOAD CSV`, batches of 100,000 rows, 2 workers, into an unlogged table, {CONFLICT} as AFTER LOAD",
        "https://pgloader.readthedocs.io/en/latest/ref/csv.html",
        formats=("csv",),
        needs=("pgloader",),
    ),
)
PEERS = (
    *_AS_WRITTEN,
    *(
        replace(
            peer,
            name=f"{peer.name}, time first",
            settings=f"the same, the natural key with the event time first: {peer.settings}",
            store="natural key, time first",
            time_first=True,
        )
        for peer in _AS_WRITTEN
        # pg-bulk-ingest makes the key in the table's own order
        if peer.store == "natural key" and peer.name != "pg-bulk-ingest"
    ),
)


def missing_peers(python: str) -> dict[str, str]:
    """What each peer that cannot be run lacks, and why: an environment or a package, a program."""
    lacking = {}
    for peer in PEERS:
        absent = [package for package in peer.packages if package not in peer_versions(python)]
        absent += [need for need in peer.needs if shutil.which(need) is None and not Path(need).exists()]
        if absent:
            lacking[peer.name] = f"not installed: {', '.join(absent)}"
    return lacking


_VERSIONS: dict[str, dict[str, str]] = {}


def peer_versions(python: str) -> dict[str, str]:
    """The versions of the peers' packages, asked of the environment that has them."""
    if python not in _VERSIONS:
        _VERSIONS[python] = _ask_versions(python)
    return _VERSIONS[python]


def _ask_versions(python: str) -> dict[str, str]:
    code = (
        "import json, importlib.metadata as m, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    names = sorted({package for peer in PEERS for package in peer.packages})
    if shutil.which(python) is None:
        return {}
    done = subprocess.run([python, "-c", code, *names], capture_output=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    if shutil.which("pgloader"):
        told = subprocess.run(["pgloader", "--version"], capture_output=True, check=False, text=True)  # noqa: S607
        found["pgloader"] = told.stdout.split('"')[1] if '"' in told.stdout else "unknown"
    return found
