"""``headrace_past_loads``: what a provider's last loads took, a ring of `KEPT` rows for each provider.

save_providers ─► the states ─► the loads of this round: slot = number of the load modulo KEPT     one statement more
headrace profile --history, doctor ─► all that are kept, the oldest first
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headrace.storage.sql import ledger_rows
from headrace.storage.sql.schema import PAST_LOADS

__all__ = ["KEPT", "PastLoad", "StageSum", "kept_loads", "past_load_of", "ring_values"]

KEPT = 50
"""Loads of each provider that are kept."""
StageSum = tuple[int, float, float]
"""Of a stage: how many spans, their seconds, and their seconds on a core."""
_PLAIN = ("run_id", "strategy", "workers", "chunks", "read", "inserted", "seconds", "cpu_seconds", "machine_cpu")


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


def ring_values(load: PastLoad, polled_at: datetime | str) -> dict[str, Any]:
    """A load as column values, in the slot that is its; `polled_at` is as the database keeps it."""
    return {
        **{name: getattr(load, name) for name in _PLAIN},
        "provider": load.provider,
        "table_name": load.table,
        "slot": load.number % KEPT,
        "number": load.number,
        "polled_at": polled_at,
        "stages": json.dumps(
            {name: [spans, round(wall, 6), round(cpu, 6)] for name, (spans, wall, cpu) in load.stages.items()},
            separators=(",", ":"),
        ),
    }


def kept_loads(providers: Collection[str] | None) -> sa.Select[Any]:
    """The loads that are kept of `providers` (``None``: of all), by provider, the oldest first."""
    found = sa.select(PAST_LOADS).order_by(PAST_LOADS.c.provider, PAST_LOADS.c.number)
    return found if providers is None else found.where(PAST_LOADS.c.provider.in_(sorted(providers)))


def past_load_of(row: sa.RowMapping) -> PastLoad:
    """A row as plain data."""
    stages = {name: (int(one[0]), float(one[1]), float(one[2])) for name, one in json.loads(row["stages"]).items()}
    return PastLoad(
        provider=row["provider"],
        table=row["table_name"],
        number=row["number"],
        polled_at=ledger_rows.moment(row["polled_at"]),
        stages=stages,
        **{name: row[name] for name in _PLAIN},
    )
