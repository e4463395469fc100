"""The command line's options, derived from `headrace.options.declared`; and how a command begins and ends.

    @command(app, "runs list")                          the options that are declared for `runs list` …
    def runs_list(limit: Limit = 20, *, to, output):    … reach it by name; its own are annotated for typer

A command takes the declared options that it names, or all of them as ``**told``. What the user did not say is ``None``,
apart from `COMMAND` options, which have their defaults.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from textwrap import shorten
from typing import Annotated, Any, Literal, get_origin

import typer
from typer.core import TyperCommand

from headrace.options.declared import COMMAND, EVERY, GROUPS, LOAD
from headrace.options.option import FLAG, Option, without_backticks

__all__ = ["Config", "Inputs", "Limit", "MaybeInputs", "RejectIds", "RunId", "TableFilter", "command", "leave"]

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files, folders, globs, - for standard input, http(s):// or s3:// URLs. CSV, TSV, JSON, JSON lines, "
        "GeoJSON and Parquet, also as .gz and .zst.",
    ),
]
MaybeInputs = Annotated[
    list[str] | None, typer.Argument(metavar="INPUT", help="What was loaded, named as for `headrace load`.")
]
Config = Annotated[str | None, typer.Option("--config", metavar="FILE", help="The file of `headrace run`.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show at most this many.")]
RunId = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only of this run: its ID or how it begins.")]
RejectIds = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Rejects by number.")]
TableFilter = Annotated[str | None, typer.Option("--table", metavar="NAME", help="Only of this event table.")]

MOST_USED = "Most used"
ARGUMENTS, OWN, HELP = "Arguments", "Options", "Help"
TITLES = (ARGUMENTS, MOST_USED, OWN, *GROUPS, HELP)
ONE_LINE = 70
WIDEST = 24  # what is wider has its help on the next line
MANY = 20  # options, from which on the most used ones come first


def command(app: typer.Typer, name: str, *, example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function the command `name`, with the options that are declared for it, in a context that logs."""
    options = {key: option for key, option in {**LOAD, **COMMAND}.items() if option.commands & {name, *EVERY}}
    many = len(options) > MANY

    def register(function: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(function, eval_str=True).parameters
        takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        own = [one for one in parameters.values() if get_origin(one.annotation) is Annotated]
        derived = [_parameter(key, option, many=many) for key, option in options.items()]

        @wraps(function)
        def run(**given: Any) -> None:
            from headrace.observability.log_format import logging_to  # noqa: PLC0415 - not to show --help

            for key in COMMAND.keys() & given.keys():
                given[key] = COMMAND[key].default if given[key] is None else given[key]
            taken = {key: value for key, value in given.items() if takes_all or key in parameters}
            with logging_to(sys.stderr, given["log_format"], given["log_level"]):
                function(**taken)

        run.__annotations__ = {one.name: one.annotation for one in [*own, *derived]}
        vars(run)["__signature__"] = inspect.Signature([*own, *derived])
        app.command(name.rpartition(" ")[2], cls=GroupedHelp, epilog=f"Example: headrace {example}")(run)
        return function

    return register


def _parameter(name: str, option: Option, *, many: bool) -> inspect.Parameter:
    """The option as a parameter that typer reads. Its default is ``None``: what was not said is not passed on."""
    flag = option.flag or "--" + name.replace("_", "-")
    kind = option.kind
    typed: Any = Literal[option.choices] if option.choices else kind.typed
    facts = [f"default: {option.without}"] if option.without else []
    facts += [f"env: {option.env}"] if option.env else []
    about = [option.help, "Repeatable." if kind.typed == list[str] else "", f" [{'; '.join(facts)}]" if facts else ""]
    information = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is FLAG else flag,
        metavar=option.metavar or (None if option.choices else kind.metavar),
        help=without_backticks(" ".join(filter(None, about))),
        envvar=option.env,
        show_envvar=False,
        show_default=False,
        rich_help_panel=MOST_USED if many and option.first else option.group,
    )
    annotation = Annotated[typed | None, information]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


class GroupedHelp(TyperCommand):
    """A command whose ``--help`` shows the options group by group."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in TITLES}
        for parameter in self.get_params(ctx):
            usual = ARGUMENTS if parameter.param_type_name == "argument" else HELP if parameter.name == "help" else OWN
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections[getattr(parameter, "rich_help_panel", None) or usual].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=WIDEST)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete options, each with the beginning of its help on one line: fish takes each line for a completion."""
        items = super().shell_complete(ctx, incomplete)
        for item in items:
            item.help = shorten((item.help or "").partition(" [")[0], ONE_LINE, placeholder=" …")
        return items


def leave(code: int) -> None:
    """End the command with this exit code, if it is not 0."""
    if code:
        raise typer.Exit(code)
