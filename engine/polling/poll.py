"""The outcome of a poll: the provider's next state, and the outcome as text and as plain data."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from headrace.errors import HeadraceError, InputError, concealed
from headrace.polling.config_file import Provider
from headrace.polling.load_tally import LoadTally
from headrace.polling.schedule import next_poll
from headrace.polling.sources import Delivery, describe
from headrace.report import Report
from headrace.storage.beliefs import LONGEST_WAIT
from headrace.storage.providers import ProviderState, Witness
from headrace.storage.records import Counts

__all__ = ["Loaded", "Poll", "PollOutcome", "Round", "after_delivery", "after_failure", "not_polled"]

PollOutcome = Literal["loaded", "empty", "unchanged", "failed", "not due", "inactive", "elsewhere"]
_POLLED = ("loaded", "empty", "unchanged", "failed")
_BOOKS = ("inserted", "duplicate_in_input", "duplicate_in_store", "rejected")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load's report, its costs, and the witness of the events that it met."""

    report: Report
    tally: LoadTally
    witness: Witness | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """One provider in one round. `counts` are the books of the load, `alerts` the number of raised alerts, `error` the
    reason of a failure, `next_at` the time of the next poll; `seconds` includes the download. ``elsewhere``: another
    process is polling the provider.
    """

    provider: str
    table: str
    outcome: PollOutcome
    counts: Counts = field(default_factory=Counts)
    next_at: datetime | None = None
    error: str | None = None
    exit_code: int = 0
    run_id: str | None = None
    mode: str | None = None
    seconds: float = 0.0
    alerts: int = 0
    duplicates_compared: int = 0
    duplicates_differing: int = 0

    @property
    def polled(self) -> bool:
        """Whether the provider was polled at all."""
        return self.outcome in _POLLED

    def to_dict(self) -> dict[str, object]:
        """Plain data, the books flat."""
        plain = {**asdict(self), **asdict(self.counts)}
        del plain["counts"], plain["exit_code"]
        next_at = None if self.next_at is None else self.next_at.isoformat()
        return {**plain, "next_at": next_at, "seconds": round(self.seconds, 3)}

    def to_text(self) -> str:
        """One line, and for a failure one more with what to do."""
        return f"{self.provider:<24}  {self.outcome:<9}  {self._details()}".rstrip()

    def _details(self) -> str:
        match self.outcome:
            case "loaded":
                books = [f"{getattr(self.counts, name):,} {name.replace('_', ' ')}" for name in _BOOKS]
                more = f"; {self.counts.revised:,} revised" if self.counts.revised else ""
                more += f"; {self.alerts:,} alerts" if self.alerts else ""
                if self.duplicates_differing:
                    differing = f"{self.duplicates_differing:,} of {self.duplicates_compared:,}"
                    more += f"; {differing} duplicates compared have other values"
                return f"{self.counts.read:,} read: {', '.join(books)}{more} → {self.table} ({self.seconds:.2f} s)"
            case "failed":
                what, _, hint = (self.error or "").partition("\n  hint: ")
                cure = f"\n{'':<24}  → {hint.splitlines()[0]}" if hint else ""
                return f"{what.partition(chr(10))[0]}; next try {_clock(self.next_at)}{cure}"
            case "empty" | "unchanged" | "not due":
                return f"next poll {_clock(self.next_at)}"
            case "elsewhere":
                return "another process is polling it"
            case "inactive":
                return ""


