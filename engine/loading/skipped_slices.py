"""A resumed run proves each slice before it skips it: a receipt says that events were loaded, not that they still
exist.

    slice with a receipt ──► its events, identified anew ──► in the snapshot of this run, or in the table when asked?
                                                                  │ no
                                                                  ▼
                                             kept as a reject by the user's own code? ──no──► the receipt is stale

The rows may have been deleted, the table emptied, dropped or restored since; an unfinished run may be a year old.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headrace.errors import StaleReceiptsError
from headrace.loading.known_ids import KnownIds
from headrace.loading.met_chunk import MetChunk
from headrace.loading.open_run import OpenRun
from headrace.loading.slicing import NO_RESUME
from headrace.partitioning.identity import id_text
from headrace.storage.records import Receipt
from headrace.storage.store import Store

__all__ = ["SkippedSlices"]

Ids = NDArray[np.uint8]


class SkippedSlices:
    """The slices of the run `going` that an earlier process committed."""

    def __init__(self, store: Store, going: OpenRun) -> None:
        self._store = store
        self._going = going

    def require_there(self, chunk: MetChunk, receipts: Iterable[Receipt], known: KnownIds) -> Ids:
        """Prove that the events of `receipts` are in the table, except rejected events, whose IDs are returned, shape
        (rows, 16). Raises `StaleReceiptsError` if other events are missing.
        """
        speaking = list(receipts)
        events = [chunk.first_events(one.partition) for one in speaking]
        there = known.held(np.concatenate(events))
        rejected, start = [], 0
        for receipt, ids in zip(speaking, events, strict=True):
            absent = ids[~there[start : start + len(ids)]]
            start += len(ids)
            if len(absent):
                self._require_rejected(chunk, receipt, absent)
                rejected.append(absent)
        return np.concatenate([np.empty((0, 16), dtype=np.uint8), *rejected])

    def _require_rejected(self, chunk: MetChunk, receipt: Receipt, ids: Ids) -> None:
        """Events with an ID may have been refused by the user's code: all their rows are rejects of the run then, and
        none is in the table.
        """
        by_users_code = receipt.counts.rejected - chunk.counts(receipt.partition).rejected
        numbers = chunk.numbers_of(receipt.partition, ids)
        if len(ids) <= by_users_code and self._are_rejects(receipt, len(ids), numbers):
            return
        shown = f"{len(ids):,} of its events are" if len(ids) > 1 else "one of its events is"
        raise StaleReceiptsError(
            f"{shown} no longer in the table (for example {id_text(ids[0].tobytes())})",
            where=str(receipt.address),
            hint=NO_RESUME,
        )

    def _are_rejects(self, receipt: Receipt, count: int, numbers: NDArray[np.int64] | None) -> bool:
        rows = self._rejected_rows
        sources = {span.source for span in receipt.spans} or {receipt.address.source}
        if numbers is not None:
            return all(any((source, row) in rows for source in sources) for row in numbers.tolist())
        return count <= sum(rows[source, None] for source in sources)

    @cached_property
    def _rejected_rows(self) -> Counter[tuple[str, int | None]]:
        """The rows of the run's rejects that were not loaded since, by source and number."""
        stored = self._store.rejects.find(run_id=self._going.run_id, state=None)
        return Counter((one.reject.source, one.reject.row) for one in stored if one.state != "replayed")
