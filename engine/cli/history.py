"""``headrace profile --history``: what the last loads of providers took, and whether they call for parallel mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace.cli.show import show
from headrace.errors import UsageError
from headrace.loading.database import open_existing
from headrace.options.load import DEFAULT_FILE, database_url
from headrace.polling.config_file import read_settings
from headrace.profiling.history import History
from headrace.profiling.site import histories_in

__all__ = ["history"]


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
