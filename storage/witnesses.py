"""``headrace_witnesses``: IDs that each provider's last load met, by which an unchanged delivery is believed in.

A server that says "not modified", and a file that is the same, say nothing about the table: it may have been emptied,
dropped, restored or thinned out since. So the IDs are kept that were in the table when the load had ended, all of them
up to `MOST`, else as many taken evenly, and the next poll asks for them before it leaves anything out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from headrace.storage.sql.schema import WITNESSES

__all__ = ["MOST", "Witness", "kept_witnesses", "witness_of", "witness_values"]

MOST = 20_000
"""IDs that are kept for each provider: 320 kB, and some hundredths of a second to ask for."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What the load `run_id` of a provider met in `table`: how many distinct events, and the packed IDs of some.

    `versions` is a digest of the versions that the table had of these, where rows take newer ones.
    """

    provider: str
    run_id: str
    table: str
    met: int
    ids: bytes = field(repr=False)
    versions: str | None = None


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
