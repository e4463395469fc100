"""``headrace doctor --config``: check everything that ``headrace run`` needs, and say how to correct each fault.

file ──► database ──► clock ──► privileges ──► each provider: source, table and contract ──► flag
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from headrace.checking.doctor import CheckResult, examine, failed
from headrace.errors import ConfigurationError, HeadraceError
from headrace.loading.database import is_there
from headrace.options.flag import FLAG, decide
from headrace.polling.config_file import Provider, Settings, read_settings
from headrace.polling.provider_checks import examine_last_polls, examine_source, examine_table
from headrace.profiling.history import History
from headrace.profiling.site import histories_in
from headrace.storage import open_store, safe_url
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
        yield from examine_source(provider)
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
    names = [one.name for one in settings.providers]
    for provider in settings.providers:
        yield from examine_table(store, provider, names)
        yield from examine_last_polls(provider, states.get(provider.name), held.get(provider.name))


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


def _parallel(found: Sequence[History]) -> Iterator[CheckResult]:
    """Which providers have grown into needing parallel mode, by what their last loads took."""
    told = [one for one in found if one.verdict is not None]
    for one in told:
        if one.grown:
            cure = f"headrace profile --history {one.provider} says more; profile a delivery of it to be sure"
            yield CheckResult(f"provider {one.provider}", "warning", f"its loads have grown: {one.advice}", cure)
    if told and not any(one.grown for one in told):
        yield CheckResult("parallel mode", "ok", f"the last loads of {len(told)} providers do not need it")


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
