"""What commands make of their options, and what ``headrace load`` does. A load imports no more than it needs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import Unpack

from headrace.api import Named, Plain, load_with, options_of
from headrace.cli.show import show
from headrace.errors import Interrupted
from headrace.events.alert_rule import parse_rules
from headrace.observability.command import Watching, watched
from headrace.observability.progress import ProgressStyle, progress_for
from headrace.observability.recorder_files import recording
from headrace.options.load import LoadOptions, parse_seconds, parse_types
from headrace.runtime.interrupt import stopping
from headrace.runtime.scratch import sweep

__all__ = ["Watching", "load", "options"]


def options(
    *,
    identity: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
    lock_timeout: str = "30s",
    task_timeout: str = "10m",
    alerts: Sequence[str] | None = None,
    alert_functions: Sequence[str] | None = None,
    alert_revisions: Sequence[str] | None = None,
    **named: Unpack[Plain],
) -> LoadOptions:
    """`LoadOptions` from the command line's strings. Raises `ConfigurationError`."""
    if named.get("enrich") or alert_functions:
        # as for `python -m`: the user's module lies where the user stands; the workers inherit the path
        sys.path.insert(0, "")
    parsed: Named = {
        "id": None if identity is None else [name for text in identity for name in split_columns(text)],
        "types": parse_types(types or []),
        "lock_timeout": parse_seconds(lock_timeout),
        "task_timeout": parse_seconds(task_timeout),
        "alerts": parse_rules(alerts or [], alert_functions or [], alert_revisions or []),
    }
    return options_of({**parsed, **named})


def split_columns(text: str) -> list[str]:
    """``a,b`` as two names; a name with a comma is quoted as in CSV: ``'"last, first",born'``."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip()]


def load(
    wanted: LoadOptions,
    inputs: Sequence[str],
    output: str,
    progress: ProgressStyle,
    watching: Watching,
    *,
    page: str | None = None,
    trace: str | None = None,
) -> int:
    """``headrace load``."""
    with watched(watching), stopping(sweep) as stop, recording(page, trace) as listener:
        try:
            report = load_with(wanted, inputs, progress=progress_for(progress), stop=stop, listener=listener)
        except Interrupted as error:
            error.exit_code = stop.exit_code
            raise
    show(output, report.to_dict, report.to_text)
    return report.exit_code
