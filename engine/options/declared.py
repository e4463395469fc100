"""Every option of a load, declared once: its name, type, default, help and checks, and where a user can give it.

A new option is a line here. The command line, ``headrace.toml`` with its JSON schema, the keywords of `headrace.load`
and `headrace.Engine`, and the tables of docs/reference.md are derived from it; a test adds one and finds it in all.

Types that are heavy to import stand in quotes: nobody needs them to show ``--help``. For the same reason this module
does not postpone the evaluation of its annotations.
"""

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from headrace.events.choices import OnError, RevisionsName
from headrace.options.choices import LogFormat, LogLevel, MissingId, Mode, Output, ProgressStyle, StrategyName
from headrace.options.option import ALERTS, FUNCTION, SIZE, SPAN, TEXTS, TYPES, WINDOW, Option, declared
from headrace.partitioning.choices import HashName, LogicalType, Scope
from headrace.reading.choices import CHUNK_ROWS, Format

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor
    from datetime import timedelta

    from headrace.events.alert_rule import AlertRule
    from headrace.events.enrich import Enrich

__all__ = ["COMMAND", "EVERY", "GROUPS", "LOAD", "USUAL", "CommandOptions", "Named"]

INPUT, IDENTITY, TARGET, PARALLEL = "Input", "Identity", "Target", "Parallel"
CODE, ALERT, REPORTS, LOGS = "Your code", "Alerts", "Reports", "Logs"
GROUPS = (INPUT, IDENTITY, TARGET, PARALLEL, CODE, ALERT, REPORTS, LOGS)

LOAD_ONLY, REPLAY = frozenset({"load"}), frozenset({"rejects replay"})
LOADS = LOAD_ONLY | {"profile"}
REREADS = LOADS | {"verify", "explain"}
NEW_EVENTS = LOADS | REPLAY
RUNS = LOAD_ONLY | {"run"}
DATABASE = REREADS | {
    "doctor",
    *(f"rejects {verb}" for verb in ("list", "show", "replay", "discard")),
    *(f"alerts {verb}" for verb in ("list", "deliver", "retry", "discard", "prune")),
    *(f"runs {verb}" for verb in ("list", "show")),
}
NOWHERE: frozenset[str] = frozenset()
EVERY = frozenset({"every command"})

_STORED = "as stored with the table; on a first load, "


