"""Headrace loads events into a database, each exactly once.

    inputs ──► source ──► chunk ──► prepare ──► decide ──► commit ─► one transaction: rows · alerts · receipt
     files      DuckDB     Arrow     event IDs   dedup       │
     frames     streaming            rejects     vs snapshot └─► unique key on event_id: the sole authority

`load` does all of it in one call; `Engine` keeps everything warm for batch after batch. Read `headrace.loading.run`
next: it is the main path, and reads like a table of contents. A room imports only from the rooms above it in this list:

    -----
    errors            Every failure Headrace can raise, on one screen.
    version           The version of the installed package.
    partitioning      Pure core: encoding, identity, partitions, snapshot, dedup. No database, no processes.
    storage           Effects at the edge: the `Store` protocol and its two databases. `open_store` picks by URL.
    report            What a run did: the `Report` that Python callers get and the command line prints.
    runtime           About this process: scratch folders, signals, parcels between processes, workers' logs. It knows
                      no event.
    reading           From whatever the user names to typed chunks and rejects. It knows no database and no event ID.
    events            What becomes of a row: event ID, enrichment, alert rules, revisions. It knows no process.
    options           Everything that a load can be told, with its default and its checks.
    observability     Hears of a run and tells others: progress, metrics, traces, logs, pages. A run never waits for it.
    execution         Carries orders out: in this process, in a process pool, on a cluster. It decides nothing.
    loading           The coordinator: it agrees, reads ahead, decides, dispatches, counts. It speaks to the store,
                      never SQL.
    api               Loading from Python in one call: opens the database and the inputs, runs `ingest`, closes
                      everything.
    engine            `Engine`: batch after batch into a table, with the connection, the pool and the existing IDs kept
                      warm.
    delivery          Carries alerts from the outbox to a receiver.
    checking          Looks at tables, ledger and inputs, and writes nothing.
    profiling         Would parallel mode pay? It loads only into trials.
    polling           ``headrace run``: its file, its schedule, its claims, its rounds.
    cli               The command line: options, words on the screen, exit codes. All printing is here.
    __main__          ``python -m headrace``: the command line.
    -----

The list is drawn from the import contract in ``pyproject.toml``; a test compares the two.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.api import load
    from headrace.engine import Engine
    from headrace.errors import (
        BooksError,
        ConfigurationError,
        ConnectionLostError,
        ContractError,
        HeadraceError,
        InputChangedError,
        InputError,
        Interrupted,
        LockTimeoutError,
        RetryableStoreError,
        SchemaError,
        StoreError,
        UsageError,
        VerificationError,
        WorkerError,
    )
    from headrace.events.alert_rule import AlertRule
    from headrace.report import Report
    from headrace.version import __version__

__all__ = [
    "AlertRule",
    "BooksError",
    "ConfigurationError",
    "ConnectionLostError",
    "ContractError",
    "Engine",
    "HeadraceError",
    "InputChangedError",
    "InputError",
    "Interrupted",
    "LockTimeoutError",
    "Report",
    "RetryableStoreError",
    "SchemaError",
    "StoreError",
    "UsageError",
    "VerificationError",
    "WorkerError",
    "__version__",
    "load",
]

_HOMES = {
    "AlertRule": "headrace.events.alert_rule",
    "load": "headrace.api",
    "Engine": "headrace.engine",
    "Report": "headrace.report",
    "__version__": "headrace.version",
}


def __getattr__(name: str) -> object:
    # Names are resolved when first used: `import headrace` then costs no DuckDB, Arrow or SQLAlchemy.
    if name not in __all__:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "headrace.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
