"""The unique key is the sole authority: a snapshot that is empty, stale or wrong changes no table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.program import Headrace

from headrace.loading.run import ingest
from headrace.options.load import LoadOptions
from headrace.partitioning.snapshot import Snapshot
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.report import Report
from headrace.storage import open_store

OPTIONS = LoadOptions(table="t", identity=("key",), read=ReadOptions(chunk_rows=10))


def load(url: str, folder: Path, keys: range) -> Report:
    path = folder / f"{keys.start}-{keys.stop}.csv"
    path.write_text("key\n" + "\n".join(map(str, keys)) + "\n")
    with open_store(url) as store:
        store.ledger.prepare()
        return ingest(store, open_inputs([path], OPTIONS.read, folder), "t", OPTIONS)


@pytest.fixture
def blind_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that says of every ID that it is not there, and claims to know."""
    monkeypatch.setattr(Snapshot, "known", lambda _, ids: np.zeros(len(ids), dtype=np.bool_))
    monkeypatch.setattr(Snapshot, "covers", lambda _, times: np.ones(len(times), dtype=np.bool_))


@pytest.mark.usefixtures("blind_snapshot")
def test_a_blind_snapshot_duplicates_nothing(store_url: str, tmp_path: Path, headrace: Headrace) -> None:
    assert load(store_url, tmp_path, range(50)).inserted == 50
    overlap = load(store_url, tmp_path, range(25, 75))
    assert (overlap.inserted, overlap.duplicate_in_store) == (25, 25)
    assert headrace.query("SELECT count(*), count(DISTINCT event_id) FROM t") == [(75, 75)]


def test_another_writer_between_snapshot_and_commit_duplicates_nothing(
    store_url: str, tmp_path: Path, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(store_url, tmp_path, range(5))
    extend = Snapshot.extend
    raced: list[Report] = []

    def race(self: Snapshot, *args: object) -> None:
        extend(self, *args)  # type: ignore[arg-type]
        if not raced:
            raced.append(load_again())

    def load_again() -> Report:
        raced.append(None)  # type: ignore[arg-type]
        report = load(store_url, tmp_path, range(3, 40))
        raced.clear()
        return report

    monkeypatch.setattr(Snapshot, "extend", race)
    ours = load(store_url, tmp_path, range(20, 60))
    theirs = raced[0]
    assert theirs.inserted == 35
    assert (ours.inserted, ours.duplicate_in_store) == (20, 20)
    assert headrace.query("SELECT count(*), count(DISTINCT event_id) FROM t") == [(60, 60)]
