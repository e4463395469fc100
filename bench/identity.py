"""Measures how many event IDs one core makes a second, and which column types cost what.

    python bench/identity.py [--rows 131072] [--repeat 9] [--hash xxh3_128|blake2b]

One chunk of random but seeded events per mix; the median of `--repeat` runs, after one that is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.partitioning.contract import Contract, HashName, logical_type
from headrace.partitioning.dedup import first_occurrences
from headrace.partitioning.identity import event_ids
from headrace.partitioning.partition import partition_of

SEED = 20240229
NULLS = 0.1  # of the nullable columns' values


def columns_by_type(rows: int) -> dict[str, pa.Array]:
    """One column of each kind."""
    rng = np.random.default_rng(SEED)
    words = pa.array([f"satellite-{number}" for number in range(50)])
    null = pa.array(rng.random(rows) < NULLS)
    names = words.take(pa.array(rng.integers(0, 50, rows)))
    floats = pa.array(rng.random(rows))
    return {
        "float": floats,
        "integer": pa.array(rng.integers(0, 2**40, rows)),
        "timestamp": pa.array(rng.integers(0, 2**50, rows)).cast(pa.timestamp("us", tz="UTC")),
        "string": names,
        "unique string": pa.array([f"us{number:09x}" for number in range(rows)]),
        "accented string": pc.binary_join_element_wise(names, "é", ""),
        "decimal": pa.array(rng.integers(0, 2**30, rows)).cast(pa.decimal128(38, 9)),
        "nullable float": pc.if_else(null, pa.scalar(None, pa.float64()), floats),
        "nullable string": pc.if_else(null, pa.scalar(None, pa.string()), names),
    }


MIXES = (
    ("float", "float", "timestamp", "string"),
    ("float", "float", "timestamp"),
    ("integer",),
    ("unique string",),
    ("timestamp", "accented string"),
    ("timestamp", "decimal"),
    ("nullable float", "nullable float", "timestamp", "nullable string"),
)


def median_seconds(work: Callable[[], object], repeat: int) -> float:
    """The median time of `repeat` runs after a warm-up."""
    work()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def report(name: str, rows: int, seconds: float) -> None:
    """Print one line."""
    print(f"{name:66} {seconds * 1e9 / rows:8.1f} ns/row {rows / seconds / 1e6:8.2f} M/s")


def main() -> None:
    """Print one line per mix, then partitions and duplicates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=131_072)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--hash", choices=["xxh3_128", "blake2b"], default="xxh3_128")
    options = parser.parse_args()
    rows, repeat, hash_name = options.rows, options.repeat, options.hash
    columns = columns_by_type(rows)
    print(f"{rows} rows, median of {repeat}, {hash_name}, seed {SEED}")
    for mix in MIXES:
        report(", ".join(mix), rows, median_seconds(ids_of([columns[name] for name in mix], hash_name), repeat))
    ids = ids_of([columns["unique string"]], hash_name)()
    report("partition_of, 8 partitions", rows, median_seconds(lambda: partition_of(ids, 8), repeat))
    report("first_occurrences, all different", rows, median_seconds(lambda: first_occurrences(ids), repeat))
    twice = np.concatenate([ids[: rows // 2]] * 2)
    report("first_occurrences, each twice", rows, median_seconds(lambda: first_occurrences(twice), repeat))


def ids_of(columns: list[pa.Array], hash_name: HashName) -> Callable[[], np.ndarray]:
    """A call that makes the IDs of `columns`; layout time if there is a timestamp among them."""
    kinds = [logical_type(column.type) for column in columns]
    identity = tuple((f"c{position}", kind) for position, kind in enumerate(kinds))
    when = kinds.index("timestamp") if "timestamp" in kinds else None
    contract = Contract(identity, time=None if when is None else f"c{when}", hash=hash_name)
    times = None if when is None else columns[when]
    return lambda: event_ids(contract, columns, times, "bench")


if __name__ == "__main__":
    main()
