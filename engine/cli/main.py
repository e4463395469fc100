"""The command line: options, help and exit codes. What the commands do lies in `headrace.cli.load` and beside it.

Results go to stdout, progress and logs to stderr. Exit codes: 0 done · 1 failed, run again to resume · 2 usage,
configuration or contract · 3 done, with rejects · 4 verification found a difference · 130/143 interrupted, resumable.

What a command needs, Arrow and SQLAlchemy among it, is imported only when it runs: ``--help`` and a mistyped option
answer at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from headrace.cli.alerts_options import alerts_app
from headrace.cli.allocators import keep_little
from headrace.cli.option_groups import InputGroup, NewEventsGroup, ParallelGroup, RereadGroup, WatchingGroup, spread
from headrace.cli.options import (
    Config,
    Inputs,
    MaybeInputs,
    Mode,
    Out,
    PageFile,
    Progress,
    Prove,
    Resume,
    To,
    TraceFile,
    leave,
)
from headrace.cli.profile_options import profile
from headrace.cli.rejects_options import rejects_app
from headrace.cli.runs_options import runs_app
from headrace.errors import HeadraceError
from headrace.version import __version__

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
@spread
def load(
    inputs: Inputs,
    *,
    description: InputGroup,
    resume: Resume = True,
    prove: Prove = False,
    mode: Mode = None,
    parallel: ParallelGroup,
    new_events: NewEventsGroup,
    report: PageFile = None,
    trace: TraceFile = None,
    output: Out = "text",
    progress: Progress = "auto",
    watching: WatchingGroup,
) -> None:
    """Load events, each exactly once; what is there already is counted, not written.

    A run that was killed goes on where it stopped when the same command is given again. Rows that cannot be loaded are
    kept as rejects with file, line and reason (exit code 3), and the rest is loaded.
    """
    if mode == "parallel" and parallel.executor is None:
        from headrace.execution.fork_server import send_ahead

        send_ahead()  # it imports what workers need while this process imports what it needs itself
    from headrace.cli import load

    how = vars(description) | vars(parallel) | vars(new_events)
    wanted = load.options(**how, resume=resume, prove=prove, mode=mode)
    watched = load.Watching(**vars(watching))
    leave(load.load(wanted, inputs, output, progress, watched, page=report, trace=trace))


@app.command(epilog="Example: headrace run --config headrace.toml --every 5m")
@spread
def run(
    *,
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
    watching: WatchingGroup,
) -> None:
    """Poll the providers of a configuration file that are due, and load what they deliver, each event exactly once.

    A provider that fails does not stop the others, and is tried again later. Several hosts may run the same file: no
    provider is polled by two at a time. SIGTERM ends it after the chunk in hand.
    """
    from headrace.cli import run

    watched = run.Watching(**vars(watching))
    wanted = run.Wanted(tuple(providers or []), force=force, reread=reread)
    leave(run.run(config, wanted, every, watched, once=once, output=output))


app.command(
    epilog="Example: headrace profile 'backfill/*.parquet' --id key,at --time at --to postgresql://db/geo --check"
)(profile)


@app.command(epilog="Example: headrace verify 'quakes/*.csv' --table quakes --to postgresql://db/geo")
@spread
def verify(
    inputs: MaybeInputs = None,
    *,
    description: RereadGroup,
    values: Annotated[
        bool,
        typer.Option("--values/--ids-only", help="Compare every event's values with its row too, or its ID alone."),
    ] = True,
    version_column: Annotated[
        str | None,
        typer.Option(
            "--version-column",
            metavar="COLUMN",
            help="Of several rows of an event the newest by this counts. Default: as the ledger says it was loaded.",
        ),
    ] = None,
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
    """Read the inputs again and say whether exactly their events are in the table, with the inputs' values.

    The IDs are computed anew, under the contract stored with the table; nothing is written to the database. Exit code 4
    if events are missing, unexpected, duplicated or changed, or if something is not as --against says.
    """
    from headrace.cli import verify as command
    from headrace.cli.load import options

    wanted = options(
        **vars(description),
        revisions="ignore" if version_column is None else "update",
        version_column=version_column,
    )
    files = command.StatementFiles(receipt, against)
    leave(command.verify(wanted, inputs or [], output, progress, files, limit=limit, values=values))


@app.command(epilog="Example: headrace explain 0c97a3b5-3e1f-8a3c-9b1d-2f6f0f2b7c11 --table quakes")
@spread
def explain(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's UUID.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--in", metavar="INPUT", help="Look for it in this input too, row by row. Repeatable."),
    ] = None,
    *,
    description: RereadGroup,
    output: Out = "text",
) -> None:
    """Tell an event's story: who brought it, who repeated it and when; or why it is not in the table.

    The ledger knows which rows a run read, not which of them were this event: with --in the inputs are read again, and
    every row that is the event is named, with the runs that had it. Exit code 1 if the event is in no table.
    """
    from headrace.cli import explain as command
    from headrace.cli.load import options

    wanted = options(**vars(description))
    leave(command.explain(wanted, event_id, inputs or [], output))


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
    from headrace.cli import doctor as command

    leave(command.doctor(to, config, output))


@app.command(epilog="Example: headrace demo --folder /var/tmp/headrace-demo")
def demo(
    folder: Annotated[str, typer.Option("--folder", help="Where extracts and database go.")] = "headrace-demo",
    progress: Progress = "auto",
) -> None:
    """Load a summer of real flights twice over, see nothing doubled, and verify. Needs headrace[demo]."""
    from headrace.cli.demo import run_demo
    from headrace.observability.progress import progress_for

    run_demo(Path(folder), print, progress_for(progress))
    leave(0)


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
    keep_little()
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
