"""The schedule of polls: pure functions of a provider's state, its pace and a clock.

    events            after `interval`
    empty             after `interval`; from the third empty poll on after 2, 4, 8 … intervals, `slowest` at most
    unchanged         as after the poll whose content this still is
    failed            after 30 s, 1 min, 2 min …, `slowest` at most, and not before the server's Retry-After
    events again      after `interval`, at once

A time further in the future than a poll can have set was written under a wrong clock, or for a longer interval than the
file has now. Such a time is ignored, and the provider is due: a clock that was a year ahead for one poll costs that
poll, not a year.

The longer waits are jittered by a tenth, differently for each provider and poll, so that a hundred providers that went
quiet together are not polled together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from xxhash import xxh3_64_intdigest

from headrace.storage.beliefs import LONGEST_WAIT
from headrace.storage.providers import ProviderState

__all__ = ["EARLY", "EMPTY_POLLS", "FIRST_RETRY", "JITTER", "SKEW", "Pace", "horizon", "is_due", "next_poll"]

EMPTY_POLLS = 3
"""Empty polls in a row from which on a provider is polled less often."""
FIRST_RETRY = 30.0
"""Seconds until a poll that failed is tried again."""
JITTER = 0.1
"""The share by which a longer wait differs, up or down."""
EARLY = 0.05
"""The share of the interval by which a poll may be early: a cron job that starts a second sooner than yesterday still
polls today."""
SKEW = 60.0
"""Seconds by which the clocks of two hosts may differ: neither then takes the other's times for wrong."""
SHORTEST_BASE = 60.0  # seconds: what is doubled where the interval is shorter
MOST_DOUBLINGS = 32  # beyond any `slowest`, and small enough for a float


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to poll, in seconds: every `interval`, and at least every `slowest` where it is longer."""

    interval: float
    slowest: float


def is_due(state: ProviderState | None, pace: Pace, now: datetime) -> bool:
    """Whether a provider in `state` (``None``: never polled) is to be polled at `now`."""
    if state is None or state.next_at is None or state.next_at <= now:
        return True
    return state.next_at > horizon(state, pace, now)


def horizon(state: ProviderState, pace: Pace, now: datetime) -> datetime:
    """The latest time for the next poll that is credible at `now`."""
    skew = timedelta(seconds=SKEW)
    if state.polled_at is not None and state.polled_at > now + skew:
        return now
    wait = _wait(state, pace)
    # a server that refused us may have asked for more
    return now + skew + timedelta(seconds=max(wait, LONGEST_WAIT) if state.failures else wait)


def next_poll(state: ProviderState, pace: Pace, now: datetime, *, not_before: float = 0.0) -> datetime:
    """The earliest time for the next poll of a provider that was polled at `now` and is in `state` since.

    `not_before` is the wait in seconds that a server asked for.
    """
    return now + timedelta(seconds=max(_wait(state, pace), not_before))


def _wait(state: ProviderState, pace: Pace) -> float:
    if state.failures:
        return _longer(FIRST_RETRY, state.failures - 1, pace, state)
    if state.empty_polls >= EMPTY_POLLS:
        return _longer(max(pace.interval, SHORTEST_BASE), state.empty_polls - EMPTY_POLLS + 1, pace, state)
    return pace.interval * (1 - EARLY)


def _longer(base: float, doublings: int, pace: Pace, state: ProviderState) -> float:
    wait = min(base * 2.0 ** min(doublings, MOST_DOUBLINGS), max(base, pace.slowest))
    return wait * _jitter(state)


def _jitter(state: ProviderState) -> float:
    """A factor between ``1 - JITTER`` and ``1 + JITTER``, the same whenever the same poll is asked about."""
    share = xxh3_64_intdigest(f"{state.provider}\0{state.polls}".encode()) / 2**64
    return 1 + JITTER * (2 * share - 1)
