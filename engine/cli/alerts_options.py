"""``headrace alerts``: options and help. What the commands do lies in `headrace.cli.alerts`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from headrace.cli.options import Limit, TableFilter, command, leave

__all__ = ["alerts_app"]

alerts_app = typer.Typer(
    help="Alerts: what rules found among new events, and its delivery (headrace load --alert).", no_args_is_help=True
)

Rules = Annotated[
    list[str] | None, typer.Option("--rule", metavar="NAME", help="Only alerts of this rule. Repeatable.")
]
Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Alerts by number.")]
All = Annotated[bool, typer.Option("--all", help="Choose all alerts.")]
StateName = Literal["pending", "delivered", "dead", "discarded", "all"]


@command(alerts_app, "alerts list", example="alerts list --state dead")
def alerts_list(
    *,
    table: TableFilter = None,
    rule: Rules = None,
    state: Annotated[
        StateName | None, typer.Option("--state", help="Only alerts in this state. Default: pending and dead.")
    ] = None,
    limit: Limit = 50,
    to: str | None,
    output: str,
) -> None:
    """List alerts, a line each, oldest first."""
    from headrace.cli import alerts

    leave(alerts.listed(to, table, rule or [], state, limit, output))


@command(alerts_app, "alerts deliver", example="alerts deliver --webhook https://alerts.example/hook --every 5s")
def alerts_deliver(
    *,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook",
            metavar="URL",
            envvar="HEADRACE_WEBHOOK_URL",
            show_envvar=False,
            help="POST each alert to this URL, signed with HEADRACE_WEBHOOK_KEY. A URL that holds a secret is safer in "
            "HEADRACE_WEBHOOK_URL. Default: JSON lines on standard output.",
        ),
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(
            "--function", metavar="MODULE:FUNCTION", help="Call this function with each alert, a dict, instead."
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="SPAN", help="Look for due alerts every 5s, for example. Default: once."),
    ] = None,
    table: TableFilter = None,
    rule: Rules = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Send without a signature; no HEADRACE_WEBHOOK_KEY is needed.")
    ] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="SPAN", help="The longest time for a POST.")] = "10s",
    at_once: Annotated[
        int, typer.Option("--at-once", metavar="N", min=1, max=64, help="POSTs that may be in progress at a time.")
    ] = 8,
    most_attempts: Annotated[
        int,
        typer.Option("--most-attempts", metavar="N", min=1, help="After this many failed attempts an alert is dead."),
    ] = 15,
    lease: Annotated[
        str,
        typer.Option(
            "--lease", metavar="SPAN", help="After this long, another dispatcher may send an alert that was taken."
        ),
    ] = "60s",
    **told: Any,
) -> None:
    """Deliver alerts, each at least once, always under the same key. Several dispatchers share the work.

    A failed attempt is repeated after growing pauses. An alert that is refused for good, or that failed too often, is
    dead: see list, retry, discard. Exit code 1 if an attempt failed.
    """
    from headrace.cli import alerts

    receiver = alerts.Receiver(webhook, function, unsigned, timeout, at_once)
    leave(
        alerts.deliver(
            receiver, told, table=table, rules=rule or [], every=every, most_attempts=most_attempts, lease=lease
        )
    )


@command(alerts_app, "alerts retry", example="alerts retry --rule strong")
def alerts_retry(
    ids: Ids = None,
    *,
    table: TableFilter = None,
    rule: Rules = None,
    everything: All = False,
    to: str | None,
    output: str,
) -> None:
    """Make dead alerts pending again; by number, discarded ones too."""
    from headrace.cli import alerts

    leave(alerts.retry(to, ids or [], table, rule or [], everything=everything, output=output))


@command(alerts_app, "alerts discard", example="alerts discard 17 18")
def alerts_discard(
    ids: Ids = None,
    *,
    table: TableFilter = None,
    rule: Rules = None,
    everything: All = False,
    to: str | None,
    output: str,
) -> None:
    """Give pending or dead alerts up: they stay in the outbox, marked as discarded."""
    from headrace.cli import alerts

    leave(alerts.discard(to, ids or [], table, rule or [], everything=everything, output=output))


@command(alerts_app, "alerts prune", example="alerts prune --older-than 30d")
def alerts_prune(
    *,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="SPAN", help="Alerts that were settled longer ago than this, by the server's clock."
        ),
    ],
    table: TableFilter = None,
    rule: Rules = None,
    discarded: Annotated[bool, typer.Option("--discarded", help="Delete discarded alerts too.")] = False,
    to: str | None,
    output: str,
) -> None:
    """Delete delivered alerts. Pending and dead alerts are never deleted.

    An event whose alert was deleted does not raise it again while the event is in its table: only new events raise
    alerts.
    """
    from headrace.cli import alerts

    leave(alerts.prune(to, older_than, table, rule or [], discarded=discarded, output=output))
