"""The state of each provider between two polls, and its queries.

    read all ──► which are due? ──► claim those ──► poll ──► save all, which ends the claims
    1 statement   (the engine's)    1 statement              1 statement, 1 more if anything was loaded

A claim is a lease by the database server's clock: no second host polls a provider while the lease lasts, its holder
renews it, and the claim of a dead host lapses. A claim only prevents two hosts from doing the same work; the unique key
on ``event_id`` decides what is a duplicate, as always.

With its state a provider's last loads are kept, and a witness: IDs that its last load met, by which an unchanged
delivery is believed in. A server that says "not modified", and a file that is the same, say nothing about the table: it
may have been emptied, dropped, restored or thinned out since. So the IDs are kept that were in the table when the load
had ended, all of them up to `MOST`, else as many taken evenly, and the next poll asks for them before it leaves
anything out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from headrace.storage.records import Counts

__all__ = ["KEPT", "MOST", "PastLoad", "ProviderState", "StageSum", "Witness"]


KEPT = 50
"""Loads of each provider that are kept."""
MOST = 20_000
"""IDs that are kept for each provider: 320 kB, and some hundredths of a second to ask for."""
StageSum = tuple[int, float, float]
"""Of a stage: how many spans, their seconds, and their seconds on a core."""


@dataclass(frozen=True, slots=True)
class PastLoad:
    """What one load of a provider took: its `number` among the provider's loads, `read` and `inserted` in rows,
    `seconds` of the wall clock without the download, `cpu_seconds` on cores by all processes of the load, the share
    (0 to 1) of the machine's cores that were busy meanwhile, and the sums by stage (`headrace.observability.stages`).
    """

    provider: str
    table: str
    number: int
    run_id: str
    polled_at: datetime
    strategy: str
    workers: int
    chunks: int
    read: int
    inserted: int
    seconds: float
    cpu_seconds: float
    machine_cpu: float
    stages: Mapping[str, StageSum]

    @property
    def parallel(self) -> bool:
        """Whether it was in parallel mode."""
        return self.strategy != "sequential"


@dataclass(frozen=True, slots=True)
class Witness:
    """The witness of the load `run_id` of a provider: how many distinct events it met in `table`, and the packed IDs of
    some.

    `versions` is a digest of the versions that the table had of these events, if newer versions replace rows.
    """

    provider: str
    run_id: str
    table: str
    met: int
    ids: bytes = field(repr=False)
    versions: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderState:
    """One row of ``headrace_providers``. All times are aware, UTC, by the clock of the process that polled.

    `polled_at` is the last poll, `next_at` the earliest time for the next, `delivered_at` the last poll that had
    events, `newest_event` the latest event time seen so far. `outcome` is what the last poll came to, `error` why it
    failed. `empty_polls` and `failures` count without a break up to now; `polls`, `loads` (polls that loaded something)
    and `counts` are totals. `load` is what the load of this poll took, to be kept with those before it, and `witness`
    what it met, to be kept in the place of the one before; they are not read back with the state.

    `etag`, `last_modified` and `content` are what the last download that was taken in said about itself and the digest
    of its content; they are worth something only while `description` (a digest of what is done with it) is the same.
    """

    provider: str
    table: str | None = None
    polled_at: datetime | None = None
    next_at: datetime | None = None
    delivered_at: datetime | None = None
    newest_event: datetime | None = None
    outcome: str | None = None
    error: str | None = None
    run_id: str | None = None
    empty_polls: int = 0
    failures: int = 0
    polls: int = 0
    loads: int = 0
    counts: Counts = field(default_factory=Counts)
    etag: str | None = None
    last_modified: str | None = None
    content: str | None = None
    description: str | None = None
    load: PastLoad | None = None
    witness: Witness | None = None
