"""``headrace runs``: options and help. What the commands do lies in `headrace.cli.runs`."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import (
    Out,
    Table,
    To,
    leave,
)

__all__ = ["runs_app"]

runs_app = typer.Typer(help="The ledger: what was loaded when, and how it ended.", no_args_is_help=True)


@runs_app.command("list", epilog="Example: headrace runs list --table quakes")
def runs_list(
    to: To = None,
    table: Table = None,
    limit: Annotated[int, typer.Option("--limit", min=1)] = 20,
    output: Out = "text",
) -> None:
    """List runs, the newest first."""
    from headrace.cli import runs

    leave(runs.listed(to, table, limit, output))


@runs_app.command("show", epilog="Example: headrace runs show 1f0a")
def runs_show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its ID; a prefix will do.")],
    to: To = None,
    output: Out = "text",
) -> None:
    """Show one run with its inputs and receipts."""
    from headrace.cli import runs

    leave(runs.shown(to, run, output))
