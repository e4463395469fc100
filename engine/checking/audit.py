"""The ledger against the table: whether each receipt still holds the events that it inserted.

    receipts: inserted, digest ──sum──► the ledger's digest ─┐
                                                             ├─► equal, or looked at receipt by receipt
    rows of the table, each with its receipt ──► its digest ─┘

This needs no input. A receipt that holds *fewer* events than it brought is reported, but is no fault: events may be
deleted and arrive again under a later receipt. A receipt that holds more, or other events, is a fault: Headrace never
does this. If a receipt differs by a single event, the digests give its ID.

Loads may commit while the table is read. Only receipts that existed before the reading began are judged, because all of
their rows existed too. Receipts that exist after the reading are known, but not judged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.partitioning.id_buckets import BUCKETS, TaggedIds
from headrace.partitioning.identity import id_text, ids_from_packed
from headrace.storage.digest import NOTHING, PARTS, Digest, DigestPart
from headrace.storage.records import NO_RECEIPT, Address, LedgerEntry
from headrace.storage.store import Store

__all__ = ["Audit", "ReceiptDifference", "chunks_of", "named_chunks"]

Mask = NDArray[np.bool_]
Tagged = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[Any] | None]
"""IDs with their receipts, and what is kept beside them."""
_EMPTY = DigestPart()


@dataclass(frozen=True, slots=True)
class ReceiptDifference:
    """A receipt that does not hold the events it brought. `event_id` is the differing event, if only one differs;
    `chunks` are the chunks of the receipt.
    """

    receipt_id: int
    inserted: int
    held: int
    event_id: str | None
    chunks: tuple[Address, ...] = ()

    @property
    def fewer(self) -> bool:
        """Whether the difference is no fault: events were deleted since, or arrived again under a later receipt."""
        return self.held < self.inserted

    def __str__(self) -> str:
        about = f" ({'lost' if self.fewer else 'added'}: {self.event_id})" if self.event_id else ""
        held = "as many, but different events" if self.held == self.inserted else f"{self.held:,}"
        return f"receipt {self.receipt_id} brought {self.inserted:,}, the table holds {held}{about}; " + named_chunks(
            self.chunks
        )

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {
            "receipt": self.receipt_id,
            "inserted": self.inserted,
            "held": self.held,
            "event_id": self.event_id,
            "chunks": [str(chunk) for chunk in self.chunks],
        }


def named_chunks(chunks: Iterable[Address]) -> str:
    """The first chunk, and how many more."""
    first, *others = chunks or ("chunks unknown",)
    return f"{first} and {len(others)} more chunks" if others else str(first)


class Audit:
    """The receipts of a table, in ascending order, and the rows that the table holds under them.

    `before` are the ledger's entries read before the table, `after` those read afterwards.
    """

    @classmethod
    def of(
        cls, store: Store, table: str, held: TaggedIds, inputs_key: str | None, rows: Iterable[Tagged] | None = None
    ) -> Audit:
        """The audit of `table`, whose rows are put into `held` under their receipts; `rows` reads them."""
        before = list(store.ledger.entries(table))
        blocks = ((ids_from_packed(block.ids), block.receipts, None) for block in store.events.holdings(table))
        for ids, receipts, more in blocks if rows is None else rows:
            held.add(ids, receipts, more)
        audit = cls(before, store.ledger.entries(table), inputs_key)
        for number in range(BUCKETS):
            audit.see(*held.bucket(number))
        return audit

    def __init__(self, before: Iterable[LedgerEntry], after: Iterable[LedgerEntry], inputs_key: str | None) -> None:
        old = np.array([entry.receipt_id for entry in before], dtype=np.int64)
        ids, own, inserted, digests = [], [], [], []
        for entry in after:
            ids.append(entry.receipt_id)
            own.append(entry.inputs_key == inputs_key)
            inserted.append(entry.inserted)
            digests.append(entry.digest)
        self.receipt_ids = np.array(ids, dtype=np.int64)
        self._own = np.array(own, dtype=np.bool_)
        self._judged = np.isin(self.receipt_ids, old)
        self._inserted = np.array(inserted, dtype=np.int64)
        self._digests = digests
        self._held = np.zeros(len(ids), dtype=np.int64)
        self.unknown = 0
        self.table = NOTHING

    @cached_property
    def ledger(self) -> Digest:
        """The digest of all that the receipts say they inserted (those without one left out)."""
        known = (digest for digest, judged in zip(self._digests, self._judged, strict=True) if judged and digest)
        return sum(map(Digest.from_bytes, known), NOTHING)

    @property
    def judged_ids(self) -> NDArray[np.int64]:
        """The receipts that were judged, ascending."""
        return self.receipt_ids[self._judged]

    def own(self, receipts: NDArray[np.int64]) -> Mask:
        """Which of `receipts` (rows,) are of runs over the inputs in question."""
        at, known = self._at(receipts)
        return known & self._own[at] if len(self._own) else known

    def known(self, receipts: NDArray[np.int64]) -> Mask:
        """Which of `receipts` (rows,) the ledger has."""
        return self._at(receipts)[1]

    def see(self, ids: NDArray[np.uint8], receipts: NDArray[np.int64]) -> None:
        """Count rows of the table: IDs (rows, 16) with the receipt of each."""
        at, known = self._at(receipts)
        self.unknown += int((~known & (receipts != NO_RECEIPT)).sum())
        self._held += np.bincount(at[known], minlength=len(self._held))
        judged = known.copy()
        judged[known] = self._judged[at[known]]
        self.table += Digest.of(ids[judged])

    def suspects(self) -> NDArray[np.int64]:
        """The parts of the hash space whose rows must be read again, receipt by receipt (`differences`)."""
        if not all(digest is not None for digest in self._digests):
            return np.empty(0, dtype=np.int64)  # what has no digest is compared by its count
        return np.array(self.ledger.differing(self.table), dtype=np.int64)

    def settled(self, store: Store, held: TaggedIds) -> list[ReceiptDifference]:
        """The receipts that do not hold the events they brought, with their chunks; `held` as `of` has filled it."""
        of_a_part = BUCKETS // PARTS
        again = (held.bucket(int(part) * of_a_part + number) for part in self.suspects() for number in range(of_a_part))
        return [replace(one, chunks=chunks_of(store, one.receipt_id)) for one in self.differences(again)]

    def differences(self, again: Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> list[ReceiptDifference]:
        """The judged receipts that differ. `again` gives all rows of the suspected parts once more, with receipts."""
        held_under: dict[int, DigestPart] = {}
        for ids, receipts in again:
            at, known = self._at(receipts)
            order = np.argsort(at[known], kind="stable")
            sorted_ids, of = ids[known][order], at[known][order]
            edges = [*np.flatnonzero(np.diff(of, prepend=-1)).tolist(), len(of)]
            for start, stop in pairwise(edges):
                index = int(of[start])
                held_under[index] = held_under.get(index, _EMPTY) + Digest.of(sorted_ids[start:stop]).whole
        parts = self.suspects()
        differing = set(np.flatnonzero(self._judged & (self._held != self._inserted)).tolist())
        deltas: dict[int, DigestPart] = {}
        for index in np.flatnonzero(self._judged).tolist() if len(parts) else ():
            digest = Digest.from_bytes(self._digests[index] or b"")
            claimed = sum((digest.parts[part] for part in parts), _EMPTY)
            held = held_under.get(index, _EMPTY)
            if held != claimed:
                differing.add(index)
                deltas[index] = held - claimed if held.count >= claimed.count else claimed - held
        return [self._difference(index, deltas.get(index, _EMPTY)) for index in sorted(differing)]

    def _difference(self, index: int, delta: DigestPart) -> ReceiptDifference:
        only = delta.only_id
        return ReceiptDifference(
            int(self.receipt_ids[index]),
            int(self._inserted[index]),
            int(self._held[index]),
            None if only is None else id_text(only),
        )

    def _at(self, receipts: NDArray[np.int64]) -> tuple[NDArray[np.int64], Mask]:
        if len(self.receipt_ids) == 0:
            return np.zeros(len(receipts), dtype=np.int64), np.zeros(len(receipts), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self.receipt_ids, receipts), len(self.receipt_ids) - 1)
        return at, self.receipt_ids[at] == receipts


def chunks_of(store: Store, receipt_id: int) -> tuple[Address, ...]:
    """The chunks of a receipt; none if the ledger does not have the receipt."""
    receipt = store.ledger.receipt(receipt_id)
    return () if receipt is None else receipt.chunks