class Named(TypedDict, total=False):
    """What `headrace.load` and `headrace.Engine` can be told, by name. ``None`` says nothing, apart from `window`."""

    to: Annotated[
        str | None,
        Option(
            TARGET,
            DATABASE,
            otherwise="`HEADRACE_DATABASE_URL`, then `sqlite:///headrace.db`",
            metavar="URL",
            first=True,
        ),
        "The database: `postgresql://…` or `sqlite:///file`. A password is safer in the environment variable.",
    ]
    table: Annotated[
        str | None,
        Option(
            TARGET,
            REREADS,
            "providers",
            otherwise="the first file's name; in `headrace.toml`, the provider's",
            example="fires",
            metavar="NAME",
            first=True,
        ),
        "The event table.",
    ]
    provider: Annotated[
        str | None,
        Option(IDENTITY, REREADS, default="default", metavar="NAME", first=True),
        "The named source of these events; a part of their identity. To be given for a table that holds only "
        "events of other providers.",
    ]
    id: Annotated[
        "Sequence[str] | None",
        Option(
            IDENTITY,
            LOADS,
            "providers",
            kind=TEXTS,
            otherwise=_STORED + "all columns",
            example=["id"],
            metavar="COL,COL",
            first=True,
        ),
        "The identity columns, on the command line separated by commas.",
    ]
    time: Annotated[
        str | None,
        Option(IDENTITY, LOADS, "providers", otherwise=_STORED + "none", example="time", metavar="COL", first=True),
        "The column of the event time.",
    ]
    missing_id: Annotated[
        MissingId | None,
        Option(IDENTITY, NEW_EVENTS, "providers", otherwise=_STORED + "`reject`"),
        "What becomes of a row whose identity columns are all empty: `reject` it, or keep it with all its columns "
        "as its identity.",
    ]
    hash: Annotated[
        HashName | None,
        Option(IDENTITY, LOADS, "providers", otherwise=_STORED + "`xxh3_128`"),
        "The hash of event IDs. `blake2b` is for producers that you do not trust (key: `HEADRACE_HASH_KEY`).",
    ]
    scope: Annotated[
        Scope | None,
        Option(IDENTITY, LOADS, "providers", otherwise=_STORED + "`provider`"),
        "Where duplicates are sought: among the events of one provider, or of all.",
    ]
    select: Annotated[
        str | None,
        Option(
            INPUT,
            REREADS | REPLAY,
            "providers",
            otherwise="all rows and columns",
            example="SELECT * FROM source WHERE mag > 1",
            metavar="SQL",
            first=True,
        ),
        "DuckDB SQL over the relation `source`, for example `SELECT id, time, mag FROM source WHERE mag > 1`. It "
        "is applied to one chunk at a time: an aggregate sees one chunk only.",
    ]
    types: Annotated[
        "Mapping[str, LogicalType] | None",
        Option(
            INPUT,
            REREADS,
            "providers",
            kind=TYPES,
            otherwise="inferred",
            example={"confidence": "string"},
            metavar="COL=TYPE",
            flag="--type",
            first=True,
        ),
        "Sets a column's type on the first load: `bool`, `integer`, `float`, `timestamp`, `date`, `decimal`, "
        "`string` or `bytes`.",
    ]
    format: Annotated[
        Format | None,
        Option(INPUT, REREADS, "providers", otherwise="by name, then by content"),
        "The format of the input.",
    ]
    timezone: Annotated[
        str | None,
        Option(INPUT, REREADS | REPLAY, "providers", otherwise=_STORED + "`UTC`", example="UTC", metavar="NAME"),
        "The time zone of timestamps without a zone, for example `Europe/Paris`.",
    ]
    chunk_rows: Annotated[
        int,
        Option(INPUT, LOADS, "providers", default=CHUNK_ROWS),
        "The rows in a chunk, which are committed together. The first chunk of a sequential run has 32,768 at most.",
    ]
    window: Annotated[
        "str | timedelta | None",
        Option(TARGET, LOADS, "providers", kind=WINDOW, default="30d"),
        "How far back existing IDs are fetched before the load: `30d`, `12h`, `2w`, or `all`.",
    ]
    resume: Annotated[
        bool,
        Option(TARGET, LOAD_ONLY, default=True),
        "Continue where a killed run of this input stopped.",
    ]
    prove: Annotated[
        bool,
        Option(TARGET, LOAD_ONLY, "providers", default=False),
        "At the end, look up every event of the input in the table. A missing event is loaded again, or named "
        "(exit code 4).",
    ]
    revisions: Annotated[
        RevisionsName,
        Option(TARGET, NEW_EVENTS, "providers", default="ignore"),
        "What becomes of an event that comes again with other values: `ignore` it, `report` it (it is kept as a "
        "reject), or let the newest version `update` the table.",
    ]
    version_column: Annotated[
        str | None,
        Option(TARGET, NEW_EVENTS, "providers", example="updated", metavar="COL"),
        "For `--revisions update`: the column that tells which of two versions is newer.",
    ]
    mode: Annotated[
        Mode | None,
        Option(
            PARALLEL,
            LOAD_ONLY,
            "providers",
            otherwise="by the flag `ENABLE_PARALLEL_CHUNK_PROCESSING`, then `sequential`",
            first=True,
        ),
        "Whether one process loads, or several.",
    ]
    workers: Annotated[
        int | None,
        Option(PARALLEL, LOADS, "parallel", otherwise="one for each core", example=2, first=True),
        "The processes of parallel mode.",
    ]
    strategy: Annotated[
        StrategyName,
        Option(PARALLEL, LOADS, "parallel", default="partitioned"),
        "How parallel mode stays safe: `partitioned` by the hash of the ID, `upsert` by the database's conflict "
        "resolution, `locked` by locks.",
    ]
    partitions: Annotated[
        int | None,
        Option(PARALLEL, LOADS, "parallel", otherwise="one for each worker, at least 8", example=2),
        "The partitions of the strategy `locked`: the hash of the ID splits each chunk's events into this number of "
        "slices, each under its own lock. 8 to 64 work best.",
    ]
    memory: Annotated[
        str | int,
        Option(PARALLEL, LOADS, "parallel", kind=SIZE, default="512MiB"),
        "The memory for all chunks in progress.",
    ]
    executor: Annotated[
        "Executor | str | None",
        Option(
            PARALLEL,
            LOADS,
            "parallel",
            otherwise="processes of its own",
            example="dask://scheduler:8786",
            metavar="URL",
            secret=True,
        ),
        "The workers of a Dask cluster: `dask://scheduler:8786` (extra `headrace[dask]`). In Python, also any "
        "`concurrent.futures.Executor`.",
    ]
    lock_timeout: Annotated[
        str | float,
        Option(PARALLEL, LOADS, "parallel", kind=SPAN, default="30s"),
        "How long the strategy `locked` waits for a lock.",
    ]
    task_timeout: Annotated[
        str | float,
        Option(PARALLEL, LOADS, "parallel", kind=SPAN, default="10m"),
        "A worker that takes longer for one task is replaced.",
    ]
    locks: Annotated[
        str | None,
        Option(
            PARALLEL,
            LOADS,
            "parallel",
            otherwise="the database's own locks",
            example="redis://locks:6379",
            metavar="URL",
            env="HEADRACE_LOCKS_URL",
            secret=True,
        ),
        "A Redis server that keeps the locks of the strategy `locked` (extra `headrace[redis]`). A password is "
        "safer in the environment variable.",
    ]
    enrich: Annotated[
        "Enrich | str | None",
        Option(CODE, NEW_EVENTS, "providers", kind=FUNCTION, example="geo:add_country"),
        "Your function that adds columns to new events. It gets them as a `pyarrow.RecordBatch` and returns the "
        "same rows.",
    ]
    on_error: Annotated[
        OnError,
        Option(CODE, NEW_EVENTS, "providers", default="fail"),
        "When your function or an alert rule fails: `fail` the run, or `reject` the rows that made it fail.",
    ]
    alerts: Annotated[
        "Sequence[AlertRule]",
        Option(ALERT, NOWHERE, "providers", kind=ALERTS, example=[{"name": "large", "where": "frp > 500"}]),
        "The alert rules. On the command line: `--alert`, `--alert-function` and `--alert-revisions`.",
    ]


