"""Provenance: which inputs brought the rows of a table, as far as the ledger knows, for the comparison of values.

    receipt of a row ──► its run ──► that run's inputs ──► is it one of these inputs? did it commit in input order?
    runs of the table ──► which revised by a version column, and which of these inputs they had

Two inputs are the same if their fingerprints are equal, and also if their names or paths are equal: the rows that an
input brought with an earlier content still count as its rows. The name of a batch in memory identifies nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.options.shape import Shape
from headrace.reading.inputs import Input
from headrace.storage.records import NO_RECEIPT, Receipt, RunRecord
from headrace.storage.store import Store

__all__ = ["Provenance"]

Mask = NDArray[np.bool_]
MOST_RUNS = 100_000
UNORDERED = ("upsert", "locked")


class Provenance:
    """The origin of the rows of `table`: one of `inputs`, another input, or another program.

    `version` is the column by which newer rows take the place of older ones, where any run did that, or as `version`
    says; `newest` says whether these inputs were loaded so; `others_revise`, whether others were.
    """

    def __init__(self, store: Store, table: str, inputs: Sequence[Input], version: str | None) -> None:
        self._store = store
        self._inputs = inputs
        self._places = _places(inputs)
        self._runs = {run.run_id: run for run in store.ledger.runs(table=table, limit=MOST_RUNS)}
        self._brought: dict[int, tuple[int, ...]] = {}
        self._unordered: set[int] = set()
        self._known: set[int] = {NO_RECEIPT}
        columns, self.newest, self.others_revise = [version], version is not None, version is not None
        decided = self.newest
        for run in self._runs.values():  # the newest first
            described = json.loads(run.inputs)
            ours = any(self._numbers(source) for source in described)
            revised_by = next((source["version_column"] for source in described if "version_column" in source), None)
            columns.append(revised_by)
            if ours and not decided:
                self.newest, decided = revised_by is not None, True
            self.others_revise |= revised_by is not None and not all(self._numbers(source) for source in described)
        self.version = next((column for column in columns if column is not None), None)

    def look_up(self, receipts: NDArray[np.int64]) -> None:
        """Read the entries of `receipts` from the ledger."""
        unread = [number for number in np.unique(receipts).tolist() if number not in self._known]
        for receipt in self._store.ledger.receipts_numbered(unread):
            self._known.add(receipt.receipt_id)
            run = self._runs.get(receipt.run_id) or self._store.ledger.run(receipt.run_id)
            if run is not None:
                self._brought[receipt.receipt_id] = self._inputs_of(receipt, run)
                if Shape.from_json(run.shape).strategy in UNORDERED:
                    self._unordered.add(receipt.receipt_id)

    def brought(self, receipts: NDArray[np.int64], numbers: NDArray[np.int64]) -> Mask:
        """Whether each of `receipts` is of the input whose number (its place among the inputs) stands beside it."""
        pairs = [receipt * len(self._inputs) + number for receipt, of in self._brought.items() for number in of]
        return np.isin(receipts * len(self._inputs) + numbers, np.array(pairs, dtype=np.int64))

    def known(self, receipts: NDArray[np.int64]) -> Mask:
        """Which of `receipts` the ledger has; a row without a receipt comes from another program."""
        return np.isin(receipts, np.array(sorted(self._known), dtype=np.int64))

    def unordered(self, receipts: NDArray[np.int64]) -> Mask:
        """Which of `receipts` are of runs in which the first to commit wins, not the first in the input."""
        return np.isin(receipts, np.array(sorted(self._unordered), dtype=np.int64))

    def _inputs_of(self, receipt: Receipt, run: RunRecord) -> tuple[int, ...]:
        sources = {chunk.source for chunk in receipt.chunks}
        described = (source for source in json.loads(run.inputs) if source.get("name") in sources)
        return tuple({number for source in described for number in self._numbers(source)})

    def _numbers(self, described: Mapping[str, Any]) -> set[int]:
        """The places of those inputs that are the one a run has `described`."""
        fingerprint, name = str(described.get("fingerprint")), str(described.get("name"))
        places = set(self._places.get(fingerprint, ()))
        if ":" in fingerprint:
            places |= {*self._places.get(_path(fingerprint), ()), *self._places.get(name, ())}
        else:  # a batch in memory
            places |= {number for number in self._places.get(name, ()) if not self._inputs[number].durable}
        return places


def _places(inputs: Sequence[Input]) -> dict[str, list[int]]:
    """The places of the inputs by all that tells one from another."""
    places: dict[str, list[int]] = {}
    for number, item in enumerate(inputs):
        for key in {item.fingerprint, item.name, _path(item.fingerprint)} - {""}:
            places.setdefault(key, []).append(number)
    return places


def _path(fingerprint: str) -> str:
    """The path in a file's fingerprint; none where that is its content's hash."""
    return fingerprint.rsplit(":", 2)[0] if fingerprint.count(":") > 1 else ""
