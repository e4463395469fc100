"""The command line's options for `headrace.observability.command`. Each can be said in the environment, once for all
commands.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

__all__ = ["LogFormatOption", "LogLevelOption", "MetricsOption", "SlowChunk", "SlowProvider", "SlowQuery"]


def _option(name: str, about: str, metavar: str | None = None) -> Any:
    variable = "HEADRACE_" + name.removeprefix("--").upper().replace("-", "_")
    return typer.Option(name, metavar=metavar, envvar=variable, show_envvar=False, help=about)


MetricsOption = Annotated[
    str | None,
    _option("--metrics", "Serve metrics for Prometheus there: :9464 (extra headrace[metrics]).", "[HOST]:PORT"),
]
LogFormatOption = Annotated[Literal["text", "json"], _option("--log-format", "Of the logs, which go to stderr.")]
LogLevelOption = Annotated[
    Literal["debug", "info", "warning", "error"],
    _option("--log-level", "What is logged; from info on each slice, sampled at high volume."),
]
SlowProvider = Annotated[
    str | None, _option("--slow-provider", "Warn of a run that takes so long: 10m. Default: never.", "SPAN")
]
SlowChunk = Annotated[
    str | None, _option("--slow-chunk", "Warn of a chunk or slice that takes so long in a stage: 30s.", "SPAN")
]
SlowQuery = Annotated[
    str | None, _option("--slow-query", "Warn of a statement that takes so long in the database: 5s.", "SPAN")
]
