"""Verification: whether the table holds exactly the events of an input. It does not use the load's snapshot.

    input, read again, identified again: ID and place of every row ─► bucket by bucket, by hash, ─┐
                                                                        on disk                   ├─► missing ·
    ledger ─► table: every row's ID and receipt ──► the same buckets ─────────────────────────────┘   unexpected ·
                                                                                                      duplicated

Missing: an event of the input that is not in the table. Unexpected: a row that only these inputs can have brought,
although they do not have it, or one whose receipt the ledger does not have. Duplicated: an ID that the table holds
more than once. Events from other inputs, and rows of programs that leave no receipt, are ignored. The ledger is also
compared with the table (`headrace.checking.audit`), and each event's values with those of its row
(`headrace.checking.row_values`, `headrace.checking.suspects`).

One bucket of 256 is in memory at a time, so that memory stays bounded whatever the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.checking.audit import Audit
from headrace.checking.id_differences import IdDifferences
from headrace.checking.rereading import Rereading
from headrace.checking.value_check import ValueCheck
from headrace.checking.verify_result import InputRead, Verification
from headrace.loading.open_run import inputs_key
from headrace.loading.ownership import others_events
from headrace.observability.progress import Progress, Quiet
from headrace.options.load import LoadOptions
from headrace.partitioning.dedup import groups
from headrace.partitioning.id_buckets import BUCKETS, TaggedIds
from headrace.reading.inputs import Input
from headrace.runtime.scratch import scratch_folder
from headrace.storage.records import Counts
from headrace.storage.store import Store

__all__ = ["verify"]

SAMPLE = 10


def verify(
    store: Store,
    inputs: Sequence[Input],
    table: str,
    options: LoadOptions,
    *,
    progress: Progress | None = None,
    limit: int = SAMPLE,
    values: bool = False,
) -> Verification:
    """Compare `table` with `inputs`; up to `limit` events of each kind of difference are named. With `values`, each
    event's own columns are compared too. If newer rows replaced older ones, `options.version_column` or else the ledger
    names the version column.

    Raises `ContractError` if the table has no stored contract, or an input lacks a column of the identity;
    `SchemaError` if the table does not exist.
    """
    with scratch_folder() as folder:
        return _BothSides(store, inputs, table, options, values=values).compared(folder, limit, progress or Quiet())


class _BothSides:
    """Both sides of one verification: the inputs as they are read, and the table with its ledger."""

    def __init__(
        self, store: Store, inputs: Sequence[Input], table: str, options: LoadOptions, *, values: bool
    ) -> None:
        self._store = store
        self._read = Rereading(store, inputs, table, options)
        self._result = Verification(table, options.provider)
        self._values = ValueCheck(store, table, self._read) if values else None

    def compared(self, folder: Path, limit: int, progress: Progress) -> Verification:
        """Read both sides and compare them; up to `limit` events of each kind of difference are named."""
        result, values = self._result, self._values
        with TaggedIds(folder, "input", None if values is None else values.of_read) as read:
            with progress.over(self._read.inputs):
                self._read_inputs(read, progress)
            with TaggedIds(folder, "table", None if values is None else values.of_held) as held:
                key, rows = inputs_key(self._read.inputs, self._read.options), None if values is None else values.rows()
                audit = Audit.of(self._store, result.table, held, key, rows)
                differences = IdDifferences(result, audit, limit)
                for number in range(BUCKETS):
                    self._compare(read.records(number), held.records(number), differences)
                result.ledger_differences = audit.settled(self._store, held)
                result.stored = len(held)
        result.ledger_digest, result.receipted_digest = audit.ledger, audit.table
        result.receipts = _intervals(audit.judged_ids)
        if values is not None:
            result.values = values.told(folder, limit)
        if result.missing:
            result.others = others_events(self._store, result.table, self._read.contract, result.provider)
        differences.name(self._store, self._read.places)
        return result

    def _read_inputs(self, read: TaggedIds, progress: Progress) -> None:
        rows = [Counts() for _ in self._read.inputs]
        for number, item, prepared, places in self._read.chunks():
            read.add(prepared.ids, places, None if self._values is None else self._values.read(item, prepared))
            done = Counts(read=prepared.read, rejected=len(prepared.rejects))
            rows[number] += done
            progress.advance(done)
        self._result.inputs = [
            InputRead(item.name, item.fingerprint, item.size, done.read, done.rejected)
            for item, done in zip(self._read.inputs, rows, strict=True)
        ]
        whole = sum(rows, Counts())
        self._result.read, self._result.rejected = whole.read, whole.rejected

    def _compare(self, read: NDArray[Any], held: NDArray[Any], differences: IdDifferences) -> None:
        """One bucket: the input's records, tagged with their places, and the table's, tagged with their receipts."""
        every = np.concatenate([read["id"], held["id"]])
        group, first = groups(every)
        if self._values is not None:
            self._values.compare(read, held, group)
        differences.compare(every, group, first, read["tag"], held["tag"])


def _intervals(numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, last) of each run without a gap."""
    if len(numbers) == 0:
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1)
    firsts, lasts = numbers[[0, *(cuts + 1)]], numbers[[*cuts, len(numbers) - 1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
