"""``headrace profile``: print what a profile found, and write its page; or what past loads of providers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.cli.load import options
from headrace.cli.show import show
from headrace.errors import UsageError
from headrace.loading.database import open_existing
from headrace.observability.page import write_page
from headrace.observability.perfetto import write_trace
from headrace.observability.recorder_files import require_writable
from headrace.options.load import DEFAULT_FILE, database_url
from headrace.polling.config_file import read_settings
from headrace.profiling.history import History
from headrace.profiling.profile import profile as profile_inputs
from headrace.profiling.site import histories_in
from headrace.runtime.interrupt import stopping
from headrace.runtime.scratch import sweep

__all__ = ["history", "profile"]


def profile(inputs: Sequence[str], told: Mapping[str, Any], *, rows: int, in_place: bool, check: bool) -> int:
    """``headrace profile``. 4 if both ways did not give the same table. Raises `UsageError` without inputs."""
    if not inputs:
        raise UsageError("there is nothing to profile", hint="name the inputs, or --history for what was loaded")
    load_options, page, trace = options(told), told["report"], told["trace"]
    for file in filter(None, (page, trace)):
        require_writable(Path(file))
    with stopping(sweep):
        result = profile_inputs(
            load_options,
            inputs,
            rows=rows,
            workers=told["workers"],
            in_place=in_place,
            check=check,
        )
    if trace is not None:
        write_trace(Path(trace), result.sequential.recorded)
    if page is not None:
        recorded = result.sequential.recorded
        recorded.remarks = result.remarks
        if recorded.facts is not None:
            recorded.facts = replace(recorded.facts, database=result.database)  # not the trial's
        write_page(Path(page), recorded, beside=result.parallel.recorded)
    show(told["output"], result.to_dict, result.to_text)
    return 0 if result.trustworthy else 4


def history(to: str | None, config: str | None, providers: Sequence[str], output: str) -> int:
    """``headrace profile --history``. Raises `UsageError` for a provider of which nothing is kept."""
    url = _database(to, config)
    with open_existing(url) as store:
        stories = histories_in(store, url, providers or None)
    unknown = sorted(set(providers) - {story.provider for story in stories})
    if unknown:
        raise UsageError(
            f"nothing is kept of a provider {unknown[0]!r}",
            hint="`headrace run` keeps what its loads take; without a name all providers are shown",
        )
    show(output, lambda: {"providers": [story.to_dict() for story in stories]}, lambda: _text(stories))
    return 0


def _text(stories: Sequence[History]) -> str:
    if not stories:
        return "nothing is kept: no provider has been loaded by `headrace run` yet"
    return "\n".join(story.to_text() for story in stories)


def _database(to: str | None, config: str | None) -> str:
    if to is not None and config is not None:
        raise UsageError("--to and --config each name a database", hint="the file's is in its key database")
    if config is not None or (to is None and Path(DEFAULT_FILE).exists()):
        return read_settings(config or DEFAULT_FILE).database
    return database_url(to)
