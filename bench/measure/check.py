"""Is what a load left behind right? Counts and sums of the table beside DuckDB's own `SELECT DISTINCT` of the input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import psycopg

from bench.measure.datasets import Dataset

__all__ = ["Facts", "expected", "found", "verdict"]

READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".jsonl": "read_json"}
DUCKDB_TYPES = {"double": "DOUBLE", "timestamp[us]": "TIMESTAMP", "string": "VARCHAR", "int64": "BIGINT"}


class Facts(NamedTuple):
    """Rows, distinct natural keys, and sums of some integer columns over all rows."""

    rows: int
    distinct: int
    sums: tuple[int, ...]


def expected(dataset: Dataset, inputs: list[Path], folder: Path) -> Facts:
    """What the distinct events of `inputs` come to, by a reader that no contender's result is made by.

    Kept in `folder`. Raises `ValueError` where events of one key differ: then no contender could be right or wrong.
    """
    kept = folder / f"{'+'.join(path.name for path in inputs)}.expected.json"
    if not kept.exists():
        typed = ", ".join(
            f"CAST({name} AS {DUCKDB_TYPES[str(kind)]}) AS {name}" for name, kind in dataset.columns.items()
        )
        everything = " UNION ALL ".join(f"SELECT {typed} FROM {READERS[path.suffix]}('{path}')" for path in inputs)
        key = ", ".join(dataset.key)
        with duckdb.connect() as connection:
            row = connection.execute(
                f"SELECT count(*), count(DISTINCT ({key})), {_sums(dataset)} "
                f"FROM (SELECT DISTINCT * FROM ({everything}))"
            ).fetchone()
        if row is None or row[0] != row[1]:
            raise ValueError(f"{inputs}: events of one key differ")
        kept.write_text(json.dumps([row[0], row[1], [int(one) for one in row[2:]]]))
    rows, distinct, sums = json.loads(kept.read_text())
    return Facts(rows, distinct, tuple(sums))


def found(dataset: Dataset, url: str, table: str) -> Facts:
    """What is in the table; nothing at all if there is none."""
    with psycopg.connect(url) as connection:
        exists = connection.execute("SELECT to_regclass(%s)", [table]).fetchone()
        if exists is None or exists[0] is None:
            return Facts(0, 0, ())
        row = connection.execute(f"SELECT count(*), {_sums(dataset)} FROM {table}").fetchone()  # type: ignore[call-overload]
        distinct = row[0] if _is_primary_key(connection, table, dataset.key) else _distinct(connection, table, dataset)
    return Facts(row[0], distinct, tuple(int(one or 0) for one in row[1:]))


def _distinct(connection: psycopg.Connection, table: str, dataset: Dataset) -> int:
    connection.execute("SET work_mem = '1GB'")
    query = f"SELECT count(*) FROM (SELECT DISTINCT {', '.join(dataset.key)} FROM {table}) AS found"
    return int(connection.execute(query).fetchone()[0])  # type: ignore[call-overload,index]


def _is_primary_key(connection: psycopg.Connection, table: str, key: Sequence[str]) -> bool:
    """Whether PostgreSQL itself keeps these columns distinct: counting them would take longer than the load."""
    keys = connection.execute(
        "SELECT array_agg(attname::text) FROM pg_index "
        "JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
        "WHERE indrelid = to_regclass(%s) AND indisprimary AND indisvalid",
        [table],
    ).fetchone()
    return keys is not None and set(keys[0] or ()) == set(key)


def verdict(want: Facts, have: Facts) -> str:
    """``right``, or what is wrong."""
    wrong = []
    if have.rows != have.distinct:
        wrong.append(f"{have.rows - have.distinct:,} duplicates")
    if have.distinct < want.distinct:
        wrong.append(f"{want.distinct - have.distinct:,} events lost")
    if have.distinct > want.distinct:
        wrong.append(f"{have.distinct - want.distinct:,} events that are not in the input")
    if not wrong and have.sums != want.sums:
        wrong.append("other values than the input's")
    return " and ".join(wrong) or "right"


def _sums(dataset: Dataset) -> str:
    epoch = f"sum(extract(epoch FROM {dataset.time})::decimal(38, 6) * 1000)"
    return ", ".join([f"{epoch}::decimal(38, 0)", *(f"sum(({one})::bigint)" for one in dataset.sums)])
