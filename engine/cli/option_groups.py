"""Groups of options that several commands share: a command takes a group as one parameter, and hands it on whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

from headrace.cli.options import (
    AlertFunctions,
    AlertPredicates,
    AlertRevisions,
    ChunkRows,
    EnrichName,
    ExecutorName,
    Format,
    Hash,
    Id,
    LocksUrl,
    LockTimeout,
    Memory,
    MissingId,
    OnError,
    Partitions,
    Provider,
    RevisionsOption,
    Scope,
    Select,
    Strategy,
    Table,
    TaskTimeout,
    Time,
    Timezone,
    To,
    Type,
    VersionColumn,
    Window,
    Workers,
)
from headrace.cli.watch_options import (
    LogFormatOption,
    LogLevelOption,
    MetricsOption,
    SlowChunk,
    SlowProvider,
    SlowQuery,
)

__all__ = ["InputGroup", "NewEventsGroup", "ParallelGroup", "RereadGroup", "WatchingGroup", "spread"]


@dataclass(frozen=True)
class InputGroup:
    """What the input is and what makes an event the same event, named as `headrace.cli.load.options` has it."""

    to: To = None
    table: Table = None
    provider: Provider = None
    identity: Id = None
    missing_id: MissingId = None
    time: Time = None
    select: Select = None
    types: Type = None
    window: Window = "30d"
    hash: Hash = None
    scope: Scope = None
    timezone: Timezone = None
    format: Format = None
    chunk_rows: ChunkRows = 131_072


@dataclass(frozen=True)
class RereadGroup:
    """What has to be said of an input that was loaded before: its contract is stored."""

    to: To = None
    table: Table = None
    provider: Provider = None
    select: Select = None
    types: Type = None
    timezone: Timezone = None
    format: Format = None


@dataclass(frozen=True)
class ParallelGroup:
    """How parallel mode goes about it."""

    strategy: Strategy = "partitioned"
    workers: Workers = None
    partitions: Partitions = None
    memory: Memory = "512MiB"
    executor: ExecutorName = None
    lock_timeout: LockTimeout = "30s"
    task_timeout: TaskTimeout = "10m"
    locks: LocksUrl = None


@dataclass(frozen=True)
class NewEventsGroup:
    """What is done with new events, and with those that come again otherwise."""

    enrich: EnrichName = None
    alerts: AlertPredicates = None
    alert_functions: AlertFunctions = None
    alert_revisions: AlertRevisions = None
    on_error: OnError = "fail"
    revisions: RevisionsOption = "ignore"
    version_column: VersionColumn = None


@dataclass(frozen=True)
class WatchingGroup:
    """How it is watched, named as `headrace.observability.command.Watching` has it."""

    metrics: MetricsOption = None
    log_format: LogFormatOption = "text"
    log_level: LogLevelOption = "warning"
    slow_provider: SlowProvider = None
    slow_chunk: SlowChunk = None
    slow_query: SlowQuery = None


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer reads it: the options of its groups stand in its signature, in the place of their group."""
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(command, eval_str=True).parameters.values():
        if is_dataclass(one.annotation):
            groups[one.name] = one.annotation
            parameters += _options_of(one.annotation)
        else:
            parameters.append(one)

    @wraps(command)
    def gathering(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    gathering.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(gathering)["__signature__"] = inspect.Signature(parameters)
    return gathering


def _options_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]
