"""``headrace run``: poll the providers that are due and load their deliveries, in one round or in repeated rounds.

    read all states ──► due? ──► claim those ──► what did they bring? ──► collect ──► empty or unchanged? ──► state
      1 statement                 1 statement     is it still there?       (ahead)     └─ no ──► ingest ──────► state
                                                  1, and 1 for each table                         save all: 1 statement,
                                                                     and 2 for what the loads took and met, if any was

The store, the workers and, for providers of the same table, the existing IDs stay warm from one provider to the next.
A provider that fails is noted and polled again later; the others are polled as usual. Nothing here decides what is a
duplicate: if two hosts should load the same events after all, the unique key on ``event_id`` keeps each event once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from headrace.errors import ConfigurationError, HeadraceError, Interrupted
from headrace.loading.session import Session
from headrace.observability.observers import tell_of_outbox
from headrace.observability.progress import Progress
from headrace.polling.claims import Claims, new_holder
from headrace.polling.collecting import Collected, collecting
from headrace.polling.config_file import Provider, Settings
from headrace.polling.delivery_loads import DeliveryLoads
from headrace.polling.poll import Poll, Round, after_delivery, after_failure, not_polled
from headrace.polling.schedule import horizon, is_due
from headrace.polling.unchanged import known_validators
from headrace.runtime.reopening import Renewed
from headrace.runtime.scratch import scratch_folder
from headrace.storage import open_store
from headrace.storage.providers import ProviderState

__all__ = ["Clock", "Service", "SystemClock", "serve"]

log = logging.getLogger("headrace.run")
BETWEEN_PRUNINGS = timedelta(hours=1)


class Clock(Protocol):
    """The clock of the schedule."""

    def now(self) -> datetime:
        """The time, aware, UTC."""

    def wait(self, seconds: float, stop: Event) -> None:
        """Let `seconds` pass, or less if `stop` is set."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The time, aware, UTC."""
        return datetime.now(UTC)

    def wait(self, seconds: float, stop: Event) -> None:
        """Sleep, until `stop` is set."""
        stop.wait(seconds)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of a round: the providers by name (none: all), `force` to poll also providers that are not due,
    `reread` to load also unchanged content, `progress` to show each load.
    """

    names: tuple[str, ...] = ()
    force: bool = False
    reread: bool = False
    progress: Progress | None = None


def serve(
    settings: Settings,
    wanted: Wanted,
    tell: Callable[[Round], None],
    *,
    every: float | None = None,
    clock: Clock | None = None,
    stop: Event | None = None,
) -> None:
    """Poll the due providers once, or every `every` seconds until `stop` is set; `tell` is called with each round.

    If the database prevents a round, `StoreError` is raised; with `every` a temporary failure is logged, the database
    is reopened, and the next round tries again (`headrace.runtime.reopening`). Raises `ConfigurationError` for a
    provider that is not in the file.
    """
    clock, stop = clock or SystemClock(), stop or Event()
    holder = new_holder()  # kept: what it had claimed when the database failed is still its own
    with Renewed(lambda: Service(settings, wanted, clock, stop, holder)) as service:
        while not stop.is_set():
            began = clock.now()
            try:
                tell(service.use().round())
            except HeadraceError as error:
                if every is None or not service.outlasts(error):
                    raise
                log.error("this round failed; the next round tries again: %s", error)  # noqa: TRY400 - it says where
            if every is None:
                return
            left = (began + timedelta(seconds=every) - clock.now()).total_seconds()
            if left > 0:
                clock.wait(min(left, every), stop)  # more is left where the clock was set back


class Service:
    """The providers of `settings` over one open database. One thread at a time."""

    def __init__(
        self, settings: Settings, wanted: Wanted, clock: Clock, stop: Event, holder: str | None = None
    ) -> None:
        self._settings = settings
        self._wanted = wanted
        self._clock = clock
        self._stop = stop
        self._holder = holder or new_holder()
        self._open = ExitStack()
        self._pruned: datetime | None = None
        self._providers = _chosen(settings, wanted.names)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._store = opened.enter_context(open_store(self._settings.database))
            self._store.ledger.prepare()
            self._session = opened.enter_context(
                Session(self._store, self._settings.parallel, keep=True, one_command=True)
            )
            names = [one.name for one in self._settings.providers]
            self._loads = DeliveryLoads(self._store, self._session, names, self._wanted.progress, self._stop)
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def round(self) -> Round:
        """Poll every provider that is due, once. Raises `StoreError` if their states cannot be read or written."""
        if not self._store.is_in_place():
            self._store.ledger.prepare()  # another file lies there now
        now, began = self._clock.now(), monotonic()
        states = self._store.providers.states()
        active = [one for one in self._providers if one.active]
        due = [one for one in active if self._wanted.force or is_due(states.get(one.name), one.pace, now)]
        claimed = self._claim(due, states, now)
        polls = [not_polled(one, "inactive") for one in self._providers if not one.active]
        polls += [not_polled(one, "not due", states[one.name]) for one in active if one not in due]
        polls += [not_polled(one, "elsewhere") for one in due if one.name not in claimed]
        if claimed:
            chosen = _together([one for one in due if one.name in claimed])
            polls += self._poll_all(chosen, claimed, now)
        self._prune(now)
        if any(one.options.alerts for one in active):
            tell_of_outbox(self._store.outbox)
        order = {one.name: number for number, one in enumerate(self._providers)}
        ordered = tuple(sorted(polls, key=lambda poll: order[poll.provider]))
        return Round(now, ordered, monotonic() - began)

    def _prune(self, now: datetime) -> None:
        """Delete old alerts, now and then. A failure waits for the next time: events matter more."""
        keep = self._settings.keep_alerts
        if keep is None or (self._pruned is not None and timedelta() <= now - self._pruned < BETWEEN_PRUNINGS):
            return
        self._pruned = now
        try:
            log.info("%d delivered alerts deleted", self._store.outbox.prune(keep))
        except HeadraceError as error:
            log.warning("old alerts could not be deleted: %s", error)

    def _claim(
        self, due: Sequence[Provider], states: Mapping[str, ProviderState], now: datetime
    ) -> dict[str, ProviderState]:
        if not due:
            return {}
        names, lease = [one.name for one in due], self._settings.lease
        if self._wanted.force:
            return self._store.providers.claim(names, self._holder, lease, due=None)
        believed = {one.name: horizon(states[one.name], one.pace, now) for one in due if one.name in states}
        return self._store.providers.claim(names, self._holder, lease, due=now, believed=believed)

    def _poll_all(self, chosen: Sequence[Provider], states: dict[str, ProviderState], now: datetime) -> list[Poll]:
        """Poll the `chosen`, claimed as `states`; whatever happens, what became of them is saved, and let go."""
        self._session.forget()  # other loaders have written since the last round, and rows may have been deleted
        polls: list[Poll] = []
        with Claims(self._settings.database, self._holder, states, self._settings.lease) as claims:
            try:
                for poll, state in self._polled(chosen, states, now, claims):
                    polls.append(poll)
                    states[poll.provider] = state
            finally:
                written = self._store.providers.save(states.values(), self._holder)
        for name in sorted(set(states) - written):
            log.warning("%s was taken over by another host while it was polled here", name)
        return polls

    def _polled(
        self, chosen: Sequence[Provider], states: dict[str, ProviderState], now: datetime, claims: Claims
    ) -> Iterator[tuple[Poll, ProviderState]]:
        known = {} if self._wanted.reread else known_validators(self._store, chosen, states)
        with (
            scratch_folder() as folder,
            collecting(chosen, known, folder, self._settings.downloads, self._stop) as all_,
        ):
            for provider, collected in all_:
                if self._stop.is_set():
                    return
                if not claims.holds(provider.name):
                    log.warning("%s is left to the host that has taken it over", provider.name)
                    continue
                try:
                    yield self._one(provider, states[provider.name], collected, now, folder)
                except Interrupted:
                    return

    def _one(
        self, provider: Provider, state: ProviderState, collected: Collected, now: datetime, folder: Path
    ) -> tuple[Poll, ProviderState]:
        """What became of one provider. Raises only `Interrupted`."""
        began = monotonic()
        try:
            delivery = collected.result()
            loaded = None if delivery.unchanged else self._loads.load(provider, delivery, folder, first=not state.loads)
        except Interrupted:
            raise
        except Exception as error:  # whatever a provider's code raises is that provider's failure alone
            if not isinstance(error, HeadraceError):
                log.debug("%s failed", provider.name, exc_info=True)
            return after_failure(provider, state, error, now)
        seconds = monotonic() - began + collected.seconds
        return after_delivery(provider, state, delivery, loaded, now, seconds)


def _chosen(settings: Settings, names: Collection[str]) -> list[Provider]:
    unknown = sorted(set(names) - {one.name for one in settings.providers})
    if unknown:
        raise ConfigurationError(
            f"there is no provider {unknown[0]!r}",
            where=str(settings.file),
            hint=f"its providers are {', '.join(one.name for one in settings.providers)}",
        )
    return [one for one in settings.providers if not names or one.name in names]


def _together(providers: Sequence[Provider]) -> list[Provider]:
    """Those of one table after each other, else in the given order: they share the existing IDs."""
    first: dict[str, int] = {}
    for number, one in enumerate(providers):
        first.setdefault(one.table, number)
    return sorted(providers, key=lambda one: first[one.table])
