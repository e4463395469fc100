"""The outbox: alerts as they are raised, claimed, delivered and settled; what a `Store` does with them.

    raised ──► pending ──claim──► leased ──send──► delivered
                  ▲                  │ refused for now, or the lease ended: pending again, later
                  │                  └──refused for good, or too often──► dead
                  └───────────────retry─────────────────────────────────────┘        discard: pending, dead ─► discarded
                                                                                     prune: delivered, discarded ─► gone

An alert is raised by `Store.commit`, in the transaction of its event, and only if that event was really inserted or,
under a rule that asks for revisions, has really taken the row of an older version. From then on it is delivered at
least once: a dispatcher claims it for the time of a lease, sends it, and says what came of it. One that dies in between
leaves the alert to the next, when the lease has ended; the key stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import pyarrow as pa

__all__ = ["ALERT_COLUMNS", "REVISION_COLUMNS", "AlertState", "Attempt", "Outbox", "PrunedState", "StoredAlert"]

AlertState = Literal["pending", "delivered", "dead", "discarded"]
PrunedState = Literal["delivered", "discarded"]

ALERT_COLUMNS = pa.schema(
    [
        ("alert_key", pa.string()),
        ("event_id", pa.binary(16)),
        ("rule", pa.string()),
        ("payload", pa.large_string()),  # several rules may repeat a large event: 2 GiB may not be enough
    ]
)
"""The columns of `Slice.alerts`: sorted by event ID and rule, no key twice; the payload is the event as JSON text."""

REVISION_COLUMNS = ALERT_COLUMNS.append(pa.field("at", pa.int64()))
"""The columns of `Repeats.alerts`: `at` is the position of the row that raises the alert, as in `Difference`."""


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """A row of ``headrace_alerts``. `payload` is the event as a JSON object; `revision` says that a newer version of
    an event that was there raised it; `attempts` counts the times it was given
    out; `next_attempt_at` is when it may be given out (again), or when the `lease` ends that holds it.
    """

    alert_id: int
    key: str
    event_id: bytes
    rule: str
    table: str
    provider: str
    receipt_id: int
    payload: str
    revision: bool
    state: AlertState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime
    lease: str | None
    error: str | None
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending one alert: `delivered`, `dead`, or `pending` again after `delay` seconds.

    `key` is the alert's, so that what is said late of an alert that is gone is not said of another with its number.
    """

    alert_id: int
    state: Literal["delivered", "pending", "dead"]
    error: str | None = None
    delay: float = 0.0
    key: str | None = None


class Outbox(Protocol):
    """The part of a `Store` that keeps alerts. Times are by the database server's clock."""

    def claim_alerts(
        self, lease: str, *, limit: int, seconds: float, table: str | None = None, rules: Sequence[str] = ()
    ) -> list[StoredAlert]:
        """Lease up to `limit` pending alerts that are due, those due first, to the holder `lease` for `seconds`.

        What is put off or leased for longer than anything reasonable (`headrace.storage.beliefs`) was written under a
        wrong clock, and is due. No two holders get the same alert before its lease has ended, and none waits for
        another. Each claim counts as an attempt: an alert that kills whoever sends it is not given out for ever.
        """
        ...

    def settle_attempts(self, lease: str, attempts: Sequence[Attempt]) -> None:
        """Record what came of alerts claimed as `lease`.

        What was delivered is so even if the lease has ended and another has claimed the alert since; a failure counts
        only for who still holds it. An alert that was settled otherwise meanwhile is left alone, and so is one that
        `lease` cannot have held: never given out, only to another, or of another `Attempt.key`. An empty `lease` is
        for who settles by hand what nobody has claimed.
        """
        ...

    def release_alerts(self, lease: str, ids: Sequence[int]) -> None:
        """Give back alerts claimed as `lease` and not sent; the claim does not count as an attempt."""
        ...

    def alerts(
        self,
        *,
        ids: Sequence[int] | None = None,
        states: Sequence[AlertState] = (),
        table: str | None = None,
        rules: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[StoredAlert]:
        """Alerts, oldest first; no states or rules means all of them."""
        ...

    def alerts_of(self, event_id: bytes) -> list[StoredAlert]:
        """The alerts that an event (16 bytes) has raised, oldest first, whatever became of them."""
        ...

    def count_alerts(self) -> dict[AlertState, int]:
        """How many alerts there are in each state that any is in."""
        ...

    def undelivered_alerts(self) -> dict[AlertState, int]:
        """How many alerts are pending, and how many dead: quick, whatever the number of those that were delivered."""
        ...

    def retry_alerts(self, ids: Sequence[int]) -> int:
        """Make dead or discarded alerts pending and due, with no attempts; returns how many changed."""
        ...

    def discard_alerts(self, ids: Sequence[int]) -> int:
        """Mark pending or dead alerts as discarded; returns how many changed."""
        ...

    def prune_alerts(
        self,
        seconds: float,
        *,
        states: Sequence[PrunedState] = ("delivered",),
        table: str | None = None,
        rules: Sequence[str] = (),
    ) -> int:
        """Delete alerts that were settled so more than `seconds` ago; returns how many. What is pending or dead stays.

        Many transactions, each of bounded size.
        """
        ...
