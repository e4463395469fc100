"""The command line: options, help and exit codes. What the commands do lies in `headrace.commands`.

Results go to stdout, progress and logs to stderr. Exit codes: 0 done · 1 failed, run again to resume · 2 usage,
configuration or contract · 3 done, with rejects · 4 verification found a difference · 130/143 interrupted, resumable.

`headrace.commands`, and with it DuckDB, Arrow and SQLAlchemy, is imported only by a command that runs: ``--help`` and a
mistyped option answer at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from headrace.alerts_cli import alerts_app
from headrace.cli_options import (
    AlertFunctions,
    AlertPredicates,
    AlertRevisions,
    ChunkRows,
    Config,
    EnrichName,
    ExecutorName,
    Format,
    Hash,
    Id,
    Inputs,
    LocksUrl,
    LockTimeout,
    MaybeInputs,
    Memory,
    Mode,
    OnError,
    Out,
    PageFile,
    Partitions,
    Progress,
    Provider,
    Resume,
    RevisionsOption,
    Scope,
    Select,
    Strategy,
    Table,
    TaskTimeout,
    Time,
    Timezone,
    To,
    TraceFile,
    Type,
    VersionColumn,
    Window,
    Workers,
    leave,
)
from headrace.errors import HeadraceError
from headrace.rejects_cli import rejects_app
from headrace.runs_cli import runs_app
from headrace.version import __version__
from headrace.watch_options import (
    LogFormatOption,
    LogLevelOption,
    MetricsOption,
    SlowChunk,
    SlowProvider,
    SlowQuery,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="headrace",
    help="Load events into PostgreSQL or SQLite, each exactly once.",
    epilog="Start with: headrace demo · headrace load events.csv · headrace load --help",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(rejects_app, name="rejects")
app.add_typer(runs_app, name="runs")
app.add_typer(alerts_app, name="alerts")


_SWITCH_SECONDS = 0.0005
# Looking for garbage among what imports make takes 50 ms of every start; reference counts free nearly all there is.
_RARELY = (50_000, 20, 100)


@app.command(epilog="Example: headrace load 'quakes/*.csv' --table quakes --id id --time time --to postgresql://db/geo")
def load(
    inputs: Inputs,
    to: To = None,
    table: Table = None,
    provider: Provider = "default",
    identity: Id = None,
    time: Time = None,
    select: Select = None,
    types: Type = None,
    window: Window = "30d",
    digest: Hash = None,
    scope: Scope = None,
    timezone: Timezone = None,
    format: Format = None,  # noqa: A002 - the option's name
    chunk_rows: ChunkRows = 131_072,
    resume: Resume = True,
    mode: Mode = None,
    strategy: Strategy = "partitioned",
    workers: Workers = None,
    partitions: Partitions = None,
    memory: Memory = "512MiB",
    executor: ExecutorName = None,
    lock_timeout: LockTimeout = "30s",
    task_timeout: TaskTimeout = "10m",
    locks: LocksUrl = None,
    enrich: EnrichName = None,
    alert: AlertPredicates = None,
    alert_function: AlertFunctions = None,
    alert_revisions: AlertRevisions = None,
    on_error: OnError = "fail",
    revisions: RevisionsOption = "ignore",
    version_column: VersionColumn = None,
    report: PageFile = None,
    trace: TraceFile = None,
    output: Out = "text",
    progress: Progress = "auto",
    metrics: MetricsOption = None,
    log_format: LogFormatOption = "text",
    log_level: LogLevelOption = "warning",
    slow_provider: SlowProvider = None,
    slow_chunk: SlowChunk = None,
    slow_query: SlowQuery = None,
) -> None:
    """Load events, each exactly once; what is there already is counted, not written.

    A run that was killed goes on where it stopped when the same command is given again. Rows that cannot be loaded are
    kept as rejects with file, line and reason (exit code 3), and the rest is loaded.
    """
    if mode == "parallel" and executor is None:
        from headrace.forking import send_ahead

        send_ahead()  # it imports what workers need while this process imports what it needs itself
    from headrace import commands

    options = commands.options(
        to=to,
        table=table,
        provider=provider,
        identity=identity,
        time=time,
        select=select,
        types=types,
        window=window,
        hash=digest,
        scope=scope,
        timezone=timezone,
        format=format,
        chunk_rows=chunk_rows,
        resume=resume,
        mode=mode,
        strategy=strategy,
        workers=workers,
        partitions=partitions,
        memory=memory,
        executor=executor,
        lock_timeout=lock_timeout,
        task_timeout=task_timeout,
        locks=locks,
        enrich=enrich,
        alerts=alert,
        alert_functions=alert_function,
        alert_revisions=alert_revisions,
        on_error=on_error,
        revisions=revisions,
        version_column=version_column,
    )
    watching = commands.Watching(metrics, log_format, log_level, slow_provider, slow_chunk, slow_query)
    leave(commands.load(options, inputs, output, progress, watching, page=report, trace=trace))


@app.command(epilog="Example: headrace run --config headrace.toml --every 5m")
def run(
    config: Config = "headrace.toml",
    providers: Annotated[
        list[str] | None, typer.Option("--provider", metavar="NAME", help="Only this one. Repeatable.")
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="5m", help="Again and again, so often. Default: as the file says.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="One round, whatever the file says.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Poll also what is not due, inactive ones apart.")] = False,
    reread: Annotated[
        bool, typer.Option("--reread", help="Load also what has not changed since the last poll.")
    ] = False,
    output: Out = "text",
    metrics: MetricsOption = None,
    log_format: LogFormatOption = "text",
    log_level: LogLevelOption = "warning",
    slow_provider: SlowProvider = None,
    slow_chunk: SlowChunk = None,
    slow_query: SlowQuery = None,
) -> None:
    """Poll the providers of a configuration file that are due, and load what they deliver, each event exactly once.

    A provider that fails does not stop the others, and is tried again later. Several hosts may run the same file: no
    provider is polled by two at a time. SIGTERM ends it after the chunk in hand.
    """
    from headrace import commands_run

    watching = commands_run.Watching(metrics, log_format, log_level, slow_provider, slow_chunk, slow_query)
    wanted = commands_run.Wanted(tuple(providers or []), force=force, reread=reread)
    leave(commands_run.run(config, wanted, every, watching, once=once, output=output))


@app.command(
    epilog="Example: headrace profile 'backfill/*.parquet' --id key,at --time at --to postgresql://db/geo --check"
)
def profile(
    inputs: Inputs,
    to: To = None,
    table: Table = None,
    provider: Provider = "default",
    identity: Id = None,
    time: Time = None,
    select: Select = None,
    types: Type = None,
    window: Window = "30d",
    digest: Hash = None,
    scope: Scope = None,
    timezone: Timezone = None,
    format: Format = None,  # noqa: A002 - the option's name
    chunk_rows: ChunkRows = 131_072,
    sample: Annotated[
        int, typer.Option("--sample", min=0, metavar="ROWS", help="Rows that are tried, rounded up to chunks; 0: all.")
    ] = 500_000,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Load the sample into the real table, not only into a trial's.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Then load everything in both ways in a trial, and compare.")
    ] = False,
    strategy: Strategy = "partitioned",
    workers: Workers = None,
    partitions: Partitions = None,
    memory: Memory = "512MiB",
    executor: ExecutorName = None,
    lock_timeout: LockTimeout = "30s",
    task_timeout: TaskTimeout = "10m",
    locks: LocksUrl = None,
    enrich: EnrichName = None,
    alert: AlertPredicates = None,
    alert_function: AlertFunctions = None,
    alert_revisions: AlertRevisions = None,
    on_error: OnError = "fail",
    revisions: RevisionsOption = "ignore",
    version_column: VersionColumn = None,
    report: PageFile = None,
    output: Out = "text",
) -> None:
    """Try a load on a sample, both ways, and say where its time goes and whether parallel mode would pay.

    Nothing is written to the real table: the trial has a schema of its own (SQLite: a file), which is dropped.
    Functions given to --enrich and --alert-function are really called.
    """
    from headrace import commands_profile
    from headrace.commands import options as options_from
    from headrace.forking import send_ahead

    if executor is None:
        send_ahead()
    options = options_from(
        to=to,
        table=table,
        provider=provider,
        identity=identity,
        time=time,
        select=select,
        types=types,
        window=window,
        hash=digest,
        scope=scope,
        timezone=timezone,
        format=format,
        chunk_rows=chunk_rows,
        strategy=strategy,
        workers=workers,
        partitions=partitions,
        memory=memory,
        executor=executor,
        lock_timeout=lock_timeout,
        task_timeout=task_timeout,
        locks=locks,
        enrich=enrich,
        alerts=alert,
        alert_functions=alert_function,
        alert_revisions=alert_revisions,
        on_error=on_error,
        revisions=revisions,
        version_column=version_column,
    )
    how = commands_profile.How(sample, workers, in_place, check)
    leave(commands_profile.profile(options, inputs, how, output, page=report))


@app.command(epilog="Example: headrace verify 'quakes/*.csv' --table quakes --to postgresql://db/geo")
def verify(
    inputs: MaybeInputs = None,
    to: To = None,
    table: Table = None,
    provider: Provider = "default",
    select: Select = None,
    types: Type = None,
    timezone: Timezone = None,
    format: Format = None,  # noqa: A002 - the option's name
    limit: Annotated[int, typer.Option("--limit", min=0, help="Events of each kind that are named.")] = 10,
    receipt: Annotated[
        str | None, typer.Option("--receipt", metavar="FILE", help="Write what was found as JSON, to be kept.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="FILE", help="Compare with such a file; the inputs may then be left out."),
    ] = None,
    output: Out = "text",
    progress: Progress = "auto",
) -> None:
    """Read the inputs again and say whether exactly their events are in the table.

    The IDs are computed anew, under the contract stored with the table; nothing is written to the database. Exit code 4
    if events are missing, unexpected or duplicated, or if something is not as --against says.
    """
    from headrace import commands

    options = commands.options(
        to=to, table=table, provider=provider, select=select, types=types, timezone=timezone, format=format
    )
    leave(commands.verify(options, inputs or [], output, progress, limit=limit, receipt=receipt, against=against))


@app.command(epilog="Example: headrace explain 0c97a3b5-3e1f-8a3c-9b1d-2f6f0f2b7c11 --table quakes")
def explain(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's UUID.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--in", metavar="INPUT", help="Look for it in this input too, row by row. Repeatable."),
    ] = None,
    to: To = None,
    table: Table = None,
    provider: Provider = "default",
    select: Select = None,
    types: Type = None,
    timezone: Timezone = None,
    format: Format = None,  # noqa: A002 - the option's name
    output: Out = "text",
) -> None:
    """Tell an event's story: who brought it, who repeated it and when; or why it is not in the table.

    The ledger knows which rows a run read, not which of them were this event: with --in the inputs are read again, and
    every row that is the event is named, with the runs that had it. Exit code 1 if the event is in no table.
    """
    from headrace import commands

    options = commands.options(
        to=to, table=table, provider=provider, select=select, types=types, timezone=timezone, format=format
    )
    leave(commands.explain(options, event_id, inputs or [], output))


@app.command(epilog="Example: headrace doctor --config headrace.toml")
def doctor(
    to: To = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Check this file of `headrace run` too.")
    ] = None,
    output: Out = "text",
) -> None:
    """Check the database and every table, and say what to do about what is wrong.

    With a configuration file also its keys, its providers' sources, contracts and privileges, the clock and the flag.
    """
    from headrace import commands

    leave(commands.doctor(to, config, output))


@app.command(epilog="Example: headrace demo --folder /var/tmp/headrace-demo")
def demo(
    folder: Annotated[str, typer.Option("--folder", help="Where extracts and database go.")] = "headrace-demo",
    progress: Progress = "auto",
) -> None:
    """Load a summer of real flights twice over, see nothing doubled, and verify. Needs headrace[demo]."""
    from headrace import commands

    leave(commands.demo(folder, progress))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"headrace {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point ``headrace``: runs a command, turns errors into messages and exit codes, ends this process."""
    # A thread that waits for the interpreter while another hashes gets it after this long, by default 5 ms. A fresh
    # load of 1 M rows takes up to a tenth less; the process is ours, so we may set it.
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(*_RARELY)
    _end(_run())


def _run() -> int:
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of our output went away (`headrace runs list | head`): that is no failure of ours
        return 0
    return 0


def _end(code: int) -> NoReturn:
    """End without taking apart what was imported, which takes Python 0.2 s; all that was opened is closed by now."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