@dataclass(frozen=True, slots=True)
class Round:
    """All providers, once, in the file's order. `began` is by the schedule's clock, `seconds` is wall time."""

    began: datetime
    polls: tuple[Poll, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0, 3 where rows were rejected, 1 where a provider failed, 2 where all that failed are wrongly configured."""
        failed = [poll.exit_code for poll in self.polls if poll.outcome == "failed"]
        if failed:
            return min(failed)
        return 3 if any(poll.counts.rejected for poll in self.polls) else 0

    @property
    def counts(self) -> Counts:
        """The books of the whole round."""
        return sum((poll.counts for poll in self.polls), Counts())

    def to_json(self) -> str:
        """One JSON object in one line."""
        outcomes = Counter(poll.outcome for poll in self.polls)
        return json.dumps(
            {
                "began": self.began.isoformat(),
                "seconds": round(self.seconds, 3),
                **asdict(self.counts),
                "alerts": sum(poll.alerts for poll in self.polls),
                "outcomes": dict(outcomes),
                "providers": [poll.to_dict() for poll in self.polls],
            },
            ensure_ascii=False,
        )

    def to_text(self, *, all_of_them: bool = True) -> str:
        """One line a provider; without `all_of_them` only those that were polled."""
        return "\n".join(poll.to_text() for poll in self.polls if all_of_them or poll.polled)


def not_polled(provider: Provider, outcome: PollOutcome, state: ProviderState | None = None) -> Poll:
    """The outcome of a provider that was not polled in this round."""
    return Poll(provider.name, provider.table, outcome, next_at=None if state is None else state.next_at)


def after_failure(
    provider: Provider, state: ProviderState, error: Exception, now: datetime
) -> tuple[Poll, ProviderState]:
    """The outcome of a failed poll: it is repeated after a pause that doubles with each failure."""
    text = concealed(str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}")
    failed = replace(
        state,
        table=provider.table,
        polled_at=now,
        outcome="failed",
        error=text,
        failures=state.failures + 1,
        polls=state.polls + 1,
    )
    asked = error.retry_after if isinstance(error, InputError) else 0.0
    failed = replace(failed, next_at=next_poll(failed, provider.pace, now, not_before=asked))
    code = error.exit_code if isinstance(error, HeadraceError) else 1
    return Poll(provider.name, provider.table, "failed", next_at=failed.next_at, error=text, exit_code=code), failed


def after_delivery(
    provider: Provider, state: ProviderState, delivery: Delivery, loaded: Loaded | None, now: datetime, seconds: float
) -> tuple[Poll, ProviderState]:
    """The outcome of a delivery: events (`loaded`), no events, or the same content as before."""
    outcome: PollOutcome = "unchanged" if delivery.unchanged else "empty" if loaded is None else "loaded"
    polled = _answered(provider, state, outcome, delivery, now)
    poll = Poll(provider.name, provider.table, outcome, seconds=seconds)
    if loaded is not None:
        report = loaded.report
        polled = _with_load(polled, loaded, now)
        poll = replace(
            poll,
            counts=report.counts,
            run_id=report.run_id,
            mode=report.mode,
            alerts=report.alerts,
            duplicates_compared=report.duplicates_compared,
            duplicates_differing=report.duplicates_differing,
        )
    next_at = next_poll(polled, provider.pace, now)
    return replace(poll, next_at=next_at), replace(polled, next_at=next_at)


def _answered(
    provider: Provider, state: ProviderState, outcome: PollOutcome, delivery: Delivery, now: datetime
) -> ProviderState:
    # the same as before is as empty as it was before
    empty = state.empty_polls + 1 if outcome == "empty" or (outcome == "unchanged" and state.empty_polls) else 0
    return replace(
        state,
        table=provider.table,
        polled_at=now,
        outcome=outcome,
        error=None,
        failures=0,
        empty_polls=empty,
        polls=state.polls + 1,
        etag=delivery.validators.etag,
        last_modified=delivery.validators.last_modified,
        content=delivery.validators.content,
        description=describe(provider),
    )


def _with_load(state: ProviderState, loaded: Loaded, now: datetime) -> ProviderState:
    report, loads = loaded.report, state.loads + 1
    return replace(
        state,
        delivered_at=now,
        run_id=report.run_id,
        loads=loads,
        load=loaded.tally.past_load(report, loads, now),
        witness=loaded.witness,
        counts=state.counts + report.counts,
        newest_event=_newest(state.newest_event, report.newest_event, now),
    )


def _newest(before: datetime | None, here: datetime | None, now: datetime) -> datetime | None:
    """The latest event time so far; an earlier one that is far ahead of `now` hides no later ones for ever."""
    if before is not None and here is not None and before > now + timedelta(seconds=LONGEST_WAIT):
        return here
    return max(filter(None, (before, here)), default=None)


def _clock(moment: datetime | None) -> str:
    return "at once" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
