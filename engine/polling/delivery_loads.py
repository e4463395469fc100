"""Loads of deliveries, over a store and a session that stay warm from one provider to the next.

delivery ──► any row? ──no──► nothing is touched
               └─yes──► the table's time zone ──► ingest ──► report, costs, witness of the events that it met
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from threading import Event

from headrace.loading.agreement import in_stored_timezone
from headrace.loading.ownership import warn_of_renaming
from headrace.loading.run import ingest
from headrace.loading.session import Session
from headrace.observability.progress import Progress
from headrace.polling.config_file import Provider
from headrace.polling.load_tally import LoadTally
from headrace.polling.poll import Loaded
from headrace.polling.sources import Delivery
from headrace.polling.unchanged import witness
from headrace.reading.inputs import open_inputs
from headrace.reading.not_data import require_header
from headrace.storage.providers import MOST
from headrace.storage.store import Store

__all__ = ["DeliveryLoads"]

log = logging.getLogger("headrace.run")


class DeliveryLoads:
    """Loads deliveries of `providers` into `store`, one at a time."""

    def __init__(
        self, store: Store, session: Session, providers: Collection[str], progress: Progress | None, stop: Event
    ) -> None:
        self._store = store
        self._session = session
        self._providers = providers
        self._progress = progress
        self._stop = stop
        self._told: set[str] = set()

    def load(self, provider: Provider, delivery: Delivery, folder: Path, *, first: bool) -> Loaded | None:
        """Load a delivery; ``None`` if there is no event in it, and then neither snapshot nor table is touched.

        Before the `first` load of a provider, warn if the table's events are of a provider that is not polled any more.
        """
        options = provider.options
        try:
            if not delivery.again:
                options = in_stored_timezone(self._store, provider.table, options)
            items = open_inputs(delivery.inputs, options.read, folder) if delivery.inputs else []
            if all(item.is_empty() for item in items):
                for item in items:
                    require_header(
                        item.columns(), [*(options.identity or ()), *filter(None, [options.time])], item.name
                    )
                return None
            settled = in_stored_timezone(self._store, provider.table, options)
            if settled.read.timezone != options.read.timezone:
                items = open_inputs(delivery.inputs, settled.read, folder)
            if first and provider.name not in self._told:
                self._told.add(provider.name)
                warn_of_renaming(self._store, provider.table, provider.name, self._providers)
            with LoadTally() as tally:
                report = ingest(
                    self._store,
                    items,
                    provider.table,
                    settled,
                    progress=self._progress,
                    stop=self._stop,
                    session=self._session,
                    listener=tally,
                )
            if report.duplicates_differing:
                most = 2 * report.duplicates_differing >= report.duplicates_compared
                log.log(logging.WARNING if most else logging.INFO, "%s: %s", provider.name, report.other_values())
            return Loaded(report, tally, witness(self._store, provider, report.run_id, self._session.met(MOST)))
        finally:
            delivery.discard()
