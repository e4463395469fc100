"""The options that several commands share, and how a command ends."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

__all__ = [
    "AlertFunctions",
    "AlertPredicates",
    "AlertRevisions",
    "ChunkRows",
    "Config",
    "EnrichName",
    "ExecutorName",
    "Format",
    "Hash",
    "HashName",
    "Id",
    "Inputs",
    "LockTimeout",
    "LocksUrl",
    "MaybeInputs",
    "Memory",
    "MissingId",
    "MissingIdName",
    "Mode",
    "ModeName",
    "OnError",
    "OnErrorName",
    "Out",
    "Output",
    "PageFile",
    "Partitions",
    "Progress",
    "ProgressName",
    "Prove",
    "Provider",
    "RejectIds",
    "Resume",
    "RevisionsName",
    "RevisionsOption",
    "RunId",
    "Scope",
    "ScopeName",
    "Select",
    "Strategy",
    "StrategyName",
    "Table",
    "TaskTimeout",
    "Time",
    "Timezone",
    "To",
    "TraceFile",
    "Type",
    "VersionColumn",
    "Window",
    "Workers",
    "leave",
]

Output = Literal["text", "json"]
ProgressName = Literal["auto", "plain", "json", "none"]
HashName = Literal["xxh3_128", "blake2b"]
ScopeName = Literal["provider", "global"]
ModeName = Literal["sequential", "parallel"]
StrategyName = Literal["partitioned", "upsert", "locked"]
OnErrorName = Literal["fail", "reject"]
RevisionsName = Literal["ignore", "report", "update"]
MissingIdName = Literal["reject", "keep-whole-row"]

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders, globs, - for standard input, http(s):// or s3:// URLs. CSV, TSV, JSON, JSON lines, "
        "GeoJSON and Parquet, also as .gz and .zst.",
    ),
]
MaybeInputs = Annotated[
    list[str] | None, typer.Argument(metavar="[INPUT...]", help="What was loaded, named as for `headrace load`.")
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL",
        help="The database: postgresql://… or sqlite:///file. A password is better kept in the environment: "
        "HEADRACE_DATABASE_URL. Default: sqlite:///headrace.db",
    ),
]
Table = Annotated[str | None, typer.Option("--table", metavar="NAME", help="Default: the first file's name.")]
Provider = Annotated[
    str | None,
    typer.Option("--provider", metavar="NAME", help="The named source of these events. Default: default"),
]
Id = Annotated[
    list[str] | None,
    typer.Option(
        "--id",
        metavar="COL,COL",
        help="Identity columns, also one --id for each. Default: as stored; on a first load, all.",
    ),
]
MissingId = Annotated[
    MissingIdName | None,
    typer.Option(
        "--missing-id",
        help="A row whose identity columns are all empty: reject it, or keep it, its whole row being its identity. "
        "Default: as stored; on a first load, reject.",
    ),
]
Time = Annotated[str | None, typer.Option("--time", metavar="COL", help="The event time's column.")]
Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        metavar="SQL",
        help='Normalise the rows, for example "SELECT id, time, mag FROM source WHERE mag > 1". Applied chunk by '
        "chunk, so no aggregates over the whole input.",
    ),
]
Type = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="COL=TYPE",
        help="Pin a column's type on the first load: bool integer float timestamp date decimal string bytes. "
        "Repeatable.",
    ),
]
Window = Annotated[
    str,
    typer.Option("--window", metavar="30d", help="How far back existing IDs are fetched ahead: 30d, 12h, 2w, all."),
]
Hash = Annotated[
    HashName | None,
    typer.Option("--hash", help="blake2b for untrusted producers (key: HEADRACE_HASH_KEY). Default: xxh3_128"),
]
Scope = Annotated[
    ScopeName | None,
    typer.Option("--scope", help="Seek duplicates within a provider, or among all. Default: provider"),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        "--timezone",
        metavar="NAME",
        help="How timestamps without a zone are read, e.g. Europe/Paris. Default: as stored; on a first load, UTC.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="NAME", help="csv, tsv, json, jsonl, geojson or parquet, if the name does not tell."
    ),
]
ChunkRows = Annotated[int, typer.Option("--chunk-rows", min=1, help="Rows in a chunk, committed together.")]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Go on where a killed run of this input stopped.")]
Prove = Annotated[
    bool,
    typer.Option(
        "--prove/--no-prove",
        help="At the end, look every event of the input up in the table; what is missing is brought again, or named.",
    ),
]
Out = Annotated[Output, typer.Option("--output", help="text, or json: one object.")]
Progress = Annotated[ProgressName, typer.Option("--progress", help="On stderr; auto is off when that is no terminal.")]
Mode = Annotated[
    ModeName | None,
    typer.Option("--mode", help="Default: as ENABLE_PARALLEL_CHUNK_PROCESSING says, or sequential."),
]
Strategy = Annotated[
    StrategyName,
    typer.Option(
        "--strategy",
        help="How parallel mode stays safe: partitioned by the hash of the ID, upsert by the database's conflict "
        "resolution, locked by advisory locks.",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes of parallel mode. Default: one for each core.")
]
Partitions = Annotated[
    int | None, typer.Option("--partitions", min=1, help="Default: one for each worker; locked: 8 or more.")
]
Memory = Annotated[
    str, typer.Option("--memory", metavar="SIZE", help="For all chunks on their way in parallel mode: 512MiB, 2GiB.")
]
ExecutorName = Annotated[
    str | None,
    typer.Option("--executor", metavar="URL", help="Workers elsewhere: dask://scheduler:8786 (extra headrace[dask])."),
]
LockTimeout = Annotated[
    str, typer.Option("--lock-timeout", metavar="30s", help="How long the strategy locked waits for a lock.")
]
TaskTimeout = Annotated[
    str, typer.Option("--task-timeout", metavar="10m", help="A worker that takes longer for one task is replaced.")
]
LocksUrl = Annotated[
    str | None,
    typer.Option(
        "--locks",
        metavar="URL",
        envvar="HEADRACE_LOCKS_URL",
        show_envvar=False,
        help="A Redis that keeps the locks (extra headrace[redis]); a password is better kept in HEADRACE_LOCKS_URL. "
        "Default: the database's own.",
    ),
]
EnrichName = Annotated[
    str | None,
    typer.Option(
        "--enrich",
        metavar="MODULE:FUNCTION",
        help="Your function that adds columns: gets new events as a pyarrow.RecordBatch, returns the same rows.",
    ),
]
AlertPredicates = Annotated[
    list[str] | None,
    typer.Option(
        "--alert",
        metavar="NAME=SQL",
        help="New events for which this holds raise an alert, for example 'strong=mag >= 6'. Repeatable. "
        "See headrace alerts deliver.",
    ),
]
AlertFunctions = Annotated[
    list[str] | None,
    typer.Option(
        "--alert-function",
        metavar="NAME=MODULE:FUNCTION",
        help="The same by your own function: gets new events as a pyarrow.RecordBatch, returns a boolean for each. "
        "Repeatable.",
    ),
]
AlertRevisions = Annotated[
    list[str] | None,
    typer.Option(
        "--alert-revisions",
        metavar="NAME",
        help="With --revisions update: this rule is asked about newer versions of an event too, and each raises an "
        "alert of its own. Default: one alert for an event. Repeatable.",
    ),
]
OnError = Annotated[
    OnErrorName,
    typer.Option(
        "--on-error", help="When --enrich or an alert rule fails: fail the run, or keep those rows as rejects."
    ),
]
RevisionsOption = Annotated[
    RevisionsName,
    typer.Option(
        "--revisions",
        help="When an event comes again with another payload: ignore it, report it (kept in the rejects), or let the "
        "newest by --version-column update the table.",
    ),
]
VersionColumn = Annotated[
    str | None, typer.Option("--version-column", metavar="COL", help="What says which row is newer, e.g. updated.")
]
Config = Annotated[str, typer.Option("--config", metavar="FILE", help="The file that describes the providers.")]
PageFile = Annotated[
    str | None,
    typer.Option("--report", metavar="FILE", help="Write an HTML page about the run: stages, chunks, memory. Offline."),
]
TraceFile = Annotated[
    str | None, typer.Option("--trace", metavar="FILE", help="Write the run's stages as a trace that Perfetto opens.")
]
RunId = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Of this run only (a prefix will do).")]
RejectIds = Annotated[list[int] | None, typer.Argument(metavar="[ID...]", help="Rejects by number.")]


def leave(code: int) -> None:
    """End the command with this exit code, if it is not 0."""
    if code:
        raise typer.Exit(code)
