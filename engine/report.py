"""The result of a run: the `Report` that Python callers receive and the command line prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime

from headrace.storage.moments import moment_text
from headrace.storage.records import Counts

__all__ = ["Report"]

SHOWN = 3  # columns in a line


@dataclass(frozen=True, slots=True)
class Report:
    """The books of one load, in rows, and how it ran.

    ``read = inserted + duplicate_in_input + duplicate_in_store + rejected`` holds, or the run has failed. A resumed run
    reports the whole input, with the part that an earlier process committed; `slices_skipped` says how many slices that
    was, `chunks_skipped` how many whole chunks. If a run was given up and another run loaded the input (see `notes`),
    the books are the sum: events that the first run inserted are `inserted`. `alerts` counts the alerts of its new
    events, and of revised events if a rule asks for them. `revised` is not part of the sum: it counts the duplicates
    with another payload than the row that they repeat, if revisions are not ignored.

    `lock_seconds` is the time that all workers together waited for locks, `skew` how many times its fair share the
    fullest partition had. `fell_back` says why the rest of a parallel run was sequential, `shadow` is the result of the
    comparison with the parallel result; ``None`` if that did not happen. `seconds` is the wall time of this process
    alone. `stages` is the wall time by stage (`headrace.observability.stages`), summed over all workers. `newest_event`
    is the latest event time among the events read, ``None`` without a time column, and for a year that Python's
    calendar does not have; `newest_event_us` has such times too, in microseconds since 1970 UTC. `notes` are further
    remarks: for example that an earlier run of this input was given up, and why. `proved` is the number of events that
    were looked up in the table at the end of the load, ``None`` if that was not requested. `duplicates_compared` is the
    number of duplicates that were compared with the row that they repeat, a sample; `duplicates_differing` the number
    of them that have other values, in which `differing_columns`.
    """

    run_id: str
    database: str
    table: str
    provider: str
    mode: str
    strategy: str
    workers: int
    partitions: int
    chunks: int
    chunks_skipped: int
    slices_skipped: int
    read: int
    inserted: int
    duplicate_in_input: int
    duplicate_in_store: int
    rejected: int
    revised: int
    alerts: int
    snapshot_ids: int
    retries: int
    lock_seconds: float
    skew: float
    fell_back: str | None
    shadow: str | None
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    newest_event: datetime | None = None
    notes: tuple[str, ...] = ()
    proved: int | None = None
    newest_event_us: int | None = None
    duplicates_compared: int = 0
    duplicates_differing: int = 0
    differing_columns: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        """Rows read per second of wall time."""
        return self.read / self.seconds if self.seconds > 0 else 0.0

    @property
    def resumed(self) -> bool:
        """Whether this run continued from the receipts of an earlier process."""
        return self.slices_skipped > 0

    @property
    def counts(self) -> Counts:
        """The five figures of the books, and the revised."""
        books = (self.read, self.inserted, self.duplicate_in_input, self.duplicate_in_store, self.rejected)
        return Counts(*books, self.revised)

    @property
    def exit_code(self) -> int:
        """0, or 3 when rows were rejected."""
        return 3 if self.rejected else 0

    def to_dict(self) -> dict[str, object]:
        """The report as plain data, ``rows_per_second`` and ``resumed`` included."""
        return {
            **{name: value for name, value in asdict(self).items() if name != "newest_event_us"},
            "seconds": round(self.seconds, 3),
            "lock_seconds": round(self.lock_seconds, 3),
            "skew": round(self.skew, 3),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "rows_per_second": round(self.rows_per_second),
            "resumed": self.resumed,
            "newest_event": None if self.newest_event_us is None else moment_text(self.newest_event_us),
        }

    def to_json(self) -> str:
        """The report as one line of JSON."""
        return json.dumps(self.to_dict())

    def to_text(self) -> str:
        """The report for people: the books line by line, then what to do about rejects."""
        lines = [
            f"{self.table} ← provider {self.provider}, {self.database}",
            f"  read                {self.read:>12,}",
            f"  inserted            {self.inserted:>12,}",
            f"  duplicate in input  {self.duplicate_in_input:>12,}",
            f"  duplicate in store  {self.duplicate_in_store:>12,}",
            f"  rejected            {self.rejected:>12,}",
            *([f"  revised             {self.revised:>12,}  of the duplicates"] if self.revised else []),
            *([] if self.proved is None else [f"  proved              {self.proved:>12,}  events are in the table"]),
            *([f"  alerts raised       {self.alerts:>12,}"] if self.alerts else []),
            f"  {self.chunks} {'chunk' if self.chunks == 1 else 'chunks'} in {self.seconds:.2f} s, "
            f"{self.rows_per_second:,.0f} rows/s, "
            f"{self._how()}, run {self.run_id}",
        ]
        if self.duplicates_differing:
            lines.append(f"  {self.other_values()}")
        if self.fell_back:
            lines.append(f"  the rest was done sequentially: {self.fell_back}")
        if self.shadow:
            lines.append(f"  compared with the parallel result: {self.shadow}")
        if self.resumed:
            lines.append(f"  resumed: {self.slices_skipped} slices were already committed")
        lines += [f"  {note}" for note in self.notes]
        if self.rejected:
            lines.append(f"  see the rejected rows: headrace rejects list --run {self.run_id[:8]}")
        return "\n".join(lines)

    def other_values(self) -> str:
        """The result of comparing the sample of duplicates, in words."""
        columns = list(self.differing_columns)
        more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
        return (
            f"of {self.duplicates_compared:,} duplicates compared, {self.duplicates_differing:,} have other values in "
            f"{', '.join(columns[:SHOWN])}{more}: is --id too narrow, or does the feed revise its events (--revisions)?"
        )

    def _how(self) -> str:
        if self.mode == "sequential":
            return self.mode
        text = f"{self.strategy}, {self.workers} workers"
        if self.strategy != "locked":
            return text
        return (
            f"{text}, {self.partitions} partitions (skew {self.skew:.2f}), waited {self.lock_seconds:.2f} s for locks"
        )
