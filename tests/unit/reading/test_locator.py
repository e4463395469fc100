"""A row's line and text are right or absent: whatever order rows are asked for in, compressed or not."""

from __future__ import annotations

import gzip
import random
from functools import partial
from pathlib import Path

import pytest

from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.reading.locator import Locator, csv_places
from headrace.reading.steady_files import Steady

RECORDS = ['"a","b"', "1,x", "", '"2\n\n3",y', "too,many,fields", "\r", "4,é", '5,"z""\n"']


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_csv_rows_are_found_in_any_order(tmp_path: Path, compressed: bool, seed: int) -> None:
    rng = random.Random(seed)
    text, starts = "", []
    for record in ["a,b", *(rng.choice(RECORDS) for _ in range(3000))]:
        starts.append((text.count("\n") + 1, record))
        text += record + "\n"
    wanted = dict(enumerate(start for start in starts[1:] if start[1].strip("\r")))
    path = tmp_path / "x.csv"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    locator = Locator(Steady(path, path.name), partial(csv_places, delimiter=",", header=True))
    rows = rng.sample(sorted(wanted), 50)
    for row in rows:
        assert locator.locate([row]) == {row: wanted[row]}, f"seed {seed}, row {row}"
    assert locator.locate(range(len(wanted))) == wanted, f"seed {seed}"
    assert locator.locate([len(wanted)]) == {}


def test_json_rows_are_found_with_blank_lines_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a":1}\n\n  \n{"a":2}\r\n{"a":3}')
    (source,) = open_inputs([path], ReadOptions(), None)
    assert source.locate([2, 0, 1]) == {0: (1, '{"a":1}'), 1: (4, '{"a":2}'), 2: (5, '{"a":3}')}
    path = tmp_path / "x.json"
    path.write_text('[\n{"a":1},\n\n{\n"a":2}\n]')
    (source,) = open_inputs([path], ReadOptions(), None)
    assert source.locate([0, 1]) == {0: (2, '{"a":1}'), 1: (4, '{\n"a":2}')}
