"""The command line: options, help and exit codes. What the commands do lies in `headrace.cli.load` and beside it.

Results go to stdout, progress and logs to stderr. Exit codes: 0 done · 1 failed, run again to resume · 2 usage,
configuration or contract · 3 done, with rejects · 4 verification found a difference · 130/143 interrupted, resumable.

What a command needs, Arrow and SQLAlchemy among it, is imported only when it runs: ``--help`` and a mistyped option
answer at once.
"""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer

from headrace.cli.alerts_options import alerts_app
from headrace.cli.options import Config, Inputs, MaybeInputs, command, leave
from headrace.cli.process import run_in_own_process
from headrace.cli.rejects_options import rejects_app
from headrace.cli.runs_options import runs_app
from headrace.options.choices import Output, ProgressStyle
from headrace.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="headrace",
    help="Load events into PostgreSQL or SQLite, each exactly once.",
    epilog="Start with: headrace demo · headrace load events.csv · headrace load --help",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@command(app, "load", example="load 'quakes/*.csv' --table quakes --id id --time time --to postgresql://db/geo")
def load(inputs: Inputs, **told: Any) -> None:
    """Load events, each exactly once; an event that is already loaded is counted, not written.

    When a run was killed, give the same command again: it continues where the run stopped. Rows that cannot be loaded
    are kept as rejects with file, line and reason (exit code 3), and the rest is loaded.
    """
    if told["mode"] == "parallel" and told["executor"] is None:
        from headrace.execution.fork_server import send_ahead

        send_ahead()  # it imports what workers need while this process imports what it needs itself
    from headrace.cli import load

    leave(load.load(inputs, told))


@command(app, "run", example="run --config headrace.toml --every 5m")
def run(
    *,
    config: Config = None,
    providers: Annotated[
        list[str] | None, typer.Option("--provider", metavar="NAME", help="Only this provider. Repeatable.")
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="SPAN", help="Poll every 5m, for example. Default: as the file says."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Poll one round, whatever the file says.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Poll also the providers that are not due. Inactive ones are left out.")
    ] = False,
    reread: Annotated[
        bool, typer.Option("--reread", help="Load also a delivery that has not changed since the last poll.")
    ] = False,
    **told: Any,
) -> None:
    """Poll the providers of a configuration file that are due, and load what they deliver, each event exactly once.

    A provider that fails is polled again later; the others are polled as usual. Several hosts may run the same file: no
    provider is polled by two at a time. SIGTERM ends the command after the current chunk.
    """
    from headrace.cli import run

    leave(run.run(config, providers or [], told, every=every, once=once, force=force, reread=reread))


@command(app, "profile", example="profile 'backfill/*.parquet' --id key,at --time at --to postgresql://db/geo --check")
def profile(
    inputs: MaybeInputs = None,
    *,
    sample: Annotated[
        int, typer.Option("--sample", min=0, metavar="ROWS", help="Rows that are tried, rounded up to chunks; 0: all.")
    ] = 500_000,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Load the sample into the real table, not only into a trial's.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Then load everything in both ways in a trial, and compare.")
    ] = False,
    history: Annotated[
        bool,
        typer.Option("--history", help="Show the last loads of `headrace run`. INPUT: providers by name."),
    ] = False,
    config: Config = None,
    **told: Any,
) -> None:
    """Try a load on a sample, both ways, and say where its time goes and whether parallel mode would pay.

    Nothing is written to the real table: the trial has a schema of its own (SQLite: a file), which is dropped.
    Functions given to --enrich and --alert-function are really called.
    With --history nothing is tried: the command shows whether a provider of `headrace run` (--config) has grown into
    parallel mode.
    """
    if history:
        from headrace.cli import profile

        leave(profile.history(told["to"], config, inputs or [], told["output"]))
        return
    from headrace.cli import profile
    from headrace.execution.fork_server import send_ahead

    if told["executor"] is None:
        send_ahead()
    leave(profile.profile(inputs or [], told, rows=sample, in_place=in_place, check=check))


@command(app, "verify", example="verify 'quakes/*.csv' --table quakes --to postgresql://db/geo")
def verify(
    inputs: MaybeInputs = None,
    *,
    values: Annotated[
        bool,
        typer.Option("--values/--ids-only", help="Compare every event's values with its row too, or its ID alone."),
    ] = True,
    version_column: Annotated[
        str | None,
        typer.Option(
            "--version-column",
            metavar="COL",
            help="Of several rows of an event the newest by this column counts. Default: as the ledger says.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="Name at most this many events of each kind.")
    ] = 10,
    receipt: Annotated[
        str | None, typer.Option("--receipt", metavar="FILE", help="Write the result as JSON, to keep it.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="FILE", help="Compare with such a file; the inputs may then be left out."),
    ] = None,
    **told: Any,
) -> None:
    """Read the inputs again and say whether exactly their events are in the table, with the inputs' values.

    The IDs are computed anew, under the contract stored with the table; nothing is written to the database. Exit code 4
    if events are missing, unexpected, duplicated or changed, or if the table differs from the statement of --against.
    """
    from headrace.cli import verify

    if version_column is not None:
        told |= {"revisions": "update", "version_column": version_column}
    leave(verify.verify(inputs or [], told, limit=limit, values=values, receipt=receipt, against=against))


@command(app, "explain", example="explain 0c97a3b5-3e1f-8a3c-9b1d-2f6f0f2b7c11 --table quakes")
def explain(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's UUID.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--in", metavar="INPUT", help="Look for the event in this input too, row by row. Repeatable."),
    ] = None,
    **told: Any,
) -> None:
    """Show an event's history: which run inserted it, which runs repeated it and when; or why it is not in the table.

    The ledger records which rows a run read, not which of them were this event. With --in the inputs are read again,
    and every row that is the event is named, with the runs that had it. Exit code 1 if the event is in no table.
    """
    from headrace.cli import explain

    leave(explain.explain(event_id, inputs or [], told))


@command(app, "doctor", example="doctor --config headrace.toml")
def doctor(*, config: Config = None, to: str | None, output: str) -> None:
    """Check the database and every table, and say how to correct each fault.

    With a configuration file also its keys, its providers' sources, contracts and privileges, the clock and the flag.
    """
    from headrace.cli import doctor

    leave(doctor.doctor(to, config, output))


@command(app, "demo", example="demo --folder /var/tmp/headrace-demo")
def demo(
    *,
    folder: Annotated[
        str, typer.Option("--folder", metavar="FOLDER", help="Where extracts and database go.")
    ] = "headrace-demo",
    output: Output,
    progress: ProgressStyle,
) -> None:
    """Load a summer of real flights twice, and verify that no flight is in the table twice. Needs headrace[demo]."""
    from headrace.cli import demo

    leave(demo.demo(folder, output, progress))


app.add_typer(rejects_app, name="rejects")
app.add_typer(runs_app, name="runs")
app.add_typer(alerts_app, name="alerts")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"headrace {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """The entry point ``headrace``."""
    run_in_own_process(app)


if __name__ == "__main__":
    main()
