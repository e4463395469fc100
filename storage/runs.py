"""Runs and their receipts as plain data; what a `Store` does with them.

    running ──► done
      │  ▲ └──► failed, interrupted ──► running: the same job again, which goes on from the receipts
      │  └────────────┘          │
      └──────────────────────────┴────► failed, without a job: superseded by a run that does all of it again

A receipt is written by `Store.commit`, in the transaction of its slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from headrace.storage.holdings import LedgerEntry

__all__ = ["Address", "Counts", "Receipt", "RunProgress", "RunRecord", "RunStatus", "Runs"]

RunStatus = Literal["running", "done", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a chunk stands in the input: `rows` rows of `source` from row `first_row` (0-based, header not counted)."""

    source: str
    first_row: int
    rows: int

    def __str__(self) -> str:
        return f"{self.source}, rows {self.first_row}-{self.first_row + self.rows - 1}"


@dataclass(frozen=True, slots=True)
class Counts:
    """The books of a chunk or a run, in rows: ``read`` must equal the sum of the next four.

    `revised` stands beside them: how many of the duplicates came with another payload than the row that they met, where
    revisions are looked at.
    """

    read: int = 0
    inserted: int = 0
    duplicate_in_input: int = 0
    duplicate_in_store: int = 0
    rejected: int = 0
    revised: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.read + other.read,
            self.inserted + other.inserted,
            self.duplicate_in_input + other.duplicate_in_input,
            self.duplicate_in_store + other.duplicate_in_store,
            self.rejected + other.rejected,
            self.revised + other.revised,
        )

    @property
    def balanced(self) -> bool:
        """Whether promise 3 holds for these counts."""
        return self.read == self.inserted + self.duplicate_in_input + self.duplicate_in_store + self.rejected


@dataclass(frozen=True, slots=True)
class Receipt:
    """One row of the ledger: a chunk or, where `spans` names them, several; whole or only its `partition`."""

    receipt_id: int
    run_id: str
    address: Address
    digest: str
    counts: Counts
    committed_at: datetime
    partition: int = 0
    spans: tuple[Address, ...] = ()
    alerts: int = 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of ``headrace_runs``. `job` is the key under which an unfinished run is resumed (``None``: never);
    `inputs_key` identifies the content of the inputs; `inputs` is a JSON list that describes them; `shape` is JSON text
    that the engine defines. `chunks` counts the slices committed. `holder` is the process that works at it or did last,
    `asked` JSON text that says what the load was told; both are the engine's. `supersedes` is the run that this one
    does again, because what its receipts said did not hold any more.
    """

    run_id: str
    table: str
    provider: str
    job: str | None
    inputs_key: str
    inputs: str
    mode: str
    strategy: str
    workers: int
    version: str
    status: RunStatus = "running"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float = 0.0
    chunks: int = 0
    counts: Counts = field(default_factory=Counts)
    error: str | None = None
    shape: str | None = None
    holder: str | None = None
    asked: str | None = None
    supersedes: str | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is: the slices committed, their books, and when the last commit was, by the server's clock.

    `ago` is how many seconds that was, by the same clock.
    """

    slices: int
    counts: Counts
    last_commit: datetime
    ago: float


class Runs(Protocol):
    """The part of a `Store` that keeps runs."""

    def start_run(self, run: RunRecord, *, because: str | None = None) -> RunRecord:
        """Insert `run`; returns it with `started_at` by the database server's clock (aware, UTC).

        The run that it supersedes is closed in the same transaction: as failed, `because` of what is said, with the
        books of its receipts and without a job, so that nothing resumes it.
        """
        ...

    def unfinished_runs(self, table: str, job: str, *, limit: int) -> list[RunRecord]:
        """Runs on `table` that are not ``done`` and could be resumed: those of `job` first, the newest first."""
        ...

    def reopen_run(self, run_id: str, holder: str | None = None) -> datetime:
        """Set an unfinished run to ``running``, with its `holder`; returns the server's clock now (aware, UTC)."""
        ...

    def finish_run(
        self,
        run_id: str,
        *,
        status: RunStatus,
        seconds: float,
        error: str | None = None,
        counted: Counts | None = None,
    ) -> RunRecord:
        """Close the run, with its books summed from its receipts by the database; returns the row as stored.

        Where those books are not what was `counted`, the run stays as it is, and the row is returned with them. Raises
        `LostCommitsError` if the run is not in the ledger any more.
        """
        ...

    def runs(self, *, table: str | None = None, limit: int = 50) -> list[RunRecord]:
        """The newest runs first."""
        ...

    def run(self, run_id: str) -> RunRecord | None:
        """One run by its ID, or by a prefix of it that is unique."""
        ...

    def progress(self, run_ids: Sequence[str]) -> dict[str, RunProgress]:
        """How far runs are by their receipts: of those that have any. One statement."""
        ...

    def receipts(self, run_id: str) -> list[Receipt]:
        """The run's receipts, ordered by receipt ID."""
        ...

    def receipt(self, receipt_id: int) -> Receipt | None:
        """One receipt by its ID."""
        ...

    def receipts_numbered(self, receipt_ids: Sequence[int]) -> Iterator[Receipt]:
        """Receipts by their IDs, those that there are."""
        ...

    def ledger(self, table: str) -> Iterator[LedgerEntry]:
        """What every receipt of `table` says it inserted, ordered by receipt ID."""
        ...

    def other_providers(self, table: str, provider: str) -> Mapping[str, int]:
        """How many events of which other providers `table` holds, most first, if it holds none of `provider`.

        Nothing where it holds one of `provider`, or none at all, or the ledger knows of no other provider.
        """
        ...
