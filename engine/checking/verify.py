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

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.checking.audit import Audit, ReceiptDifference, chunks_of
from headrace.checking.rereading import identified
from headrace.checking.row_addresses import Places
from headrace.checking.value_check import ValueCheck
from headrace.checking.verify_result import Finding, InputRead, Verification
from headrace.loading.agreement import contract_for
from headrace.loading.contract_drift import require_same_row
from headrace.loading.open_run import inputs_key
from headrace.loading.ownership import others_events, require_own_events
from headrace.observability.progress import Progress, Quiet
from headrace.options.load import LoadOptions
from headrace.partitioning.dedup import groups
from headrace.partitioning.id_buckets import BUCKETS, TaggedIds
from headrace.partitioning.identity import id_text, ids_from_packed
from headrace.reading.inputs import Input
from headrace.runtime.scratch import scratch_folder
from headrace.storage.digest import PARTS, Digest
from headrace.storage.records import NO_RECEIPT, Counts, LedgerEntry
from headrace.storage.store import Store

__all__ = ["audited", "intervals", "settled", "verify"]

SAMPLE = 10
Tagged = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[Any] | None]
"""IDs with their tags, and what is kept beside them."""


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
        return _BothSides(store, inputs, table, options, limit, values=values).carried_out(folder, progress or Quiet())


class _BothSides:
    """Both sides of one verification, and what they have told so far."""

    def __init__(
        self, store: Store, inputs: Sequence[Input], table: str, options: LoadOptions, limit: int, *, values: bool
    ) -> None:
        self._store = store
        self._inputs = inputs
        self._options = options
        self._limit = limit
        self._contract = contract_for(store, table, options)
        require_own_events(store, table, self._contract, options)
        if options.identity is None and self._contract.whole_row:
            for item in inputs:
                require_same_row(item.name, item.columns(), self._contract)
        self._places = Places(inputs)
        self._result = Verification(table, options.provider)
        self._missing: list[tuple[bytes, int]] = []
        self._unexpected: list[tuple[bytes, int]] = []
        self._duplicated: list[tuple[bytes, int | None, tuple[int, ...]]] = []
        self._values = ValueCheck(store, inputs, table, self._contract, options) if values else None

    def carried_out(self, folder: Path, progress: Progress) -> Verification:
        """Both sides read and compared."""
        result, values = self._result, self._values
        with TaggedIds(folder, "input", None if values is None else values.of_read) as read:
            with progress.over(self._inputs):
                self._read_inputs(read, progress)
            with TaggedIds(folder, "table", None if values is None else values.of_held) as held:
                rows = None if values is None else values.rows()
                self._audit = audited(self._store, result.table, held, inputs_key(self._inputs, self._options), rows)
                for number in range(BUCKETS):
                    self._compare(read.records(number), held.records(number))
                result.ledger_differences = settled(self._store, self._audit, held)
                result.stored = len(held)
        result.ledger_digest, result.receipted_digest = self._audit.ledger, self._audit.table
        result.receipts = intervals(self._audit.judged_ids)
        if values is not None:
            result.values = values.told(folder, self._limit)
        if result.missing:
            result.others = others_events(self._store, result.table, self._contract, result.provider)
        self._name()
        return result

    def _read_inputs(self, read: TaggedIds, progress: Progress) -> None:
        for item in self._inputs:
            before = self._result.read, self._result.rejected
            for prepared in identified(self._store, self._result.table, self._contract, [item], self._options):
                more = None if self._values is None else self._values.read(item, prepared)
                read.add(prepared.ids, self._places.tags(prepared), more)
                self._result.read += prepared.read
                self._result.rejected += len(prepared.rejects)
                progress.advance(Counts(read=prepared.read, rejected=len(prepared.rejects)))
            rows, rejects = self._result.read - before[0], self._result.rejected - before[1]
            self._result.inputs.append(InputRead(item.name, item.fingerprint, item.size, rows, rejects))

    def _compare(self, read: NDArray[Any], held: NDArray[Any]) -> None:
        """One bucket: the input's records, tagged with their places, and the table's, tagged with their receipts."""
        every = np.concatenate([read["id"], held["id"]])
        group, first = groups(every)
        if self._values is not None:
            self._values.compare(read, held, group)
        self._compare_ids(every, group, first, read["tag"], held["tag"])

    def _compare_ids(
        self,
        every: NDArray[np.uint8],
        group: NDArray[np.int64],
        first: NDArray[np.int64],
        places: NDArray[np.int64],
        receipts: NDArray[np.int64],
    ) -> None:
        """The IDs of both sides, the table's behind, with the group of each and the first of each group."""
        ids, held = every[: len(places)], every[len(places) :]
        read, stored = group[: len(ids)], group[len(ids) :]
        is_expected = np.bincount(read, minlength=len(first)) > 0
        times_stored = np.bincount(stored, minlength=len(first))

        held_expected = is_expected[stored]
        strange = ~held_expected & (
            self._audit.own(receipts) | (~self._audit.known(receipts) & (receipts != NO_RECEIPT))
        )
        missing = first[is_expected & (times_stored == 0)]
        result = self._result
        result.expected += int(is_expected.sum())
        result.repeated += len(ids) - int(is_expected.sum())
        result.missing += len(missing)
        result.unexpected += int(strange.sum())
        result.duplicated += int((times_stored[times_stored > 1] - 1).sum())
        result.unreceipted += int((receipts == NO_RECEIPT).sum())
        result.input_digest += Digest.of(every[first[is_expected]])
        result.table_digest += Digest.of(held[held_expected | strange])

        self._missing += _some(every, missing, places, self._room(self._missing))
        self._unexpected += _some(held, np.flatnonzero(strange), receipts, self._room(self._unexpected))
        for at in np.flatnonzero(times_stored > 1)[: self._room(self._duplicated)]:
            under = tuple(receipts[stored == at].tolist())
            place = int(places[first[at]]) if is_expected[at] else None
            self._duplicated.append((every[first[at]].tobytes(), place, under))

    def _room(self, named: Sequence[object]) -> int:
        return max(self._limit - len(named), 0)

    def _name(self) -> None:
        """Addresses for the events that are named: lines for those of the input, chunks for those of a receipt."""
        result = self._result
        rows = sorted(self._missing, key=lambda event: event[1])
        lines = self._places.with_lines([self._places.of(place) for _, place in rows])
        result.missing_sample = [
            Finding(id_text(packed), place) for (packed, _), place in zip(rows, lines, strict=True)
        ]
        result.unexpected_sample = [
            Finding(id_text(packed), None, (receipt,), chunks_of(self._store, receipt))
            for packed, receipt in sorted(self._unexpected, key=lambda event: event[1])
        ]
        result.duplicated_sample = [self._doubled(*event) for event in self._duplicated]

    def _doubled(self, packed: bytes, place: int | None, receipts: tuple[int, ...]) -> Finding:
        where = None if place is None else self._places.with_lines([self._places.of(place)])[0]
        return Finding(id_text(packed), where, receipts, chunks_of(self._store, receipts[0]))


