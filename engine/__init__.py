"""Headrace loads events into a database, each exactly once.

    inputs ──► source ──► chunk ──► prepare ──► decide ──► commit ─► one transaction: rows · alerts · receipt
     files      DuckDB     Arrow     event IDs   dedup       │
     frames     streaming            rejects     vs snapshot └─► unique key on event_id: the sole authority

`load` does all of it in one call; `Engine` keeps everything warm for batch after batch. Read `headrace.loading.run`
next: it is the main path, and reads like a table of contents. The three packages: `headrace` (the engine: reading,
deciding, reporting), `headrace.partitioning` (pure: identity, snapshot, dedup), `headrace.storage` (the databases).
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
