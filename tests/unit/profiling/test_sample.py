"""How many rows there are is told from a sample: from what of the file its rows are, not from what was read ahead."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.profiling.sample import Sample
from headrace.reading.inputs import ReadOptions, open_inputs

ROWS = 200_000
OPTIONS = ReadOptions(chunk_rows=5_000)


def written(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"n": range(ROWS), "v": ["x" * 60] * ROWS}), path)
    else:
        line = '{"n": %d, "v": "%s"}\n' if ".jsonl" in path.suffixes else "%d,%s\n"
        words = random.Random(7)  # that compress little, as real ones
        lines = "".join(line % (n, words.randbytes(30).hex()) for n in range(ROWS)).encode()
        content = lines if ".jsonl" in path.suffixes else b"n,v\n" + lines
        path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def total(paths: list[Path], rows: int) -> int | None:
    sample = Sample(open_inputs(paths, OPTIONS, None), rows)
    for item in sample.inputs():
        for _ in item.chunks(item.infer(OPTIONS), OPTIONS):
            pass
    return sample.total


@pytest.mark.parametrize("rows", [3_000, 60_000])
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.jsonl", "x.jsonl.gz"])
def test_the_rows_of_a_text_are_told_within_a_tenth(tmp_path: Path, name: str, rows: int) -> None:
    assert total([written(tmp_path / name)], rows) == pytest.approx(ROWS, rel=0.1)


def test_the_rows_of_several_files_are_told_from_the_first(tmp_path: Path) -> None:
    paths = [written(tmp_path / name) for name in ("a.csv", "b.csv", "c.csv")]
    assert total(paths, 20_000) == pytest.approx(3 * ROWS, rel=0.1)


def test_what_says_its_rows_is_believed_and_all_rows_are_counted(tmp_path: Path) -> None:
    assert total([written(tmp_path / "x.parquet")], 3_000) == ROWS
    assert total([written(tmp_path / "x.csv")], 0) == ROWS