class CommandOptions(TypedDict, total=False):
    """What a command can be told beside the options of a load: how it reports, logs and is observed."""

    alert: Annotated[
        "Sequence[str] | None",
        Option(ALERT, NEW_EVENTS, kind=TEXTS, metavar="NAME=SQL"),
        "A rule: each new event for which the SQL predicate holds raises an alert, for example `strong=mag >= 6`. "
        "`headrace alerts deliver` delivers the alerts.",
    ]
    alert_function: Annotated[
        "Sequence[str] | None",
        Option(ALERT, NEW_EVENTS, kind=TEXTS, metavar="NAME=MODULE:FUNCTION"),
        "A rule by your own function. It gets new events as a `pyarrow.RecordBatch` and returns a boolean for each.",
    ]
    alert_revisions: Annotated[
        "Sequence[str] | None",
        Option(ALERT, NEW_EVENTS, kind=TEXTS, otherwise="one alert for an event", metavar="NAME"),
        "With `--revisions update`: the rule of this name judges newer versions of an event too, and each version "
        "raises an alert of its own.",
    ]
    output: Annotated[
        Output,
        Option(REPORTS, EVERY, default="text", first=True),
        "The form of the result: `text`, or one `json` object.",
    ]
    progress: Annotated[
        ProgressStyle,
        Option(REPORTS, EVERY, default="auto"),
        "Progress on standard error, where rows are read. `auto` is a bar on a terminal, and nothing elsewhere.",
    ]
    report: Annotated[
        str | None,
        Option(REPORTS, LOADS, metavar="FILE"),
        "Write an HTML page about the run: stages, chunks, memory. The page fetches nothing.",
    ]
    trace: Annotated[
        str | None,
        Option(REPORTS, LOADS, metavar="FILE"),
        "Write the run's stages as a trace for Perfetto.",
    ]
    log_level: Annotated[
        LogLevel,
        Option(LOGS, EVERY, default="warning", env="HEADRACE_LOG_LEVEL"),
        "The least level that is logged. `info` logs each slice, sampled at high volume.",
    ]
    log_format: Annotated[
        LogFormat,
        Option(LOGS, EVERY, default="text", env="HEADRACE_LOG_FORMAT"),
        "The form of the logs on standard error: `text`, or one `json` object a line.",
    ]
    metrics: Annotated[
        str | None,
        Option(LOGS, RUNS | {"alerts deliver"}, "run", example=":9464", metavar="[HOST]:PORT", env="HEADRACE_METRICS"),
        "Serve metrics for Prometheus at this address, for example `:9464` (extra `headrace[metrics]`).",
    ]
    slow_provider: Annotated[
        str | float | None,
        Option(LOGS, RUNS, "run", kind=SPAN, otherwise="never", example="10m", env="HEADRACE_SLOW_PROVIDER"),
        "Warn of a run that takes longer than this.",
    ]
    slow_chunk: Annotated[
        str | float | None,
        Option(LOGS, RUNS, "run", kind=SPAN, otherwise="never", example="30s", env="HEADRACE_SLOW_CHUNK"),
        "Warn of a chunk or slice that takes longer than this in one stage.",
    ]
    slow_query: Annotated[
        str | float | None,
        Option(LOGS, RUNS, "run", kind=SPAN, otherwise="never", example="5s", env="HEADRACE_SLOW_QUERY"),
        "Warn of a database statement that takes longer than this.",
    ]


LOAD = declared(Named)
COMMAND = declared(CommandOptions)
USUAL: dict[str, Any] = {name: option.usual for name, option in {**LOAD, **COMMAND}.items()}
"""The default of each option, in its own type."""
