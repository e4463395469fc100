"""What is remembered of each provider between two polls, and how the database is asked for it.

    read all ──► which are due? ──► claim those ──► poll ──► save all, which ends the claims
    1 statement   (the engine's)    1 statement              1 statement, 1 more if anything was loaded

A claim is a lease by the database server's clock: no second host polls a provider while it lasts, whoever holds it
renews it, and that of a host that died lapses. It only keeps two hosts from doing the same work; what is a duplicate is
decided by the unique key on ``event_id``, as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from headrace.storage.interface import Counts, Store
from headrace.storage.past_loads import PastLoad
from headrace.storage.witnesses import Witness

__all__ = ["ProviderState", "ProviderStore"]


@dataclass(frozen=True, slots=True)
class ProviderState:
    """One row of ``headrace_providers``. All times are aware, UTC, by the clock of the process that polled.

    `polled_at` is the last poll, `next_at` the earliest time for the next, `delivered_at` the last poll that had
    events, `newest_event` the latest event time seen so far. `outcome` is what the last poll came to, `error` why it
    failed. `empty_polls` and `failures` count without a break up to now; `polls`, `loads` (polls that loaded something)
    and `counts` are totals. `load` is what the load of this poll took, to be kept with those before it, and `witness`
    what it met, to be kept in the place of the one before; they are not read back with the state.

    `etag`, `last_modified` and `content` are what the last download that was taken in said about itself and the digest
    of its content; they are worth something only while `description` (a digest of what is done with it) is the same.
    """

    provider: str
    table: str | None = None
    polled_at: datetime | None = None
    next_at: datetime | None = None
    delivered_at: datetime | None = None
    newest_event: datetime | None = None
    outcome: str | None = None
    error: str | None = None
    run_id: str | None = None
    empty_polls: int = 0
    failures: int = 0
    polls: int = 0
    loads: int = 0
    counts: Counts = field(default_factory=Counts)
    etag: str | None = None
    last_modified: str | None = None
    content: str | None = None
    description: str | None = None
    load: PastLoad | None = None
    witness: Witness | None = None


class ProviderStore(Store, Protocol):
    """A `Store` that keeps the state of providers too. Raises `StoreError` and `RetryableStoreError`."""

    def provider_states(self) -> dict[str, ProviderState]:
        """Every provider's state, by its name. One statement."""
        ...

    def claim_providers(
        self,
        names: Sequence[str],
        holder: str,
        seconds: float,
        *,
        due: datetime | None,
        believed: Mapping[str, datetime] | None = None,
    ) -> dict[str, ProviderState]:
        """Claim providers for `seconds`; returns the states, as they are now, of those that were granted.

        Not granted are those that another holder has, and those whose `next_at` is after `due` (``None``: all are due),
        unless it is also after what is `believed` of it. A claim of another that reaches further into the future than
        any (`headrace.storage.beliefs`) is not believed either. One statement.
        """
        ...

    def renew_claims(self, holder: str, seconds: float) -> set[str]:
        """Prolong all claims of `holder` to `seconds` from now, also lapsed ones that nobody has taken since; returns
        what it still holds. One statement.
        """
        ...

    def save_providers(self, states: Collection[ProviderState], holder: str) -> set[str]:
        """Write `states` and end their claims, except where another holder has taken over; returns the names written.

        One statement, and if there were any loads, one more for what they took and one for what they met.
        """
        ...

    def witnesses(self, providers: Collection[str]) -> dict[str, Witness]:
        """What the last loads of `providers` met, by their names. One statement."""
        ...

    def past_loads(self, providers: Collection[str] | None = None) -> list[PastLoad]:
        """What the last loads of `providers` (``None``: of all) took, by provider, the oldest first. One statement."""
        ...

    def server_now(self) -> datetime | None:
        """The time by the database server's clock; ``None`` for a database without a server."""
        ...

    def lacking_privileges(
        self, tables: Sequence[str], revised: Sequence[str] = (), *, prunes: bool = False
    ) -> list[str]:
        """What this user lacks to load into `tables` and to revise those of `revised` (those that exist), and to
        prune alerts, each as ``INSERT on fires``.
        """
        ...

    def claimed_providers(self) -> Mapping[str, str]:
        """Who holds which provider at this moment. One statement."""
        ...
