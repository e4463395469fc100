"""How fast are the kernels on one core, and which column types cost what? Timed by pytest-benchmark.

    pytest bench/questions/kernels.py       the figures on the terminal
    python bench/run.py kernels             the same, kept with the other results

One chunk of random but seeded values of each kind: encoding, ID, partition, dedup, snapshot, COPY encoding.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pgpq import ArrowToPostgresBinaryEncoder

from headrace.partitioning.contract import Contract, logical_type
from headrace.partitioning.dedup import first_occurrences, id_order
from headrace.partitioning.encoding import encode
from headrace.partitioning.identity import event_ids, ids_to_arrow
from headrace.partitioning.partition import partition_of, rows_by_partition
from headrace.partitioning.snapshot import IdRuns, Snapshot

if TYPE_CHECKING:
    from bench.measure.harness import Bench

__all__ = ["measure"]

SEED = 20240229
ROWS = 131_072
STORED = 1_000_000
NULLS = 0.1  # of the nullable columns' values
MIXES = (
    ("float", "float", "timestamp", "string"),
    ("float", "float", "timestamp"),
    ("integer",),
    ("unique string",),
    ("timestamp", "accented string"),
    ("timestamp", "decimal"),
    ("nullable float", "nullable float", "timestamp", "nullable string"),
)


def measure(bench: Bench) -> None:
    """Run this file under pytest-benchmark and keep each kernel's median."""
    from bench.measure.harness import run_process

    results = bench.results("kernels")
    if results.runs:
        return
    told = bench.scratch / "kernels.json"
    # the project's settings are the tests': they name plugins that this environment need not have
    settings = ["-c", os.devnull, f"--rootdir={Path(__file__).parent}"]
    options = [*settings, "-q", "-p", "no:cacheprovider", "--benchmark-only", f"--benchmark-json={told}"]
    outcome = run_process([sys.executable, "-m", "pytest", *options, str(Path(__file__))], scratch=bench.scratch)
    if outcome.exit_code:
        sys.exit(f"the kernels could not be timed:\n{outcome.said}{outcome.complaint}")
    for one in json.loads(told.read_text())["benchmarks"]:
        results.add({**one["extra_info"], "seconds": one["stats"]["median"], "rounds": one["stats"]["rounds"]})


@pytest.fixture(scope="module")
def columns() -> dict[str, pa.Array]:
    """One column of each kind."""
    rng = np.random.default_rng(SEED)
    words = pa.array([f"satellite-{number}" for number in range(50)])
    null = pa.array(rng.random(ROWS) < NULLS)
    names = words.take(pa.array(rng.integers(0, 50, ROWS)))
    floats = pa.array(rng.random(ROWS))
    return {
        "float": floats,
        "integer": pa.array(rng.integers(0, 2**40, ROWS)),
        "timestamp": pa.array(rng.integers(0, 2**50, ROWS)).cast(pa.timestamp("us", tz="UTC")),
        "string": names,
        "unique string": pa.array([f"us{number:09x}" for number in range(ROWS)]),
        "accented string": pc.binary_join_element_wise(names, "é", ""),
        "decimal": pa.array(rng.integers(0, 2**30, ROWS)).cast(pa.decimal128(38, 9)),
        "nullable float": pc.if_else(null, pa.scalar(None, pa.float64()), floats),
        "nullable string": pc.if_else(null, pa.scalar(None, pa.string()), names),
    }


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    """IDs that are all different, (rows, 16)."""
    return np.random.default_rng(SEED).integers(0, 256, (ROWS, 16), dtype=np.uint8)


@pytest.fixture(scope="module")
def stored() -> np.ndarray:
    """The IDs of a store."""
    return np.random.default_rng(SEED + 1).integers(0, 256, (STORED, 16), dtype=np.uint8)


def timed(benchmark: Any, kernel: str, of: str, work: Callable[[], object], rows: int = ROWS) -> None:
    """Time `work` over so many rows."""
    benchmark.extra_info.update({"kernel": kernel, "of": of, "rows": rows})
    benchmark.pedantic(work, rounds=9, warmup_rounds=1)


