"""``headrace rejects``: options and help. What the commands do lies in `headrace.cli.rejects`."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.option_groups import NewEventsGroup, spread
from headrace.cli.options import (
    MissingId,
    Out,
    RejectIds,
    RunId,
    Select,
    Table,
    Timezone,
    To,
    leave,
)

__all__ = ["rejects_app"]

rejects_app = typer.Typer(help="Rows kept aside: look at them, load them again, let them go.", no_args_is_help=True)


@rejects_app.command("list", epilog="Example: headrace rejects list --run 1f0a --limit 20")
def rejects_list(
    to: To = None,
    table: Table = None,
    run: RunId = None,
    settled: Annotated[bool, typer.Option("--all", help="Replayed and discarded ones too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1)] = 50,
    output: Out = "text",
) -> None:
    """List rejects, a line each, oldest first."""
    from headrace.cli import rejects

    leave(rejects.listed(to, table, run, settled=settled, limit=limit, output=output))


@rejects_app.command("show", epilog="Example: headrace rejects show 17")
def rejects_show(ids: RejectIds = None, to: To = None, output: Out = "text") -> None:
    """Show rejects whole: address, reason, raw text."""
    from headrace.cli import rejects

    leave(rejects.shown(to, ids or [], output))


@rejects_app.command("replay", epilog="Example: headrace rejects replay 17 --set mag=4.5")
@spread
def rejects_replay(
    ids: RejectIds = None,
    to: To = None,
    table: Table = None,
    run: RunId = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COL=VALUE", help="Mend a column in each row. Repeatable."),
    ] = None,
    raw: Annotated[
        str | None,
        typer.Option(
            "--raw", metavar="TEXT", help="The one row as it should have been: a line of its file, or a JSON object."
        ),
    ] = None,
    select: Select = None,
    timezone: Timezone = None,
    missing_id: MissingId = None,
    *,
    new_events: NewEventsGroup,
    output: Out = "text",
) -> None:
    """Load rejects again, all kept ones or those named. Each keeps its identity; one that fails again is kept again.

    The select and the time zone are those of the load, unless given.
    """
    from headrace.cli import rejects
    from headrace.cli.load import options

    wanted = options(to=to, table=table, select=select, timezone=timezone, missing_id=missing_id, **vars(new_events))
    leave(rejects.replay(wanted, ids or [], run, changes or [], raw, output))


@rejects_app.command("discard", epilog="Example: headrace rejects discard 17 18")
def rejects_discard(ids: RejectIds = None, to: To = None, table: Table = None, run: RunId = None) -> None:
    """Let rejects go: they stay in the table of rejects, marked as discarded. Name them, or a run or a table."""
    from headrace.cli import rejects

    leave(rejects.discard(to, ids or [], table, run))
