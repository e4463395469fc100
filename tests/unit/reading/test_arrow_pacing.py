"""A paced file is read a few blocks ahead of what is made of it, and never keeps its reader waiting for ever."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pytest

from headrace.reading.arrow_pacing import BLOCKS, Paced
from headrace.reading.csv_reader import CsvReader
from headrace.reading.steady_files import Steady

BLOCK = 1 << 16
ROWS = b"".join(b"%d,some words that make up for length\n" % number for number in range(200_000))


def batches(file: object, refuse: Callable[[arrow_csv.InvalidRow], str] | None = None) -> Iterator[pa.RecordBatch]:
    options = arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=["n", "words"])
    parse = arrow_csv.ParseOptions(invalid_row_handler=refuse)
    return iter(arrow_csv.open_csv(pa.PythonFile(file, mode="r"), read_options=options, parse_options=parse))


def most_ahead(stream: io.BytesIO, made: Iterator[pa.RecordBatch], size: int = len(ROWS)) -> int:
    """The most blocks that were read beyond those whose rows have come."""
    most = rows = 0
    waiting = threading.Event()
    for batch in made:
        waiting.wait(0.02)  # a consumer with other things to do
        rows += batch.num_rows
        used = rows * size // 200_000
        most = max(most, (stream.tell() - used) // BLOCK)
    assert rows == 200_000
    return most


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a busy machine does to the clock is not what is asked."""
    monkeypatch.setattr("headrace.reading.arrow_pacing._PATIENCE", 3_600)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("rows", [ROWS, b"1,the same word\n" * 200_000], ids=["different", "equal"])
def test_a_paced_file_is_read_a_few_blocks_ahead(rows: bytes) -> None:
    stream = io.BytesIO(rows)
    paced = Paced(stream)
    assert most_ahead(stream, paced.items(batches(paced)), len(rows)) <= BLOCKS


@pytest.mark.usefixtures("patient")
def test_a_slow_parser_is_not_taken_for_one_that_needs_more() -> None:
    """On a busy machine a block takes its time; what went by time drifted there, to all of Arrow's 32 blocks."""
    stream = io.BytesIO(
        b"".join(b"%d,words\n" % number + b"refused\n" * (number % 8_000 == 0) for number in range(200_000))
    )
    paced = Paced(stream)
    most = 0

    def slowly(row: arrow_csv.InvalidRow) -> str:
        nonlocal most
        threading.Event().wait(0.1)
        most = max(most, len(paced._lent))
        return "skip"

    assert sum(batch.num_rows for batch in paced.items(batches(paced, slowly))) == 200_000
    assert 0 < most <= BLOCKS


def test_a_slow_consumer_is_not_taken_for_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.reading.arrow_pacing._PATIENCE", 0.2)
    paced = Paced(io.BytesIO(ROWS))
    made = paced.items(batches(paced))
    most = 0
    for _ in range(4):
        next(made)
        threading.Event().wait(0.8)
        most = max(most, len(paced._lent))
    paced.stop()
    assert 0 < most <= BLOCKS + 1  # and not one more for each 0.2 s


def test_a_reader_that_holds_on_to_its_blocks_waits_and_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [bytes([number]) * BLOCK for number in range(10)]

    def read_all(paced: Paced, into: list[bytes | memoryview]) -> None:
        into.extend(iter(lambda: paced.read(BLOCK), b""))

    monkeypatch.setattr("headrace.reading.arrow_pacing._PATIENCE", 0.01)
    kept: list[bytes | memoryview] = []
    read_all(Paced(io.BytesIO(b"".join(blocks))), kept)
    assert kept == blocks

    monkeypatch.setattr("headrace.reading.arrow_pacing._PATIENCE", 3_600)
    paced, stuck = Paced(io.BytesIO(b"".join(blocks))), []
    reader = threading.Thread(target=read_all, args=(paced, stuck))
    reader.start()
    reader.join(0.3)
    assert reader.is_alive()
    paced.stop()
    reader.join()
    assert stuck == blocks[:BLOCKS]


def test_without_pacing_arrow_reads_far_ahead() -> None:
    """The negative control: it is the pace that bounds the memory."""
    stream = io.BytesIO(ROWS)
    assert most_ahead(stream, batches(stream)) > 2 * BLOCKS


def test_blocks_that_yield_nothing_do_not_stop_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "refused.csv"
    record = b"1,2,3,%s\n" % (b"x" * 1_000)
    path.write_bytes(b"a,b\n1,2\n" + record * 30_000 + b"3,4\n")  # seven blocks of four MiB, refused to the last row
    pieces = list(CsvReader(Steady(path, path.name), "refused.csv", ",").pieces())
    assert sum(len(piece.rows) for piece in pieces) == 2
    assert sum(len(piece.rejects) for piece in pieces) == 30_000


@pytest.mark.timeout(60)
def test_a_consumer_that_stops_early_leaves_no_thread_waiting(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_bytes(b"n,words\n" + ROWS * 8)
    for _ in range(5):
        pieces = CsvReader(Steady(path, path.name), "long.csv", ",").pieces()
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]  # a generator
