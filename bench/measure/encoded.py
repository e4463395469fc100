"""The rows of an input as headrace would write them, identified, sorted and encoded: what the lower bound copies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from pgpq import ArrowToPostgresBinaryEncoder

from bench.measure.datasets import Dataset, pg_type
from bench.peers.job import chunk_folder
from headrace.partitioning.contract import Contract, logical_type
from headrace.partitioning.dedup import id_order
from headrace.partitioning.identity import event_ids, ids_to_arrow

__all__ = ["create_table", "encode_chunks", "prepared_batches"]

CHUNK = 131_072


def encode_chunks(path: Path, dataset: Dataset) -> None:
    """Write the chunks of a Parquet file of distinct events where `raw_copy` looks for them."""
    folder = chunk_folder(path)
    if folder.exists():
        return
    unfinished = folder.with_name(f"unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for number, rows in enumerate(prepared_batches(path, dataset)):
        encoder = ArrowToPostgresBinaryEncoder(rows.schema)
        parts = [encoder.write_header(), encoder.write_batch(rows), encoder.finish()]
        (unfinished / f"{number:06}").write_bytes(b"".join(parts))
    unfinished.rename(folder)


def prepared_batches(path: Path, dataset: Dataset) -> Iterator[pa.RecordBatch]:
    """The events with ID, provider and receipt, each chunk sorted by ID."""
    kinds = {name: _canonical(kind) for name, kind in dataset.columns.items()}
    contract = Contract(identity=tuple((name, logical_type(kinds[name])) for name in dataset.key), time=dataset.time)
    for batch in pq.ParquetFile(path).iter_batches(CHUNK):
        columns = {name: batch.column(name).cast(kind) for name, kind in kinds.items()}
        ids = event_ids(contract, [columns[name] for name in dataset.key], columns[dataset.time], "default")
        columns |= {
            "event_id": ids_to_arrow(ids),
            "provider": pa.repeat("default", len(ids)),
            "headrace_receipt": pa.repeat(pa.scalar(1, pa.int64()), len(ids)),
        }
        yield pa.RecordBatch.from_pydict(columns).take(pa.array(id_order(ids)))


def create_table(url: str, table: str, dataset: Dataset, *, key: Sequence[str] = ()) -> None:
    """The table that headrace would make or, with `key`, one with those columns as primary key, in that order."""
    columns = [f"{name} {pg_type(kind)}" for name, kind in dataset.columns.items()]
    if key:
        columns.append(f"PRIMARY KEY ({', '.join(key)})")
    else:
        columns += ["event_id uuid PRIMARY KEY", "provider text NOT NULL", "headrace_receipt bigint NOT NULL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")  # type: ignore[call-overload]


def _canonical(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(kind) else kind
