"""``headrace rejects``: options and help. What the commands do lies in `headrace.cli.rejects`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headrace.cli.options import Limit, RejectIds, RunId, TableFilter, command, leave

__all__ = ["rejects_app"]

rejects_app = typer.Typer(
    help="Rejects, rows that could not be loaded: list, replay or discard them.", no_args_is_help=True
)


@command(rejects_app, "rejects list", example="rejects list --run 1f0a --limit 20")
def rejects_list(
    *,
    table: TableFilter = None,
    run: RunId = None,
    settled: Annotated[bool, typer.Option("--all", help="Show replayed and discarded rejects too.")] = False,
    limit: Limit = 50,
    to: str | None,
    output: str,
) -> None:
    """List rejects, a line each, oldest first."""
    from headrace.cli import rejects

    leave(rejects.listed(to, table, run, settled=settled, limit=limit, output=output))


@command(rejects_app, "rejects show", example="rejects show 17")
def rejects_show(ids: RejectIds = None, *, to: str | None, output: str) -> None:
    """Show rejects whole: address, reason, raw text."""
    from headrace.cli import rejects

    leave(rejects.shown(to, ids or [], output))


@command(rejects_app, "rejects replay", example="rejects replay 17 --set mag=4.5")
def rejects_replay(
    ids: RejectIds = None,
    *,
    table: TableFilter = None,
    run: RunId = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COL=VALUE", help="Set a column in each row. Repeatable."),
    ] = None,
    raw: Annotated[
        str | None,
        typer.Option(
            "--raw", metavar="TEXT", help="The row as it should have been: a line of its file, or a JSON object."
        ),
    ] = None,
    **told: Any,
) -> None:
    """Load rejects again: all kept rejects, or the named ones. A reject keeps its identity. If it fails again, it is
    kept again.

    The select and the time zone are those of the load, unless given.
    """
    from headrace.cli import rejects

    leave(rejects.replay(ids or [], run, changes or [], raw, {**told, "table": table}))


@command(rejects_app, "rejects discard", example="rejects discard 17 18")
def rejects_discard(
    ids: RejectIds = None, *, table: TableFilter = None, run: RunId = None, to: str | None, output: str
) -> None:
    """Give rejects up: they stay in the table of rejects, marked as discarded. Name them, or a run or a table."""
    from headrace.cli import rejects

    leave(rejects.discard(to, ids or [], table, run, output))
