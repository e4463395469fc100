"""What the user asked for: options with their defaults, environment and validation.

`LoadOptions` is the one description of a load; the command line and the Python API both build it, so a default lives
in exactly one place. Precedence: an explicit argument, then the environment, then the default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from headrace.errors import ConfigurationError
from headrace.partitioning.contract import HashName, LogicalType, Scope
from headrace.source import ReadOptions

__all__ = [
    "DATABASE_VARIABLE",
    "DEFAULT_DATABASE",
    "DEFAULT_PROVIDER",
    "LoadOptions",
    "database_url",
    "hash_key",
    "parse_types",
    "parse_window",
    "table_from_inputs",
]

DATABASE_VARIABLE = "HEADRACE_DATABASE_URL"
KEY_VARIABLE = "HEADRACE_HASH_KEY"
DEFAULT_DATABASE = "sqlite:///headrace.db"
DEFAULT_PROVIDER = "default"
DEFAULT_WINDOW = timedelta(days=30)
# 64 Mi IDs of 16 bytes: a snapshot without a time column to bound it stops at 1 GiB of disk
DEFAULT_SNAPSHOT_BUDGET = 64 * 1024 * 1024

_WINDOW = re.compile(r"(\d+)\s*([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# What may stand behind a name before the part that names its format: events.csv.gz is the table "events".
_SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".geojson", ".parquet", ".pq", ".gz", ".zst"}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Everything a load can be told. `identity`, `time`, `hash` and `scope` are ``None`` where the user left them to
    the stored contract (or, on a first load, to the defaults: all columns, no time column, xxh3_128, provider).

    `window` is how far back the snapshot reaches; ``None`` is all of the table. `snapshot_budget` is the number of IDs
    a snapshot without time bounds may hold. `timezone` is what the user said, ``None`` for the stored contract's;
    `read.timezone` is what counts.
    """

    to: str = DEFAULT_DATABASE
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

    def __post_init__(self) -> None:
        if not self.provider:
            raise ConfigurationError("the provider's name is empty", hint="give --provider a name, or leave it out")
        if self.identity is not None and not self.identity:
            raise ConfigurationError("no identity column was named", hint="for example --id latitude,longitude,time")
        if self.read.chunk_rows < 1:
            raise ConfigurationError(
                f"a chunk of {self.read.chunk_rows} rows is impossible", hint="--chunk-rows 131072"
            )


def database_url(explicit: str | None) -> str:
    """The database to write to: the argument, then ``HEADRACE_DATABASE_URL``, then a SQLite file in this folder."""
    return explicit or os.environ.get(DATABASE_VARIABLE) or DEFAULT_DATABASE


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
        raise ConfigurationError(f"the window {text!r} is not a time span", hint="for example 30d, 12h, 2w or all")
    try:
        return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        raise ConfigurationError(f"the window {text!r} is too long", hint="use --window all") from None


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


Output = Literal["text", "json"]
