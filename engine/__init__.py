"""Headrace loads events into a database, each exactly once.

    inputs ──► source ──► chunk ──► prepare ──► decide ──► commit ─► one transaction: rows · alerts · receipt
     files      DuckDB     Arrow     event IDs   dedup       │
     frames     streaming            rejects     vs snapshot └─► unique key on event_id: the sole authority

`load` does all steps in one call; `Engine` stays warm between batches. Read `headrace.loading.run` next: it is the main
path, and reads like a table of contents. A room imports only from the rooms above it in this list:

    -----
    errors            Every error that Headrace raises, in one tree.
    version           The version of the installed package.
    partitioning      The pure core: encoding, identity, partitions, snapshot, deduplication. It uses no database and no
                      processes.
    storage           The `Store` and its two databases. `open_store` chooses the database by the URL.
    report            The result of a run: the `Report` that Python callers receive and the command line prints.
    runtime           The process itself: scratch folders, signals, parcels between processes, workers' logs. It knows
                      no events.
    reading           Turns the inputs that the user names into typed chunks and rejects. It knows no database and no
                      event IDs.
    events            Turns rows into events: event IDs, enrichment, alert rules, revisions. It knows no processes.
    options           The options of a load, with their defaults and checks.
    observability     Reports on a run: progress, metrics, traces, logs, pages. A run never waits for it.
    execution         Runs tasks: in this process, in a process pool, on a cluster. It decides nothing.
    loading           The coordinator: it agrees, reads ahead, decides, dispatches, counts. It calls the store and
                      contains no SQL.
    api               Loads from Python in one call: opens the database and the inputs, runs `ingest`, closes
                      everything.
    engine            `Engine` loads batch after batch into a table and keeps the connection, the pool and the existing
                      IDs warm.
    delivery          Delivers alerts from the outbox to a receiver.
    checking          Examines tables, ledger and inputs, and writes nothing.
    profiling         Predicts whether parallel mode would pay. It loads only into trials.
    polling           ``headrace run``: its configuration file, schedule, claims and rounds.
    cli               The command line: options, screen texts, exit codes. All printing is here.
    __main__          ``python -m headrace``: the command line.
    -----

The list is generated from the import contract in ``pyproject.toml``; a test compares the two.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if os.name != "posix":
    raise ImportError(
        "Headrace runs on Linux and macOS: its file locks and worker processes are POSIX. On Windows, run it in WSL."
    )

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
