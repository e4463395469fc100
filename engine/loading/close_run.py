"""The end of a run: its books are compared with the ledger before it counts as done, and a failure is recorded in the
ledger.

    counted by this process ──equal to the sum of the receipts?──► yes: done
                                  │ no
                                  ├─ receipts that were confirmed are gone ──► the database has lost commits
                                  └─ all are there                         ──► a defect

A run whose books differ from the ledger never counts as done: the same command resumes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from headrace.errors import BooksError, HeadraceError, Interrupted, LostCommitsError
from headrace.loading.open_run import OpenRun
from headrace.storage.records import Address, Committed, Counts, RunStatus, Slice
from headrace.storage.rejects import StoredReject
from headrace.storage.store import Store

__all__ = ["Confirmed", "close", "record_failure"]

log = logging.getLogger("headrace.closing")


@dataclass(slots=True)
class Confirmed:
    """The receipts whose commit the database has confirmed to this process: the slice of each, and its books."""

    receipts: dict[tuple[str, int, int], tuple[Address, Counts]] = field(default_factory=dict)

    def add(self, piece: Slice, done: Committed) -> None:
        """Note a commit that has returned."""
        address = piece.address
        self.receipts[address.source, address.first_row, piece.partition] = address, done.counts


def close(store: Store, going: OpenRun, counts: Counts, confirmed: Confirmed, seconds: float) -> None:
    """Mark the run as done if the ledger agrees with the counted books.

    Raises `LostCommitsError` or `BooksError` if it does not; the run can then be resumed.
    """
    if going.supersedes is not None:
        _settle_repeated(store, going.run_id, going.supersedes)
    finished = store.ledger.finish_run(going.run_id, status="done", seconds=seconds, counted=counts)
    if counts.balanced and counts == finished.counts:
        return
    # by what they speak of: SQLite gives the number of a row that is gone to the next
    present = {
        (one.address.source, one.address.first_row, one.partition) for one in store.ledger.receipts(going.run_id)
    }
    lost = {key: one for key, one in confirmed.receipts.items() if key not in present}
    if lost:
        raise _lost(going, lost, len(confirmed.receipts))
    raise BooksError(
        f"the books do not balance: this run counted {counts}, its receipts sum to {finished.counts}",
        where=f"run {going.run_id}",
        hint="receipts were changed meanwhile, or this is a defect in Headrace; `headrace verify` with the same "
        "arguments says what is in the table",
    )


def record_failure(store: Store, going: OpenRun, error: BaseException, seconds: float) -> None:
    """Record the reason in the ledger; the first failure matters more than a failure to record it."""
    stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
    status: RunStatus = "interrupted" if stopped else "failed"
    try:
        store.ledger.finish_run(going.run_id, status=status, seconds=seconds, error=f"{type(error).__name__}: {error}")
    except HeadraceError as second:
        error.add_note(f"(the ledger could not be updated: {second.what})")


def _lost(
    going: OpenRun, lost: Mapping[tuple[str, int, int], tuple[Address, Counts]], confirmed: int
) -> LostCommitsError:
    rows = sum(counts.inserted for _, counts in lost.values())
    first, _ = lost[min(lost)]
    again = "run the same command again: it resumes and adds" if going.job else "load the same input again: that adds"
    return LostCommitsError(
        f"the database has lost {len(lost):,} of the {confirmed:,} commits that it had confirmed, and with them "
        f"{rows:,} inserted events; the first are those of {first}",
        where=f"run {going.run_id}",
        hint=f"{again} the missing events. A server loses confirmed commits if synchronous_commit or fsync is off, or "
        "if it was reset to an older state meanwhile (`headrace doctor` shows both settings)",
    )


def _settle_repeated(store: Store, run_id: str, supersedes: str) -> None:
    """A row that the superseded runs have kept, and this one too, is one reject: the newer."""
    kept = [reject for one in _chain(store, supersedes) for reject in store.rejects.find(run_id=one)]
    if not kept:
        return
    again = {_key(one) for one in store.rejects.find(run_id=run_id, state=None)}
    repeated = [one.reject_id for one in kept if _key(one) in again]
    if repeated:
        log.info("%d rejects of superseded runs are kept by run %s", store.rejects.mark_replayed(repeated), run_id)


def _key(stored: StoredReject) -> tuple[object, ...]:
    one = stored.reject
    # a revision's text is looked up later than it is kept
    return one.source, one.row, one.stage, None if one.stage == "revision" and one.row is not None else one.raw


def _chain(store: Store, run_id: str | None) -> Iterator[str]:
    """The run, the one that it supersedes, and so on."""
    met: set[str] = set()
    while run_id is not None and run_id not in met:
        met.add(run_id)
        yield run_id
        run = store.ledger.run(run_id)
        run_id = None if run is None else run.supersedes
