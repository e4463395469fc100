"""What ``headrace runs …`` does: read the ledger, print it, return the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from headrace.config import database_url
from headrace.database import open_existing
from headrace.errors import UsageError
from headrace.showing import show
from headrace.storage.base import RunRecord, Store

__all__ = ["listed", "shown", "whole_run_id"]


def listed(to: str | None, table: str | None, limit: int, output: str) -> int:
    """``headrace runs list``."""
    with open_existing(database_url(to)) as store:
        found = store.runs(table=table, limit=limit)
    show(output, lambda: {"runs": [_run_object(run) for run in found]}, lambda: _run_lines(found))
    return 0


def shown(to: str | None, run: str, output: str) -> int:
    """``headrace runs show``."""
    with open_existing(database_url(to)) as store:
        found = _run(store, run)
        receipts = store.receipts(found.run_id)
    show(
        output,
        lambda: {
            **_run_object(found),
            "receipts": [{**asdict(one), "committed_at": one.committed_at.isoformat()} for one in receipts],
        },
        lambda: "\n".join(
            [
                *(f"{name:<20} {value}" for name, value in _run_object(found).items()),
                *(f"  {one.address}: {one.counts.inserted:,} inserted of {one.counts.read:,}" for one in receipts),
            ]
        ),
    )
    return 0


def _run(store: Store, run: str) -> RunRecord:
    found = store.run(run)
    if found is None:
        raise UsageError(f"no single run begins with {run!r}", hint="`headrace runs list` shows the newest ones")
    return found


def whole_run_id(store: Store, run: str | None) -> str | None:
    """The ID that the prefix `run` begins. Raises `UsageError` when it is no single run's."""
    return None if run is None else _run(store, run).run_id


def _run_object(run: RunRecord) -> dict[str, object]:
    flat = {**asdict(run), **asdict(run.counts)}
    del flat["counts"], flat["job"], flat["inputs_key"]
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in flat.items()}


def _run_lines(found: Sequence[RunRecord]) -> str:
    lines = [
        f"{run.run_id[:8]}  {run.started_at:%Y-%m-%d %H:%M:%S}  {run.status:<11}  {run.table:<24}  "
        f"{run.counts.inserted:,} inserted of {run.counts.read:,}"
        for run in found
    ]
    return "\n".join(lines) if lines else "no runs"
