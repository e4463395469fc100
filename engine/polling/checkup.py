"""``headrace doctor --config``: check everything that ``headrace run`` needs, and say how to correct each fault.

file ──► database ──► clock ──► privileges ──► each provider: source, table and contract ──► flag
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from headrace.checking.doctor import CheckResult, examine, failed
from headrace.errors import ConfigurationError, HeadraceError
from headrace.events.alert_judge import check_rules
from headrace.events.enrich import load_function
from headrace.events.revisions import require_version
from headrace.loading.agreement import contract_differences, stored_contract
from headrace.loading.database import is_there
from headrace.loading.ownership import others_events, told_of_others
from headrace.options.flag import FLAG, decide
from headrace.partitioning.contract import Contract
from headrace.polling.config_file import Provider, Settings, read_settings
from headrace.profiling.history import History
from headrace.profiling.site import histories_in
from headrace.reading.fetch.guard import Doors
from headrace.storage import open_store, safe_url
from headrace.storage.providers import ProviderState
from headrace.storage.store import Store

__all__ = ["examine_settings"]

MOST_SKEW = 5.0  # seconds between this machine's clock and the server's
SHOWN = 5  # providers in a line


def examine_settings(file: str) -> Iterator[CheckResult]:
    """Check the file and everything it names against the live database, without fetching or loading anything."""
    try:
        settings = read_settings(file)
    except ConfigurationError as error:
        yield failed(f"configuration {file}", error)
        return
    active = sum(one.active for one in settings.providers)
    yield CheckResult("configuration", "ok", f"{file}: providers: {len(settings.providers)}, active: {active}")
    yield from _flag(settings.providers)
    for provider in settings.providers:
        yield from _source(provider)
    if not is_there(settings.database):
        shown = safe_url(settings.database)
        yield CheckResult("database", "warning", f"{shown} does not exist yet", "the first `headrace run` creates it")
        return
    findings = list(examine(settings.database))
    yield from findings
    if not any(one.state == "failed" and one.check.startswith("database") for one in findings):
        with open_store(settings.database) as store:
            yield from _live(store, settings)


def _live(store: Store, settings: Settings) -> Iterator[CheckResult]:
    try:
        yield _clock(store)
        yield _privileges(store, settings)
        states, held = store.providers.states(), store.providers.claimed()
        grown = histories_in(store, settings.database, [one.name for one in settings.providers])
    except HeadraceError as error:
        yield failed("database", error)
        return
    yield from _parallel(grown)
    for provider in settings.providers:
        yield from _contract(store, provider, [one.name for one in settings.providers])
        yield from _rules(store, provider)
        yield from _state(provider, states.get(provider.name), held.get(provider.name))


def _clock(store: Store) -> CheckResult:
    server = store.checks.server_now()
    if server is None:
        return CheckResult("clock skew", "ok", "none: the database uses this machine's clock")
    skew = (server - datetime.now(UTC)).total_seconds()
    seen = f"the server's is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) <= MOST_SKEW:
        return CheckResult("clock skew", "ok", seen)
    cure = "synchronise both by NTP: the schedule uses this machine's clock, claims and windows use the server's"
    return CheckResult("clock skew", "warning", seen, cure)


def _privileges(store: Store, settings: Settings) -> CheckResult:
    revised = {one.table for one in settings.providers if one.options.revisions == "update"}
    lacking = store.checks.lacking_privileges(
        sorted({one.table for one in settings.providers}), sorted(revised), prunes=settings.keep_alerts is not None
    )
    if not lacking:
        return CheckResult("privileges", "ok", "this user may create tables and write to the existing tables")
    return CheckResult(
        "privileges", "failed", f"this user lacks {', '.join(lacking)}", "GRANT these privileges as the tables' owner"
    )


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


def _state(provider: Provider, state: ProviderState | None, holder: str | None) -> Iterator[CheckResult]:
    check = f"provider {provider.name}"
    if holder is not None:
        yield CheckResult(check, "ok", f"it is being polled by {holder}")
    if state is not None and state.failures:
        seen = f"it has failed {state.failures} times in a row: {(state.error or '').splitlines()[0]}"
        yield CheckResult(
            check, "warning", seen, f"next try at {state.next_at:%Y-%m-%d %H:%M:%S} UTC; --force tries now"
        )


def _parallel(found: Sequence[History]) -> Iterator[CheckResult]:
    """Which providers have grown into needing parallel mode, by what their last loads took."""
    told = [one for one in found if one.verdict is not None]
    for one in told:
        if one.grown:
            cure = f"headrace profile --history {one.provider} says more; profile a delivery of it to be sure"
            yield CheckResult(f"provider {one.provider}", "warning", f"its loads have grown: {one.advice}", cure)
    if told and not any(one.grown for one in told):
        yield CheckResult("parallel mode", "ok", f"the last loads of {len(told)} providers do not need it")


def _source(provider: Provider) -> Iterator[CheckResult]:
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


def _flag(providers: Sequence[Provider]) -> Iterator[CheckResult]:
    """How the flag decides for each provider, those of one decision together."""
    decided: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for one in providers:
            decision = decide(one.options.mode, one.name, one.table)
            shadow = " with a shadow" if decision.shadow else ""
            decided[f"{decision.mode}{shadow} ({decision.flag}, by {decision.source})"].append(one.name)
    except ConfigurationError as error:
        yield failed(f"flag {FLAG}", error)
        return
    for how, names in decided.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield CheckResult(f"flag {FLAG}", "ok", f"{how}: {', '.join(names[:SHOWN])}{more}")
