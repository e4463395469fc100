"""The checks of one provider: its source, its table with contract, owners and rules, its last polls."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from headrace.checking.doctor import CheckResult, failed
from headrace.errors import HeadraceError
from headrace.events.alert_judge import check_rules
from headrace.events.enrich import load_function
from headrace.events.revisions import require_version
from headrace.loading.agreement import contract_differences, stored_contract
from headrace.loading.ownership import others_events, told_of_others
from headrace.partitioning.contract import Contract
from headrace.polling.config_file import Provider
from headrace.reading.fetch.guard import Doors
from headrace.storage.providers import ProviderState
from headrace.storage.store import Store

__all__ = ["examine_last_polls", "examine_source", "examine_table"]


def examine_source(provider: Provider) -> Iterator[CheckResult]:
    """What can be told of a source without asking it for anything."""
    source, check = provider.source, f"provider {provider.name}"
    try:
        match source.kind:
            case "function":
                load_function(source.target)
            case "url" if urlsplit(source.target).scheme != "s3":
                parts = urlsplit(source.target)
                Doors(source.shown).places(parts.hostname or "", parts.port or 443)
            case "path" if not any(letter in source.target for letter in "*?[") and not Path(source.target).exists():
                yield CheckResult(check, "warning", f"{source.shown} is not there", "a poll fails until it exists")
        if provider.options.enrichment is not None:
            provider.options.enrichment.resolve()
    except HeadraceError as error:
        yield failed(check, error)
    except (socket.gaierror, ValueError):
        cure = "check the address, and the network's name servers; behind a proxy this may be normal"
        yield CheckResult(check, "warning", f"the host of {source.shown} cannot be resolved here", cure)


def examine_table(store: Store, provider: Provider, known: Collection[str]) -> Iterator[CheckResult]:
    """Whether a poll could load into the table as it is; `known` are the providers of the file."""
    yield from _contract(store, provider, known)
    yield from _rules(store, provider)


def _contract(store: Store, provider: Provider, known: Collection[str]) -> Iterator[CheckResult]:
    check = f"provider {provider.name}"
    try:
        differences = contract_differences(store, provider.table, provider.options)
    except HeadraceError as error:
        yield failed(check, error)
        return
    if differences is None:
        yield CheckResult(check, "ok", f"its table {provider.table} is created by the first poll with events")
    elif differences:
        seen = f"its contract differs from the one stored with {provider.table}: {'; '.join(differences)}"
        yield CheckResult(check, "failed", seen, "drop the keys that differ from the file, or name another table")
    else:
        yield CheckResult(check, "ok", f"its contract is the one stored with {provider.table}")
        yield from _owners(store, provider, known)


def _owners(store: Store, provider: Provider, known: Collection[str]) -> Iterator[CheckResult]:
    """Whether the table's events are all of providers that the file, whose providers are `known`, has no more."""
    contract = stored_contract(store, provider.table)
    others = others_events(store, provider.table, contract, provider.name)
    if others and not set(others) & set(known):
        cure = (
            "if it was renamed, give it its old name again: under another name each of its events is loaded once more"
        )
        yield CheckResult(f"provider {provider.name}", "warning", told_of_others(provider.name, others), cure)


def _rules(store: Store, provider: Provider) -> Iterator[CheckResult]:
    """Whether alert rules and version column can be what they are with the columns that the table has."""
    check, options = f"provider {provider.name}", provider.options
    try:
        check_rules(options.alerts, pa.schema([]), all_known=False)
    except HeadraceError as error:
        yield failed(check, error)
        return
    stored = store.ledger.pinned_contract(provider.table)
    try:
        schema = store.tables.schema(provider.table)
    except HeadraceError:
        return  # said of the contract already
    if schema is None or stored is None:
        return
    try:
        check_rules(options.alerts, schema, all_known=options.enrichment is None)
        columns = [(provider.table, schema.names)]
        require_version(options.version_column, schema, Contract.from_json(stored), columns)
    except HeadraceError as error:
        cure = f"until then a poll is refused, unless it brings such a column; {error.hint}"
        yield CheckResult(check, "warning", f"{error.where}: {error.what}", cure)


def examine_last_polls(provider: Provider, state: ProviderState | None, holder: str | None) -> Iterator[CheckResult]:
    """Whether the last polls failed; `holder` is the process that is polling the provider now."""
    check = f"provider {provider.name}"
    if holder is not None:
        yield CheckResult(check, "ok", f"it is being polled by {holder}")
    if state is not None and state.failures:
        seen = f"it has failed {state.failures} times in a row: {(state.error or '').splitlines()[0]}"
        yield CheckResult(
            check, "warning", seen, f"next try at {state.next_at:%Y-%m-%d %H:%M:%S} UTC; --force tries now"
        )
