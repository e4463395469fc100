"""The user's own code: who gets the alerts that a history delivers, and an enrichment that fails on some rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

__all__ = ["TAKEN", "UNLUCKY", "enrich", "take"]

TAKEN: list[str] = []
UNLUCKY = 7
"""The enrichment fails on rows whose ``v`` is divisible by this."""


def take(alert: dict[str, Any]) -> None:
    """Take an alert."""
    TAKEN.append(alert["key"])


def enrich(events: pa.RecordBatch) -> pa.RecordBatch:
    """Add a column ``n``; raises if there is an unlucky row among the events."""
    values = [int(float(str(value))) for value in events.column("v").to_pylist()]
    if any(value % UNLUCKY == 0 for value in values):
        raise ValueError("an unlucky number")
    return events.append_column("n", pa.array([value + 1 for value in values], pa.int64()))
