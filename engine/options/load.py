"""What the user asked for: options with their defaults, environment and validation.

`LoadOptions` is the one description of a load; the command line and the Python API both build it, so a default lives
in exactly one place. Precedence: an explicit argument, then the environment, then the default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from headrace.errors import ConfigurationError
from headrace.events.alert_rule import AlertRule, require_distinct, require_updates
from headrace.events.enrich import Enrichment, OnError
from headrace.events.revisions import RevisionsName, require_choice
from headrace.options.flag import Mode
from headrace.options.shape import STRATEGIES, StrategyName
from headrace.partitioning.contract import HashName, LogicalType, Scope
from headrace.reading.inputs import ReadOptions
from headrace.storage.sqlite.file_place import absolute

__all__ = [
    "DATABASE_VARIABLE",
    "DEFAULT_DATABASE",
    "DEFAULT_FILE",
    "DEFAULT_PROVIDER",
    "LoadOptions",
    "MissingId",
    "ParallelOptions",
    "database_url",
    "hash_key",
    "parse_seconds",
    "parse_size",
    "parse_types",
    "parse_window",
    "table_from_inputs",
]


DATABASE_VARIABLE = "HEADRACE_DATABASE_URL"
KEY_VARIABLE = "HEADRACE_HASH_KEY"
DEFAULT_DATABASE = "sqlite:///headrace.db"
DEFAULT_FILE = "headrace.toml"  # what `headrace run` reads
DEFAULT_PROVIDER = "default"
DEFAULT_WINDOW = timedelta(days=30)
# 64 Mi IDs of 16 bytes: a snapshot without a time column to bound it stops at 1 GiB of disk
DEFAULT_SNAPSHOT_BUDGET = 64 * 1024 * 1024
MissingId = Literal["reject", "keep-whole-row"]
"""What becomes of a row whose identity columns are all empty."""
MOST_PARTITIONS = 4096
LEAST_MEMORY = 16 << 20

_WINDOW = re.compile(r"(\d+)\s*([smhdw])", re.ASCII)
_SIZE = re.compile(r"(\d+)\s*(b|kib|mib|gib|kb|mb|gb)?", re.ASCII)
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# What may stand behind a name before the part that names its format: events.csv.gz is the table "events".
_SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".geojson", ".parquet", ".pq", ".gz", ".zst"}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ParallelOptions:
    """How parallel mode works, once it is decided that it does.

    `workers` processes (or tasks at a time of `executor`, an executor or ``dask://host:port``) carry out the strategy
    over `partitions` (``None``: as the strategy has it). `memory` bounds the bytes of all chunks on their way.
    `lock_timeout` and `task_timeout` are seconds; `locks` is the URL of a Redis that keeps the locks of the strategy
    ``locked``, ``None`` for the database's own.
    """

    strategy: StrategyName = "partitioned"
    workers: int = field(default_factory=_cores)
    partitions: int | None = None
    memory: int = 512 << 20
    lock_timeout: float = 30.0
    task_timeout: float = 600.0
    locks: str | None = field(default=None, repr=False)
    executor: Executor | str | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigurationError(
                f"there is no strategy {self.strategy!r}", hint=f"choose one of: {', '.join(STRATEGIES)}"
            )
        if self.workers < 1:
            raise ConfigurationError(f"{self.workers} workers can do nothing", hint="--workers 2")
        if self.partitions is not None and not 1 <= self.partitions <= MOST_PARTITIONS:
            raise ConfigurationError(
                f"{self.partitions} partitions are impossible", hint=f"--partitions 1 to {MOST_PARTITIONS}"
            )
        if self.memory < LEAST_MEMORY:
            raise ConfigurationError(
                f"{self.memory >> 20} MiB are too little to work in", hint=f"--memory {LEAST_MEMORY >> 20}MiB or more"
            )
        if self.lock_timeout <= 0 or self.task_timeout <= 0:
            raise ConfigurationError("a timeout must be longer than nothing", hint="--lock-timeout 30s")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Everything a load can be told. `identity`, `time`, `hash` and `scope` are ``None`` where the user left them to
    the stored contract (or, on a first load, to the defaults: all columns, no time column, xxh3_128, provider).

    `window` is how far back the snapshot reaches; ``None`` is all of the table. `snapshot_budget` is the number of IDs
    a snapshot without time bounds may hold. `timezone` is what the user said, ``None`` for the stored contract's;
    `read.timezone` is what counts. `mode` is ``None`` where the feature flag decides. `alerts` are the rules over new
    events, and `on_error` says what becomes of rows that make one of them fail. `revisions` says what becomes of rows
    that come again with another payload; for ``update``, `version_column` says which is newer. `missing_id` says what
    becomes of rows whose identity columns are all empty, ``None`` where that is left to the stored contract (or, on a
    first load, to the default: they are rejected). With `prove` the load ends with a look at the table for every event
    that it met.
    `provider_named` says that somebody said `provider`, though it may be the default one.
    """

    to: str = field(default=DEFAULT_DATABASE, repr=False)  # it may hold a password
    table: str | None = None
    provider: str = DEFAULT_PROVIDER
    identity: tuple[str, ...] | None = None
    time: str | None = None
    hash: HashName | None = None
    scope: Scope | None = None
    window: timedelta | None = DEFAULT_WINDOW
    snapshot_budget: int = DEFAULT_SNAPSHOT_BUDGET
    resume: bool = True
    timezone: str | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    mode: Mode | None = None
    parallel: ParallelOptions = field(default_factory=ParallelOptions)
    enrichment: Enrichment | None = None
    alerts: tuple[AlertRule, ...] = ()
    on_error: OnError = "fail"
    revisions: RevisionsName = "ignore"
    version_column: str | None = None
    missing_id: MissingId | None = None
    prove: bool = False
    provider_named: bool = False

    def __post_init__(self) -> None:
        if not self.provider:
            raise ConfigurationError("the provider's name is empty", hint="give --provider a name, or leave it out")
        for option, name in (("--provider", self.provider), ("--table", self.table)):
            if name is not None and not _is_text(name):
                raise ConfigurationError(
                    f"{option} {name!a} is not a name", hint="a name has no NUL, and is UTF-8 text"
                )
        if self.identity is not None and not self.identity:
            raise ConfigurationError("no identity column was named", hint="for example --id latitude,longitude,time")
        require_distinct(self.alerts)
        if self.on_error not in get_args(OnError):
            raise ConfigurationError(f"--on-error cannot be {self.on_error!r}", hint="choose fail or reject")
        if self.missing_id is not None and self.missing_id not in get_args(MissingId):
            raise ConfigurationError(
                f"--missing-id cannot be {self.missing_id!r}", hint=f"choose {' or '.join(get_args(MissingId))}"
            )
        require_choice(self.revisions, self.version_column, self.identity)
        require_updates(self.alerts, self.revisions)
        if self.read.chunk_rows < 1:
            raise ConfigurationError(
                f"a chunk of {self.read.chunk_rows} rows is impossible", hint="--chunk-rows 131072"
            )


def _is_text(name: str) -> bool:
    """Whether databases and hashes can take `name`: an argument that was no UTF-8 has lone surrogates."""
    return name != "" and not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in name)


