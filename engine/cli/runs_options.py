"""``headrace runs``: options and help. What the commands do lies in `headrace.cli.runs`."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import Limit, TableFilter, command, leave

__all__ = ["runs_app"]

runs_app = typer.Typer(help="The ledger: what was loaded when, and how it ended.", no_args_is_help=True)


@command(runs_app, "runs list", example="runs list --table quakes")
def runs_list(*, table: TableFilter = None, limit: Limit = 20, to: str | None, output: str) -> None:
    """List runs, the newest first."""
    from headrace.cli import runs

    leave(runs.listed(to, table, limit, output))


@command(runs_app, "runs show", example="runs show 1f0a")
def runs_show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's ID, or how it begins.")],
    *,
    to: str | None,
    output: str,
) -> None:
    """Show one run with its inputs and receipts."""
    from headrace.cli import runs

    leave(runs.shown(to, run, output))
