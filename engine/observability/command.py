"""How a command is watched: logs to stderr, metrics to be scraped, thresholds from which on a thing is slow."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from headrace.observability.log_format import LogFormat, LogLevel, logging_to
from headrace.observability.narrator import Narrator, Thresholds
from headrace.observability.observers import observing
from headrace.options.load import parse_seconds

__all__ = ["Watching", "watched"]


@dataclass(frozen=True, slots=True)
class Watching:
    """What the command line says about it. `metrics` is an address to serve at; the thresholds are spans like ``5s``
    or seconds, ``None`` for never.
    """

    metrics: str | None = None
    log_format: LogFormat = "text"
    log_level: LogLevel = "warning"
    slow_provider: str | float | None = None
    slow_chunk: str | float | None = None
    slow_query: str | float | None = None

    def or_else(self, usual: Mapping[str, Any]) -> Watching:
        """The same, with what stands in `usual` where nothing was said."""
        return replace(self, **{name: value for name, value in usual.items() if getattr(self, name) is None})

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds in seconds. Raises `ConfigurationError`."""
        spans = (self.slow_provider, self.slow_chunk, self.slow_query)
        return Thresholds(*(parse_seconds(span) if isinstance(span, str) else span for span in spans))


@contextmanager
def watched(how: Watching) -> Iterator[None]:
    """Watch every run that begins while inside. Raises `ConfigurationError` for what cannot be done."""
    slow = how.thresholds
    with ExitStack() as opened:
        opened.enter_context(logging_to(sys.stderr, how.log_format, how.log_level))
        if how.log_format == "json" or how.log_level in {"debug", "info"} or slow != Thresholds():
            opened.enter_context(observing(Narrator(slow)))
        if how.metrics is not None:
            # its library is an extra
            from headrace.observability.prometheus import serving  # noqa: PLC0415

            opened.enter_context(observing(opened.enter_context(serving(how.metrics))))
        yield
