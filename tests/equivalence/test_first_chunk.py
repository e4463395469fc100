"""A sequential run's first chunk is smaller, so that writing begins early; what is in the table is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from headrace import Interrupted
from headrace.loading import intake
from headrace.loading.run import ingest
from headrace.observability.stages import Silent
from headrace.options.load import LoadOptions, ParallelOptions
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.storage import open_store
from headrace.storage.records import Address, Committed, Slice
from headrace.storage.store import Store

FIRST, CHUNK, ROWS = 8, 20, 50
OPTIONS = LoadOptions(table="t", identity=("n",), mode="sequential", read=ReadOptions(chunk_rows=CHUNK))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "FIRST_ROWS", FIRST)


@pytest.fixture
def opened(store_url: str) -> Iterator[Store]:
    with open_store(store_url) as store:
        store.ledger.prepare()
        yield store


class StopAfterOne(Silent):
    def __init__(self) -> None:
        self.stop = Event()

    def committed(self, piece: Slice, done: Committed) -> None:
        self.stop.set()


def load(store: Store, folder: Path, options: LoadOptions, stopping: StopAfterOne | None = None) -> Any:
    """Load two files of `ROWS` rows, ten of them in both."""
    paths = [folder / "a.csv", folder / "b.csv"]
    for path, start in zip(paths, (0, ROWS - 10), strict=True):
        if not path.exists():  # its date is a part of what makes it the same input
            path.write_text("n\n" + "".join(f"{n}\n" for n in range(start, start + ROWS)))
    inputs = open_inputs(paths, options.read, folder)
    options = replace(options, to=store.url)
    if stopping is None:
        return ingest(store, inputs, "t", options)
    return ingest(store, inputs, "t", options, stop=stopping.stop, listener=stopping)


def chunks(store: Store, run_id: str) -> list[tuple[str, int, int]]:
    """The chunks that the receipts speak of: source, first row, rows."""
    addresses: dict[Address, None] = {}
    for receipt in store.ledger.receipts(run_id):
        addresses |= dict.fromkeys(receipt.spans or (receipt.address,))
    return sorted((Path(one.source).name, one.first_row, one.rows) for one in addresses)


def test_only_the_first_chunk_of_the_first_input_is_smaller(opened: Store, tmp_path: Path) -> None:
    report = load(opened, tmp_path, OPTIONS)
    assert (report.inserted, report.duplicate_in_input) == (90, 10)
    assert chunks(opened, report.run_id) == [
        *[("a.csv", 0, 8), ("a.csv", 8, 20), ("a.csv", 28, 20), ("a.csv", 48, 2)],
        *[("b.csv", 0, 20), ("b.csv", 20, 20), ("b.csv", 40, 10)],
    ]


def test_a_resumed_run_finds_the_chunks_it_left(opened: Store, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        load(opened, tmp_path, OPTIONS, StopAfterOne())
    report = load(opened, tmp_path, OPTIONS)
    assert report.chunks_skipped >= 1
    assert (report.inserted, report.chunks) == (90, 7)
    assert opened.ledger.receipts(report.run_id)[0].address.rows == FIRST


def test_an_empty_input_does_not_use_up_the_small_chunk(opened: Store, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n")
    report = load(opened, tmp_path, OPTIONS)
    assert chunks(opened, report.run_id) == [("b.csv", 0, 8), ("b.csv", 8, 20), ("b.csv", 28, 20), ("b.csv", 48, 2)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"mode": "parallel", "parallel": ParallelOptions(workers=2)}, 20),
        ({"read": replace(OPTIONS.read, select="SELECT n FROM source")}, 20),
        ({"read": replace(OPTIONS.read, chunk_rows=5)}, 5),
    ],
    ids=["in parallel", "with a select", "smaller chunks"],
)
def test_where_it_would_mean_something_or_gain_nothing_all_chunks_are_alike(
    opened: Store, tmp_path: Path, changed: dict[str, Any], expected: int
) -> None:
    report = load(opened, tmp_path, replace(OPTIONS, **changed))
    assert report.inserted == 90
    assert chunks(opened, report.run_id)[0] == ("a.csv", 0, expected)