def database_url(explicit: str | None) -> str:
    """The database to write to: the argument, then ``HEADRACE_DATABASE_URL``, then a SQLite file in this folder.

    A file is named absolutely from here on: workers open it later, and the process may have gone elsewhere by then.
    """
    return absolute(explicit or os.environ.get(DATABASE_VARIABLE) or DEFAULT_DATABASE)


def hash_key() -> bytes | None:
    """The secret for keyed ``blake2b``, from ``HEADRACE_HASH_KEY`` (UTF-8), or ``None``."""
    value = os.environ.get(KEY_VARIABLE)
    return value.encode() if value else None


def parse_window(text: str) -> timedelta | None:
    """``30d``, ``12h``, ``90m``, ``2w`` as a time span; ``all`` as ``None``. Raises `ConfigurationError`."""
    if text.strip().lower() == "all":
        return None
    match = _WINDOW.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a time span", hint="for example 30d, 12h, 2w, 90s or all")
    try:
        return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        raise ConfigurationError(f"{text!r} is too long a time", hint="for a window of everything, use all") from None


def parse_seconds(text: str) -> float:
    """``30s``, ``10m``, ``2h`` as seconds. Raises `ConfigurationError`."""
    span = parse_window(text)
    if span is None:
        raise ConfigurationError(f"{text!r} is not a time span", hint="for example 30s or 10m")
    return span.total_seconds()


def parse_size(text: str) -> int:
    """``512MiB``, ``2GB`` as bytes; a number alone is bytes. Raises `ConfigurationError`."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a size", hint="for example 512MiB or 2GB")
    return int(match[1]) * _BYTES[match[2] or "b"]


def parse_types(pairs: Sequence[str]) -> Mapping[str, LogicalType]:
    """``["frp=float", "acq_time=string"]`` as a mapping. Raises `ConfigurationError`."""
    types: dict[str, LogicalType] = {}
    for pair in pairs:
        column, _, name = pair.rpartition("=")
        if not column or name not in get_args(LogicalType):
            known = ", ".join(get_args(LogicalType))
            raise ConfigurationError(f"--type {pair!r} is not COLUMN=TYPE", hint=f"the types are {known}")
        types[column] = _as_logical(name)
    return types


def _as_logical(name: str) -> LogicalType:
    known: dict[str, LogicalType] = {kind: kind for kind in get_args(LogicalType)}
    return known[name]


def table_from_inputs(inputs: Sequence[object]) -> str:
    """The table's name when none was given: the first input's file name up to its format's suffix."""
    first = inputs[0] if inputs else None
    if not isinstance(first, str | Path) or str(first) == "-":
        raise ConfigurationError("this input has no name to call the table after", hint="name it with --table (table=)")
    text = urlsplit(str(first)).path if "://" in str(first) else str(first)
    path = Path(text.rstrip("/"))
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    name = re.sub(r"[^\w]+", "_", path.name).strip("_").lower()
    if not name or not re.search(r"[^\d_]", name):
        raise ConfigurationError(f"no table name can be made of {text!r}", hint="name it with --table")
    return name
