"""The events in which an input and a table differ, counted and digested; the first of each kind are named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.checking.audit import Audit, chunks_of
from headrace.checking.row_addresses import Places
from headrace.checking.verify_result import Finding, Verification
from headrace.partitioning.identity import id_text
from headrace.storage.digest import Digest
from headrace.storage.records import NO_RECEIPT
from headrace.storage.store import Store

__all__ = ["IdDifferences"]


class IdDifferences:
    """What both sides' IDs tell, put into `result`; up to `limit` events of each kind are named."""

    def __init__(self, result: Verification, audit: Audit, limit: int) -> None:
        self._result = result
        self._audit = audit
        self._limit = limit
        self._missing: list[tuple[bytes, int]] = []
        self._unexpected: list[tuple[bytes, int]] = []
        self._duplicated: list[tuple[bytes, int | None, tuple[int, ...]]] = []

    def compare(
        self,
        every: NDArray[np.uint8],
        group: NDArray[np.int64],
        first: NDArray[np.int64],
        places: NDArray[np.int64],
        receipts: NDArray[np.int64],
    ) -> None:
        """Compare a bucket's IDs, the table's behind the input's, with the group of each and the first of each group;
        `places` are the tags of the input's, `receipts` those of the table's.
        """
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

    def name(self, store: Store, places: Places) -> None:
        """Addresses for the events that are named: lines for those of the input, chunks for those of a receipt."""
        result = self._result
        rows = sorted(self._missing, key=lambda event: event[1])
        lines = places.with_lines([places.of(place) for _, place in rows])
        result.missing_sample = [
            Finding(id_text(packed), place) for (packed, _), place in zip(rows, lines, strict=True)
        ]
        result.unexpected_sample = [
            Finding(id_text(packed), None, (receipt,), chunks_of(store, receipt))
            for packed, receipt in sorted(self._unexpected, key=lambda event: event[1])
        ]
        for packed, place, receipts in self._duplicated:
            where = None if place is None else places.with_lines([places.of(place)])[0]
            result.duplicated_sample.append(Finding(id_text(packed), where, receipts, chunks_of(store, receipts[0])))


def _some(
    ids: NDArray[np.uint8], rows: NDArray[np.int64], tags: NDArray[np.int64], room: int
) -> list[tuple[bytes, int]]:
    """The first `room` of `rows`: packed ID and tag."""
    return [(ids[row].tobytes(), int(tags[row])) for row in rows[:room]]
