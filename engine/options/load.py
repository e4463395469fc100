"""What the user asked for: options with their defaults, environment and validation.

`LoadOptions` is the one description of a load. `options_of` makes it from the keywords of Python, and so do the command
line and ``headrace.toml``, whose options have the same names. Precedence: an explicit argument, then the environment,
then the default, which stands in `headrace.options.declared`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headrace.errors import ConfigurationError
from headrace.events.alert_rule import AlertRule, require_distinct, require_updates
from headrace.events.choices import OnError, RevisionsName
from headrace.events.enrich import Enrichment
from headrace.events.revisions import require_choice
from headrace.options.choices import MissingId, Mode, StrategyName
from headrace.options.declared import LOAD, USUAL, Named
from headrace.options.shape import STRATEGIES
from headrace.partitioning.choices import HashName, Scope
from headrace.reading.choices import CHUNK_ROWS
from headrace.reading.inputs import ReadOptions
from headrace.storage.sqlite.file_place import absolute

__all__ = [
    "DATABASE_VARIABLE",
    "DEFAULT_DATABASE",
    "DEFAULT_FILE",
    "DEFAULT_PROVIDER",
    "LoadOptions",
    "ParallelOptions",
    "cores",
    "database_url",
    "hash_key",
    "options_of",
    "table_from_inputs",
]


DATABASE_VARIABLE = "HEADRACE_DATABASE_URL"
KEY_VARIABLE = "HEADRACE_HASH_KEY"
DEFAULT_DATABASE = "sqlite:///headrace.db"
DEFAULT_FILE = "headrace.toml"  # what `headrace run` reads
DEFAULT_PROVIDER: str = USUAL["provider"]
# 64 Mi IDs of 16 bytes: a snapshot without a time column to bound it stops at 1 GiB of disk
DEFAULT_SNAPSHOT_BUDGET = 64 * 1024 * 1024
MOST_PARTITIONS = 4096
LEAST_MEMORY = 16 << 20

# What may stand behind a name before the part that names its format: events.csv.gz is the table "events".
_SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".geojson", ".parquet", ".pq", ".gz", ".zst"}


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ParallelOptions:
    """How parallel mode works, once it is decided that it does.

    `workers` processes (or tasks at a time of `executor`, an executor or ``dask://host:port``) carry out the strategy
    over `partitions` (``None``: as the strategy has it). `memory` bounds the bytes of all chunks on their way.
    `lock_timeout` and `task_timeout` are seconds; `locks` is the URL of a Redis that keeps the locks of the strategy
    ``locked``, ``None`` for the database's own.
    """

    strategy: StrategyName = USUAL["strategy"]
    workers: int = field(default_factory=cores)
    partitions: int | None = None
    memory: int = USUAL["memory"]
    lock_timeout: float = USUAL["lock_timeout"]
    task_timeout: float = USUAL["task_timeout"]
    locks: str | None = field(default=None, repr=False)
    executor: Executor | str | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigurationError(
                f"there is no strategy {self.strategy!r}", hint=f"choose one of: {', '.join(STRATEGIES)}"
            )
        if self.workers < 1:
            raise ConfigurationError(f"{self.workers} workers cannot load anything", hint="--workers 1 or more")
        if self.partitions is not None and not 1 <= self.partitions <= MOST_PARTITIONS:
            raise ConfigurationError(
                f"{self.partitions} partitions are impossible", hint=f"--partitions 1 to {MOST_PARTITIONS}"
            )
        if self.memory < LEAST_MEMORY:
            raise ConfigurationError(
                f"a memory of {self.memory >> 20} MiB is too small", hint=f"--memory {LEAST_MEMORY >> 20}MiB or more"
            )
        if self.lock_timeout <= 0 or self.task_timeout <= 0:
            raise ConfigurationError(
                "a timeout must be longer than 0 seconds", hint=f"--lock-timeout {LOAD['lock_timeout'].default}"
            )


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
    window: timedelta | None = USUAL["window"]
    snapshot_budget: int = DEFAULT_SNAPSHOT_BUDGET
    resume: bool = USUAL["resume"]
    timezone: str | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    mode: Mode | None = None
    parallel: ParallelOptions = field(default_factory=ParallelOptions)
    enrichment: Enrichment | None = None
    alerts: tuple[AlertRule, ...] = ()
    on_error: OnError = USUAL["on_error"]
    revisions: RevisionsName = USUAL["revisions"]
    version_column: str | None = None
    missing_id: MissingId | None = None
    prove: bool = USUAL["prove"]
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
        for name in ("on_error", "missing_id"):
            choices, value = LOAD[name].choices, getattr(self, name)
            if value is not None and value not in choices:
                raise ConfigurationError(
                    f"--{name.replace('_', '-')} cannot be {value!r}", hint=f"choose {' or '.join(choices)}"
                )
        require_choice(self.revisions, self.version_column, self.identity)
        require_updates(self.alerts, self.revisions)
        if self.read.chunk_rows < 1:
            raise ConfigurationError(
                f"a chunk of {self.read.chunk_rows} rows is impossible", hint=f"--chunk-rows {CHUNK_ROWS}"
            )


_PARALLEL = tuple(name for name, option in LOAD.items() if option.file == "parallel")
_READ = ("types", "select", "format", "timezone", "chunk_rows")


def options_of(named: Named) -> LoadOptions:
    """`LoadOptions` from what was said by name. Raises `ConfigurationError`."""
    for name in named:
        if name not in LOAD:
            near = get_close_matches(name, LOAD, 1)
            raise ConfigurationError(
                f"there is no option {name!r}",
                hint=f"did you mean {near[0]}?" if near else f"one of: {', '.join(LOAD)}",
            )
    said: dict[str, Any] = {
        name: LOAD[name].parsed(value) for name, value in named.items() if value is not None or name == "window"
    }
    read = {name: said.pop(name) for name in _READ if name in said}
    read["types"] = dict(read.get("types", {}))  # the caller's own may change later
    parallel = {name: said.pop(name) for name in _PARALLEL if name in said}
    identity, enrich = said.pop("id", None), said.pop("enrich", None)
    return LoadOptions(
        to=database_url(said.pop("to", None)),
        provider_named="provider" in said,
        identity=None if identity is None else tuple(identity),
        timezone=read.get("timezone"),
        read=ReadOptions(**read),
        parallel=ParallelOptions(**parallel),
        enrichment=None if enrich is None else Enrichment(enrich, said.get("on_error", USUAL["on_error"])),
        alerts=tuple(said.pop("alerts", ())),
        **said,
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
