"""Fire-like events of 13 columns, any number of them, the same for a seed on every machine.

Events stand on ticks, one each 2.592 s, in blocks that are made one by one, each from a seed of its own: so any part
of any size can be made without the rest. An input's share of known events are those that the store has on the same
ticks; its repeats are copies of rows of the block before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

__all__ = ["BLOCK", "COLUMNS", "FORMATS", "IDENTITY", "SCHEMA", "event_blocks", "write_events", "write_tables"]

IDENTITY = ("latitude", "longitude", "acq_time", "satellite")
FORMATS = ("parquet", "csv", "jsonl")
BLOCK = 1 << 16
SECONDS_BETWEEN_EVENTS = 2.592  # a million events in thirty days, as the MODIS feed has them
STORE, NEW, CHOICE = 1, 2, 3  # the seeds' second numbers: events in the store, events that are not, which of the two
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
SCHEMA = pa.schema(list(COLUMNS.items()))


def event_blocks(
    rows: int, *, first: int = 0, known: float = 1.0, repeated: float = 0.0, seed: int = 1
) -> Iterator[pa.Table]:
    """`rows` events on the ticks from `first`, in event-time order, in tables of at most `BLOCK` rows.

    A share `known` are those of the store (the defaults give the store itself), the others exist nowhere else.
    A share `repeated` of the rows are copies of rows in the block before, so that they are late and far apart.
    """
    before: pa.Table | None = None
    for number in range(first // BLOCK, -(-(first + rows) // BLOCK)):
        table = _mixed(number, known, seed)
        start = max(0, first - number * BLOCK)
        table = table.slice(start, first + rows - number * BLOCK - start)
        if repeated:
            table = _with_repeats(table, before, repeated, np.random.default_rng([seed, number, 4]))
        yield table
        before = table


def write_events(path: Path, rows: int, *, first: int = 0, known: float = 1.0, repeated: float = 0.0) -> Path:
    """Write events (see `event_blocks`) in the format that the suffix of `path` says; a file that is there is kept."""
    return write_tables(path, SCHEMA, event_blocks(rows, first=first, known=known, repeated=repeated))


def write_tables(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> Path:
    """Write `tables` as Parquet, CSV or JSON lines, as the suffix of `path` says; a file that is there is kept."""
    if not path.exists():
        unfinished = path.with_name(f"unfinished-{path.name}")
        WRITERS[path.suffix](unfinished, schema, tables)
        unfinished.rename(path)
    return path


def _mixed(number: int, known: float, seed: int) -> pa.Table:
    """A whole block, each of its rows from the store or not."""
    if known >= 1:
        return _block(number, [seed, number, STORE])
    new = _block(number, [seed, number, NEW])
    if known <= 0:
        return new
    there = np.random.default_rng([seed, number, CHOICE]).random(BLOCK) < known
    both = pa.concat_tables([new, _block(number, [seed, number, STORE])])
    return both.take(pa.array(np.arange(BLOCK) + BLOCK * there))


def _with_repeats(table: pa.Table, before: pa.Table | None, share: float, random: np.random.Generator) -> pa.Table:
    """`table` with a share of its rows overwritten by rows of the table before, or by its own first half's."""
    source = before if before is not None else table.slice(0, max(1, table.num_rows // 2))
    rows = np.arange(table.num_rows)
    overwritten = random.random(table.num_rows) < share
    if before is None:
        overwritten &= rows >= source.num_rows
    rows[overwritten] = table.num_rows + random.integers(0, source.num_rows, int(overwritten.sum()))
    return pa.concat_tables([table, source]).take(pa.array(rows))


def _block(number: int, seed: list[int]) -> pa.Table:
    random = np.random.default_rng(seed)

    def decimal(low: float, high: float, digits: int) -> np.ndarray:
        return np.round(random.uniform(low, high, BLOCK), digits)

    def one_of(*names: str) -> pa.Array:
        numbers = random.integers(0, len(names), BLOCK, dtype=np.int8)
        return pa.DictionaryArray.from_arrays(numbers, list(names)).cast("string")

    ticks = np.arange(number * BLOCK, (number + 1) * BLOCK)
    columns = {
        "latitude": decimal(-90, 90, 5),
        "longitude": decimal(-180, 180, 5),
        "brightness": decimal(300, 400, 2),
        "scan": decimal(1, 4, 2),
        "track": decimal(1, 2, 2),
        "acq_time": np.datetime64("2024-01-01T00:00:00", "us")
        + (ticks * SECONDS_BETWEEN_EVENTS * 1e6).astype("timedelta64[us]"),
        "satellite": one_of("Terra", "Aqua", "N", "1"),
        "instrument": one_of("MODIS", "VIIRS"),
        "confidence": random.integers(0, 101, BLOCK),
        "version": one_of("6.1NRT", "6.03", "2.0NRT"),
        "bright_t31": decimal(250, 310, 2),
        "frp": decimal(0, 300, 1),
        "daynight": one_of("D", "N"),
    }
    return pa.table(columns, schema=SCHEMA)


def _write_parquet(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with pa.parquet.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _write_csv(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with pa.csv.CSVWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _write_json_lines(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    import duckdb

    stream = pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))
    with duckdb.connect(config={"preserve_insertion_order": True}) as connection:
        connection.register("stream", stream)
        # all times in one form, as feeds have them
        times = [
            f"strftime({field.name}, '%Y-%m-%dT%H:%M:%S.%f') AS {field.name}"
            for field in schema
            if str(field.type) == "timestamp[us]"
        ]
        connection.execute(f"COPY (SELECT * REPLACE ({', '.join(times)}) FROM stream) TO ? (FORMAT json)", [str(path)])


WRITERS: dict[str, Callable[[Path, pa.Schema, Iterator[pa.Table]], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
}
