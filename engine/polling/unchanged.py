"""Whether the events of a provider's last delivery are still in the table, checked before a poll skips the same
content.

    states ──► who has anything to believe in? ──► their witnesses ──► held? ──► those of whom nothing is missing
                 none: no statement                  1 statement        1 for each table and 10,000 IDs, and under
                                                                        `revisions = "update"` a look at their versions

A provider that is not believed is asked as if for the first time: whatever it delivers is loaded, and what the table
still has of it counts as duplicates.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
from xxhash import xxh3_128_hexdigest

from headrace.errors import HeadraceError, RetryableStoreError, StoreError
from headrace.polling.config_file import Provider
from headrace.polling.sources import describe
from headrace.reading.fetch.http import Validators
from headrace.storage.held import HeldRows
from headrace.storage.providers import ProviderState, Witness
from headrace.storage.store import Store

__all__ = ["known_validators", "witness"]

log = logging.getLogger("headrace.run")
ID_BYTES = 16


def known_validators(
    store: Store, providers: Sequence[Provider], states: Mapping[str, ProviderState]
) -> dict[str, Validators]:
    """What the last deliveries said about themselves, of those of `providers` whose delivery need not be read again
    while it is the same.

    Raises `RetryableStoreError` where the database cannot be asked.
    """
    alike = [one for one in providers if _has_word(one, states[one.name])]
    # of a delivery without events nothing can be missing
    loaded = {one.name: one for one in alike if not states[one.name].empty_polls}
    believed = {one.name for one in alike} - (loaded.keys() - _held(store, loaded, states))
    said = {name: states[name] for name in believed}
    return {name: Validators(one.etag, one.last_modified, one.content) for name, one in said.items()}


def witness(store: Store, provider: Provider, run_id: str, met: tuple[int, bytes] | None) -> Witness | None:
    """What the next poll asks for, should the delivery be the same: the events that were `met` (their number, and the
    packed IDs of some of them) and not refused; ``None`` where that is not known.

    It does not follow what the table holds now: events that were deleted during the load would be forgotten.
    """
    if met is None:
        return None
    number, ids = met
    try:
        return Witness(provider.name, run_id, provider.table, number, ids, _versions(store, provider, ids))
    except HeadraceError as error:  # what was loaded is loaded: the next poll reads it once more
        log.debug("no witnesses could be kept for %s: %s", provider.name, error)
        return None


def _has_word(provider: Provider, state: ProviderState) -> bool:
    """Whether the last delivery said anything about itself, and was treated as the next one will be."""
    said = state.etag or state.last_modified or state.content
    return said is not None and state.description == describe(provider)


def _versions(store: Store, provider: Provider, ids: bytes) -> str | None:
    """A digest of the versions that the table has of the events `ids`, for a provider whose rows take newer ones.

    A table of an older day has the events, and not the newest versions of them.
    """
    column = provider.options.version_column
    if provider.options.revisions != "update" or column is None:
        return None
    try:
        schema = store.tables.schema(provider.table, keyed=False)
        if schema is None or column not in schema.names:
            return None
        found = store.events.rows(provider.table, pa.schema([schema.field(column)]), ids=_cut(ids)) if ids else ()
        rows = [pair for block in found for pair in _versions_in(block, column)]
    except RetryableStoreError:
        raise
    except StoreError as error:
        log.debug("the versions in %s cannot be read: %s", provider.table, error)
        return None
    return xxh3_128_hexdigest(b"".join(sorted(rows)))


def _versions_in(block: HeldRows, column: str) -> Iterator[bytes]:
    values = block.columns[column]
    for at, row in enumerate(block.ids):
        yield row.tobytes() + repr(values.shown(at)).encode()


def _held(store: Store, loaded: Mapping[str, Provider], states: Mapping[str, ProviderState]) -> frozenset[str]:
    """Those of `loaded` of whom the table has every event that it is asked for."""
    if not loaded:
        return frozenset()
    found = store.providers.witnesses(loaded)
    asked: defaultdict[str, list[Witness]] = defaultdict(list)
    for name, provider in loaded.items():
        kept = found.get(name)
        if kept is None or (kept.run_id, kept.table) != (states[name].run_id, provider.table):
            continue
        if kept.versions is None or kept.versions == _versions(store, provider, kept.ids):
            asked[provider.table].append(kept)
    return frozenset(name for table, some in asked.items() for name in _complete(store, table, some))


def _complete(store: Store, table: str, witnesses: Sequence[Witness]) -> list[str]:
    ids = {one.provider: set(_cut(one.ids)) for one in witnesses}
    wanted: set[bytes] = set().union(*ids.values())
    try:
        held = (
            {one for block in store.events.held(table, b"".join(sorted(wanted))) for one in _cut(block)}
            if wanted
            else set()
        )
    except RetryableStoreError:
        raise
    except StoreError as error:  # most often: there is no such table any more
        log.debug("%s cannot be queried: %s", table, error)
        return []
    missing = {name: len(some - held) for name, some in ids.items()}
    for name, lacking in missing.items():
        if lacking:
            log.warning(
                "%d events of the last delivery of %s are no longer in %s: the delivery is read again",
                lacking,
                name,
                table,
            )
    return [name for name, lacking in missing.items() if not lacking]


def _cut(packed: bytes) -> list[bytes]:
    return [packed[at : at + ID_BYTES] for at in range(0, len(packed), ID_BYTES)]
