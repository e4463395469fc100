"""The outbox: the states of alerts, from raised to settled (`headrace.storage.sql.outbox`).

    raised ──► pending ──claim──► leased ──send──► delivered
                  ▲                  │ refused for now, or the lease ended: pending again, later
                  │                  └──refused for good, or too often──► dead
                  └───────────────retry─────────────────────────────────────┘        discard: pending, dead ─► discarded
                                                                                     prune: delivered, discarded ─► gone

An alert is raised in the transaction of its event, and only if that event was really inserted or,
under a rule that asks for revisions, has really taken the row of an older version. From then on it is delivered at
least once: a dispatcher claims it for the time of a lease, sends it, and records the outcome. If the dispatcher dies in
between, another one takes the alert when the lease has ended; the key stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa

__all__ = ["ALERT_COLUMNS", "REVISION_COLUMNS", "AlertState", "Attempt", "PrunedState", "StoredAlert"]

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
    """The outcome of sending one alert: `delivered`, `dead`, or `pending` again after `delay` seconds.

    `key` is the alert's, so that a late outcome of a deleted alert is never recorded for another alert with its number.
    """

    alert_id: int
    state: Literal["delivered", "pending", "dead"]
    error: str | None = None
    delay: float = 0.0
    key: str | None = None
