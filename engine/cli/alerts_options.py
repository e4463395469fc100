"""``headrace alerts``: options and help. What the commands do lies in `headrace.cli.alerts`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from headrace.cli.options import Out, leave
from headrace.cli.watch_options import LogFormatOption, LogLevelOption, MetricsOption

__all__ = ["alerts_app"]

alerts_app = typer.Typer(
    help="Alerts: what rules found among new events, and its delivery (headrace load --alert).", no_args_is_help=True
)

To = Annotated[
    str | None,
    typer.Option("--to", metavar="URL", help="The database. Default: HEADRACE_DATABASE_URL, then headrace.db"),
]
Table = Annotated[str | None, typer.Option("--table", metavar="NAME", help="Of events in this table only.")]
Rules = Annotated[list[str] | None, typer.Option("--rule", metavar="NAME", help="Of this rule only. Repeatable.")]
Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID...]", help="Alerts by number.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Webhook = Annotated[
    str | None,
    typer.Option(
        "--webhook",
        metavar="URL",
        envvar="HEADRACE_WEBHOOK_URL",
        show_envvar=False,
        help="POST each to this URL, signed with HEADRACE_WEBHOOK_KEY. A URL that holds a secret is better kept in "
        "HEADRACE_WEBHOOK_URL. Default: JSON lines on standard output.",
    ),
]
FunctionName = Annotated[
    str | None,
    typer.Option("--function", metavar="MODULE:FUNCTION", help="Call this with each, a dict, instead."),
]
Lease = Annotated[
    str,
    typer.Option(
        "--lease", metavar="60s", help="How long an alert is left to a dispatcher that may have died with it."
    ),
]
StateName = Literal["pending", "delivered", "dead", "discarded", "all"]


@alerts_app.command("list", epilog="Example: headrace alerts list --state dead")
def alerts_list(
    to: To = None,
    table: Table = None,
    rule: Rules = None,
    state: Annotated[StateName | None, typer.Option("--state", help="Default: pending and dead.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1)] = 50,
    output: Out = "text",
) -> None:
    """List alerts, a line each, oldest first."""
    from headrace.cli import alerts

    leave(alerts.listed(to, table, rule or [], state, limit, output))


@alerts_app.command(
    "deliver", epilog="Example: headrace alerts deliver --webhook https://alerts.example/hook --every 5s"
)
def alerts_deliver(
    to: To = None,
    webhook: Webhook = None,
    function: FunctionName = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="5s", help="Go on, looking this often. Default: until nothing is due."),
    ] = None,
    table: Table = None,
    rule: Rules = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Do without HEADRACE_WEBHOOK_KEY.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="10s", help="For a whole POST.")] = "10s",
    at_once: Annotated[int, typer.Option("--at-once", min=1, max=64, help="POSTs at a time.")] = 8,
    most_attempts: Annotated[
        int, typer.Option("--most-attempts", min=1, help="An alert that failed so often is dead.")
    ] = 15,
    lease: Lease = "60s",
    output: Out = "text",
    metrics: MetricsOption = None,
    log_format: LogFormatOption = "text",
    log_level: LogLevelOption = "warning",
) -> None:
    """Deliver alerts, each at least once, always under the same key. Several dispatchers share the work.

    What fails is tried again with growing pauses; what is refused for good, or failed too often, is dead: see list,
    retry, discard. Exit code 1 if an attempt failed.
    """
    from headrace.cli import alerts

    receiver = alerts.Receiver(webhook, function, unsigned, timeout, at_once)
    leave(
        alerts.deliver(
            to,
            receiver,
            table=table,
            rules=rule or [],
            every=every,
            most_attempts=most_attempts,
            lease=lease,
            output=output,
            watching=alerts.Watching(metrics, log_format, log_level),
        )
    )


@alerts_app.command("retry", epilog="Example: headrace alerts retry --rule strong")
def alerts_retry(
    ids: Ids = None,
    to: To = None,
    table: Table = None,
    rule: Rules = None,
    everything: All = False,
    output: Out = "text",
) -> None:
    """Make dead alerts pending again; by number, discarded ones too."""
    from headrace.cli import alerts

    leave(alerts.retry(to, ids or [], table, rule or [], everything=everything, output=output))


@alerts_app.command("discard", epilog="Example: headrace alerts discard 17 18")
def alerts_discard(
    ids: Ids = None,
    to: To = None,
    table: Table = None,
    rule: Rules = None,
    everything: All = False,
    output: Out = "text",
) -> None:
    """Let pending or dead alerts go: they stay in the outbox, marked as discarded."""
    from headrace.cli import alerts

    leave(alerts.discard(to, ids or [], table, rule or [], everything=everything, output=output))


@alerts_app.command("prune", epilog="Example: headrace alerts prune --older-than 30d")
def alerts_prune(
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="30d", help="Those that were settled so long ago, by the server's clock."),
    ],
    to: To = None,
    table: Table = None,
    rule: Rules = None,
    discarded: Annotated[bool, typer.Option("--discarded", help="Discarded ones too.")] = False,
    output: Out = "text",
) -> None:
    """Delete delivered alerts. What is pending or dead is never deleted.

    Their events raise nothing again as long as they are in their table: only an event that is new there raises one.
    """
    from headrace.cli import alerts

    leave(alerts.prune(to, older_than, table, rule or [], discarded=discarded, output=output))