@pytest.mark.parametrize("mix", MIXES, ids=", ".join)
def test_encode(benchmark: Any, columns: dict[str, pa.Array], mix: tuple[str, ...]) -> None:
    """Encoding v1 alone."""
    timed(benchmark, "encode", ", ".join(mix), lambda: encode([columns[name] for name in mix], "bench"))


@pytest.mark.parametrize("hash_name", ["xxh3_128", "blake2b"])
@pytest.mark.parametrize("mix", MIXES, ids=", ".join)
def test_identity(benchmark: Any, columns: dict[str, pa.Array], mix: tuple[str, ...], hash_name: Any) -> None:
    """Encoding, hash and layout together: from columns to IDs."""
    chosen = [columns[name] for name in mix]
    kinds = [logical_type(column.type) for column in chosen]
    when = kinds.index("timestamp") if "timestamp" in kinds else None
    contract = Contract(
        tuple((f"c{position}", kind) for position, kind in enumerate(kinds)),
        time=None if when is None else f"c{when}",
        hash=hash_name,
    )
    times = None if when is None else chosen[when]
    timed(benchmark, f"ID, {hash_name}", ", ".join(mix), lambda: event_ids(contract, chosen, times, "bench"))


def test_partition(benchmark: Any, ids: np.ndarray) -> None:
    """The number alone."""
    timed(benchmark, "partition", "8 partitions", lambda: partition_of(ids, 8))


def test_rows_by_partition(benchmark: Any, ids: np.ndarray) -> None:
    """The rows of each partition."""
    timed(benchmark, "partition", "rows of 8 partitions", lambda: rows_by_partition(ids, 8))


def test_first_occurrences(benchmark: Any, ids: np.ndarray) -> None:
    """Dedup of a chunk whose events all differ."""
    timed(benchmark, "dedup", "all different", lambda: first_occurrences(ids))


def test_first_occurrences_twice(benchmark: Any, ids: np.ndarray) -> None:
    """Dedup of a chunk in which each event stands twice."""
    twice = np.concatenate([ids[: ROWS // 2]] * 2)
    timed(benchmark, "dedup", "each twice", lambda: first_occurrences(twice))


def test_id_order(benchmark: Any, ids: np.ndarray) -> None:
    """The order in which rows are written."""
    timed(benchmark, "dedup", "sort by ID", lambda: id_order(ids))


def test_snapshot_build(benchmark: Any, stored: np.ndarray, tmp_path: Path) -> None:
    """A snapshot out of the IDs of a store, as they come from the server."""
    packed = stored.tobytes()

    def build() -> None:
        with Snapshot(tmp_path) as snapshot:
            snapshot.extend(iter([packed]), None)

    timed(benchmark, "snapshot", f"build of {STORED:,}", build, STORED)


@pytest.mark.parametrize("there", [0.0, 0.5, 1.0], ids=lambda share: f"{share:.0%} there")
def test_snapshot_search(benchmark: Any, ids: np.ndarray, stored: np.ndarray, tmp_path: Path, there: float) -> None:
    """A chunk looked up in a snapshot."""
    asked = ids.copy()
    asked[: round(ROWS * there)] = stored[: round(ROWS * there)]
    with IdRuns(tmp_path) as runs:
        runs.add(stored)
        assert runs.contains(asked).sum() == round(ROWS * there)  # noqa: S101 - a wrong answer is no figure
        timed(benchmark, "snapshot", f"search of {STORED:,}, {there:.0%} there", lambda: runs.contains(asked))


def test_copy_encoding(benchmark: Any, columns: dict[str, pa.Array], ids: np.ndarray) -> None:
    """Rows of 13 columns, ID, provider and receipt as the bytes of binary COPY."""
    names = ["float"] * 7 + ["integer", "timestamp"] + ["string"] * 4
    batch = pa.RecordBatch.from_arrays(
        [
            *(columns[name] for name in names),
            ids_to_arrow(ids),
            pa.repeat("bench", ROWS),
            pa.repeat(pa.scalar(1, pa.int64()), ROWS),
        ],
        [f"c{number}" for number in range(len(names) + 3)],
    )
    encoder = ArrowToPostgresBinaryEncoder(batch.schema)
    encoder.write_header()
    timed(benchmark, "COPY encoding", "16 columns", lambda: encoder.write_batch(batch))
