"""What ``headrace runs …`` does: read the ledger, print it, return the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from headrace.cli.show import show
from headrace.errors import UsageError
from headrace.loading.database import open_existing
from headrace.loading.run_holder import is_alive
from headrace.options.load import database_url
from headrace.storage.records import RunProgress, RunRecord
from headrace.storage.store import Store

__all__ = ["listed", "shown", "whole_run_id"]

SILENT = 10.0  # seconds without a commit, after which a run whose process is gone is nobody else's either


def listed(to: str | None, table: str | None, limit: int, output: str) -> int:
    """``headrace runs list``."""
    with open_existing(database_url(to)) as store:
        runs = _so_far(store, store.ledger.runs(table=table, limit=limit))
    show(output, lambda: {"runs": [_run_object(run) for run in runs]}, lambda: _run_lines(runs))
    return 0


def shown(to: str | None, run: str, output: str) -> int:
    """``headrace runs show``."""
    with open_existing(database_url(to)) as store:
        (progress,) = _so_far(store, [_run(store, run)])
        receipts = store.ledger.receipts(progress.run.run_id)
    show(
        output,
        lambda: {
            **_run_object(progress),
            "receipts": [{**asdict(receipt), "committed_at": receipt.committed_at.isoformat()} for receipt in receipts],
        },
        lambda: "\n".join(
            [
                *(f"{name:<20} {value}" for name, value in _run_object(progress).items()),
                *(
                    f"  {receipt.address}: {receipt.counts.inserted:,} inserted of {receipt.counts.read:,}"
                    for receipt in receipts
                ),
            ]
        ),
    )
    return 0


@dataclass(frozen=True, slots=True)
class _Shown:
    """A run with its books so far. `progress` is that of one which is not closed, `alive` whether its process lives."""

    run: RunRecord
    progress: RunProgress | None = None
    alive: bool | None = None

    @property
    def status(self) -> str:
        """What is known of it: a run that was killed could not say so."""
        silent = self.progress is None or self.progress.ago > SILENT
        return "killed" if self.run.status == "running" and self.alive is False and silent else self.run.status

    @property
    def sign_of_life(self) -> str:
        """For people, of a run that is not closed."""
        if self.run.status != "running":
            return ""
        last = "nothing committed" if self.progress is None else f"last commit {_span(self.progress.ago)} ago"
        end = "; its process is gone: the same command resumes it" if self.alive is False else ""
        return f"  ({last}{end})"


def _so_far(store: Store, records: Sequence[RunRecord]) -> list[_Shown]:
    """A run that is not closed has its books in its receipts alone."""
    going = [run.run_id for run in records if run.status == "running"]
    progress = store.ledger.progress(going) if going else {}
    shown = []
    for run in records:
        far = progress.get(run.run_id)
        counted = run if far is None else replace(run, counts=far.counts, chunks=far.slices)
        shown.append(_Shown(counted, far, is_alive(run.holder) if run.status == "running" else None))
    return shown


def _span(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _run(store: Store, run: str) -> RunRecord:
    record = store.ledger.run(run)
    if record is None:
        raise UsageError(f"no single run begins with {run!r}", hint="`headrace runs list` shows the newest ones")
    return record


def whole_run_id(store: Store, run: str | None) -> str | None:
    """The ID that the prefix `run` begins. Raises `UsageError` when it is no single run's."""
    return None if run is None else _run(store, run).run_id


def _run_object(shown: _Shown) -> dict[str, object]:
    run, far = shown.run, shown.progress
    flat = {**asdict(run), **asdict(run.counts), "status": shown.status}
    if run.status == "running":
        flat |= {"last_commit": None if far is None else far.last_commit, "alive": shown.alive}
    del flat["counts"], flat["job"], flat["inputs_key"]
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in flat.items()}


def _run_lines(runs: Sequence[_Shown]) -> str:
    lines = [
        f"{run.run_id[:8]}  {run.started_at:%Y-%m-%d %H:%M:%S}  {shown_run.status:<11}  {run.table:<24}  "
        f"{run.counts.inserted:,} inserted of {run.counts.read:,}{shown_run.sign_of_life}"
        for shown_run in runs
        for run in [shown_run.run]
    ]
    return "\n".join(lines) if lines else "no runs"
