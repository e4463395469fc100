"""``headrace profile``: options and help. What the command does lies in `headrace.cli.profile`."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.option_groups import InputGroup, NewEventsGroup, ParallelGroup, spread
from headrace.cli.options import MaybeInputs, Out, PageFile, TraceFile, leave

__all__ = ["profile"]


@spread
def profile(
    inputs: MaybeInputs = None,
    *,
    description: InputGroup,
    sample: Annotated[
        int, typer.Option("--sample", min=0, metavar="ROWS", help="Rows that are tried, rounded up to chunks; 0: all.")
    ] = 500_000,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Load the sample into the real table, not only into a trial's.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Then load everything in both ways in a trial, and compare.")
    ] = False,
    parallel: ParallelGroup,
    new_events: NewEventsGroup,
    report: PageFile = None,
    trace: TraceFile = None,
    history: Annotated[
        bool,
        typer.Option("--history", help="What the last loads of `headrace run` took; INPUT: providers by name."),
    ] = False,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="With --history: the file that names the database.")
    ] = None,
    output: Out = "text",
) -> None:
    """Try a load on a sample, both ways, and say where its time goes and whether parallel mode would pay.

    Nothing is written to the real table: the trial has a schema of its own (SQLite: a file), which is dropped.
    Functions given to --enrich and --alert-function are really called.
    With --history nothing is tried: it shows whether a provider of `headrace run` has grown into parallel mode.
    """
    if history:
        from headrace.cli.history import history as past_loads

        leave(past_loads(description.to, config, inputs or [], output))
        return
    from headrace.cli import profile
    from headrace.cli.load import options
    from headrace.execution.fork_server import send_ahead

    if parallel.executor is None:
        send_ahead()
    wanted = options(**vars(description), **vars(parallel), **vars(new_events))
    how = profile.How(sample, parallel.workers, in_place, check)
    leave(profile.profile(wanted, inputs or [], how, output, page=report, trace=trace))
