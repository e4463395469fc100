"""Rows of ``headrace_past_loads`` and ``headrace_witnesses`` as plain data, and the statements that read them.

The loads of a provider are a ring of `KEPT` rows: the slot of a load is its number modulo KEPT.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headrace.storage.providers import KEPT, PastLoad, Witness
from headrace.storage.sql import ledger_rows
from headrace.storage.sql.schema import PAST_LOADS, WITNESSES

__all__ = ["kept_loads", "kept_witnesses", "past_load_of", "ring_values", "witness_of", "witness_values"]

_PLAIN = ("run_id", "strategy", "workers", "chunks", "read", "inserted", "seconds", "cpu_seconds", "machine_cpu")


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


def witness_values(witness: Witness) -> dict[str, Any]:
    """A witness as column values."""
    return {
        "provider": witness.provider,
        "run_id": witness.run_id,
        "table_name": witness.table,
        "met": witness.met,
        "ids": witness.ids,
        "versions": witness.versions,
    }


def kept_witnesses(providers: Collection[str]) -> sa.Select[Any]:
    """The witnesses of `providers`."""
    return sa.select(WITNESSES).where(WITNESSES.c.provider.in_(sorted(providers)))


def witness_of(row: sa.RowMapping) -> Witness:
    """A row as plain data."""
    ids = bytes(row["ids"])
    return Witness(row["provider"], row["run_id"], row["table_name"], row["met"], ids, row["versions"])
