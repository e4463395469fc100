"""The owners of a table's events: a provider's name is part of an event's ID, so under another name all events are new.

a table of other providers' events, none of this one's ──► nobody said --provider? refused
└─► it was said: another provider may join, and is told
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from headrace.errors import UsageError
from headrace.options.load import DEFAULT_PROVIDER, LoadOptions
from headrace.partitioning.contract import Contract
from headrace.storage.store import Store

__all__ = ["others_events", "require_named", "require_own_events", "told_of_others", "warn_of_renaming"]

log = logging.getLogger("headrace.run")
SHOWN = 5


def others_events(store: Store, table: str, contract: Contract, provider: str) -> Mapping[str, int]:
    """Count the events of other providers in `table`, if it holds none of `provider`; otherwise return nothing.

    If the contract does not distinguish providers, all events belong to all of them.
    """
    return {} if contract.scope == "global" else store.ledger.other_providers(table, provider)


def require_own_events(store: Store, table: str, contract: Contract, options: LoadOptions) -> None:
    """Raises `UsageError` where nobody named a provider, and the table holds events of named ones alone."""
    if not _is_named(options):
        require_named(table, options, others_events(store, table, contract, options.provider))


def require_named(table: str, options: LoadOptions, others: Mapping[str, int]) -> None:
    """Raises `UsageError` where nobody named a provider, and there are events of `others` alone."""
    if others and not _is_named(options):
        raise UsageError(
            told_of_others(options.provider, others),
            where=table,
            hint=f"name the provider of these events: --provider {next(iter(others))}; or --provider "
            f"{options.provider} if another provider's events are to be stored beside them (only a table that was made "
            "with --scope global finds duplicates among all providers)",
        )


def _is_named(options: LoadOptions) -> bool:
    return options.provider_named or options.provider != DEFAULT_PROVIDER


def warn_of_renaming(store: Store, table: str, provider: str, known: Collection[str]) -> None:
    """Warn if a provider has no event in `table`, but the table holds events of providers that are no longer
    `known`.
    """
    stored = store.ledger.pinned_contract(table)
    if stored is None or store.tables.schema(table, keyed=False) is None:
        return
    others = others_events(store, table, Contract.from_json(stored), provider)
    if others and not set(others) & set(known):
        log.warning(
            "%s; if the provider was renamed, its events are loaded once more under the new name",
            told_of_others(provider, others),
        )


def told_of_others(provider: str, others: Mapping[str, int]) -> str:
    """Say whose events the table holds."""
    shown = [f"{number:,} of {name}" for name, number in list(others.items())[:SHOWN]]
    more = f" and of {len(others) - SHOWN} more providers" if len(others) > SHOWN else ""
    return f"the table holds no event of the provider {provider}, but {', '.join(shown)}{more}"
