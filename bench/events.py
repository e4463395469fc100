"""Fire-like events of 13 columns, any number of them, the same for a seed on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

__all__ = ["COLUMNS", "IDENTITY", "write_events"]

IDENTITY = ("latitude", "longitude", "acq_time", "satellite")
ROWS_AT_ONCE = 1_000_000
SECONDS_BETWEEN_EVENTS = 2.592  # a million events in thirty days, as the MODIS feed has them
COLUMNS = {
    "latitude": pa.float64(),
    "longitude": pa.float64(),
    "brightness": pa.float64(),
    "scan": pa.float64(),
    "track": pa.float64(),
    "acq_time": pa.timestamp("us"),
    "satellite": pa.string(),
    "instrument": pa.string(),
    "confidence": pa.int64(),
    "version": pa.string(),
    "bright_t31": pa.float64(),
    "frp": pa.float64(),
    "daynight": pa.string(),
}


def write_events(folder: Path, rows: int, *, seed: int = 1, csv: bool = True) -> tuple[Path, Path]:
    """Write `rows` distinct events in event-time order as Parquet and CSV; files that are there are kept."""
    parquet_path, csv_path = folder / f"fires-{rows}-{seed}.parquet", folder / f"fires-{rows}-{seed}.csv"
    schema = pa.schema(list(COLUMNS.items()))
    if not parquet_path.exists():
        with pa.parquet.ParquetWriter(parquet_path, schema) as writer:
            for table in _tables(rows, seed, schema):
                writer.write_table(table)
    if csv and not csv_path.exists():
        with pa.csv.CSVWriter(csv_path, schema) as writer:
            for batch in pa.parquet.ParquetFile(parquet_path).iter_batches(ROWS_AT_ONCE):
                writer.write_batch(batch)
    return parquet_path, csv_path


def _tables(rows: int, seed: int, schema: pa.Schema) -> Iterator[pa.Table]:
    for first in range(0, rows, ROWS_AT_ONCE):
        yield _table(first, min(ROWS_AT_ONCE, rows - first), np.random.default_rng([seed, first]), schema)


def _table(first: int, rows: int, random: np.random.Generator, schema: pa.Schema) -> pa.Table:
    def decimal(low: float, high: float, digits: int) -> np.ndarray:
        return np.round(random.uniform(low, high, rows), digits)

    def one_of(*names: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(random.integers(0, len(names), rows, dtype=np.int8), list(names)).cast(
            "string"
        )

    ticks = (np.arange(first, first + rows) * SECONDS_BETWEEN_EVENTS * 1e6).astype("timedelta64[us]")
    columns = {
        "latitude": decimal(-90, 90, 5),
        "longitude": decimal(-180, 180, 5),
        "brightness": decimal(300, 400, 2),
        "scan": decimal(1, 4, 2),
        "track": decimal(1, 2, 2),
        "acq_time": np.datetime64("2024-01-01T00:00:00", "us") + ticks,
        "satellite": one_of("Terra", "Aqua", "N", "1"),
        "instrument": one_of("MODIS", "VIIRS"),
        "confidence": random.integers(0, 101, rows),
        "version": one_of("6.1NRT", "6.03", "2.0NRT"),
        "bright_t31": decimal(250, 310, 2),
        "frp": decimal(0, 300, 1),
        "daynight": one_of("D", "N"),
    }
    return pa.table(columns, schema=schema)
