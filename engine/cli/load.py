"""What commands make of their options, and what ``headrace load`` does. A load imports no more than it needs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from headrace.api import load_with
from headrace.cli.show import show
from headrace.errors import Interrupted
from headrace.events.alert_rule import parse_rules
from headrace.observability.command import Watching, watched
from headrace.observability.progress import progress_for
from headrace.observability.recorder_files import recording
from headrace.options.declared import LOAD, Named
from headrace.options.load import LoadOptions, options_of
from headrace.options.option import parse_types
from headrace.runtime.interrupt import stopping
from headrace.runtime.scratch import sweep

__all__ = ["load", "options"]


def options(told: Mapping[str, Any]) -> LoadOptions:
    """`LoadOptions` from what the command line was told. Raises `ConfigurationError`."""
    if told.get("enrich") or told.get("alert_function"):
        # as for `python -m`: the user's module lies where the user stands; the workers inherit the path
        sys.path.insert(0, "")
    # typer gives an empty list where an option that can be repeated was not given
    said = {name: value for name, value in told.items() if name in LOAD and value not in (None, [], ())}
    if "id" in said:
        said["id"] = [name for text in said["id"] for name in split_columns(text)]
    said["types"] = parse_types(said.get("types", []))
    said["alerts"] = parse_rules(*(told.get(name) or [] for name in ("alert", "alert_function", "alert_revisions")))
    return options_of(cast("Named", said))


def split_columns(text: str) -> list[str]:
    """``a,b`` as two names; a name with a comma is quoted as in CSV: ``'"last, first",born'``."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip()]


def load(inputs: Sequence[str], told: Mapping[str, Any]) -> int:
    """``headrace load``."""
    load_options, progress = options(told), progress_for(told["progress"])
    with (
        watched(Watching.of(told)),
        stopping(sweep) as stop,
        recording(told["report"], told["trace"]) as listener,
    ):
        try:
            report = load_with(load_options, inputs, progress=progress, stop=stop, listener=listener)
        except Interrupted as error:
            error.exit_code = stop.exit_code
            raise
    show(told["output"], report.to_dict, report.to_text)
    return report.exit_code