def audited(store: Store, table: str, held: TaggedIds, key: str | None, rows: Iterable[Tagged] | None = None) -> Audit:
    """The ledger's receipts, and every row of the table in `held`, seen under its receipt; `rows` reads them."""
    before: list[LedgerEntry] = list(store.ledger.entries(table))
    blocks = ((ids_from_packed(block.ids), block.receipts, None) for block in store.events.holdings(table))
    for ids, receipts, more in blocks if rows is None else rows:
        held.add(ids, receipts, more)
    audit = Audit(before, store.ledger.entries(table), key)
    for number in range(BUCKETS):
        audit.see(*held.bucket(number))
    return audit


def settled(store: Store, audit: Audit, held: TaggedIds) -> list[ReceiptDifference]:
    """The receipts that do not hold the events they brought, with their chunks."""
    of_a_part = BUCKETS // PARTS
    again = (held.bucket(int(part) * of_a_part + number) for part in audit.suspects() for number in range(of_a_part))
    return [difference.at(chunks_of(store, difference.receipt_id)) for difference in audit.differences(again)]


def intervals(numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, last) of each run without a gap."""
    if len(numbers) == 0:
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1)
    firsts, lasts = numbers[[0, *(cuts + 1)]], numbers[[*cuts, len(numbers) - 1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _some(
    ids: NDArray[np.uint8], rows: NDArray[np.int64], tags: NDArray[np.int64], room: int
) -> list[tuple[bytes, int]]:
    """The first `room` of `rows`: packed ID and tag."""
    return [(ids[row].tobytes(), int(tags[row])) for row in rows[:room]]
