"""Observing a command: metrics for scraping, and thresholds for slow work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from headrace.observability.narrator import Narrator, Thresholds
from headrace.observability.observers import observing
from headrace.options.choices import LogFormat, LogLevel
from headrace.options.declared import USUAL
from headrace.options.option import parse_seconds

__all__ = ["Watching", "watched"]


@dataclass(frozen=True, slots=True)
class Watching:
    """The command line's options for it. `metrics` is an address to serve at; the thresholds are spans like ``5s``
    or seconds, ``None`` for never.
    """

    metrics: str | None = None
    log_format: LogFormat = USUAL["log_format"]
    log_level: LogLevel = USUAL["log_level"]
    slow_provider: str | float | None = None
    slow_chunk: str | float | None = None
    slow_query: str | float | None = None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Watching:
        """The options that a command was given."""
        return cls(**{field.name: told[field.name] for field in fields(cls) if field.name in told})

    def or_else(self, usual: Mapping[str, Any]) -> Watching:
        """The same, with the values of `usual` for the options that were not given."""
        return replace(self, **{name: value for name, value in usual.items() if getattr(self, name) is None})

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds in seconds. Raises `ConfigurationError`."""
        spans = (self.slow_provider, self.slow_chunk, self.slow_query)
        return Thresholds(*(parse_seconds(span) if isinstance(span, str) else span for span in spans))


@contextmanager
def watched(how: Watching) -> Iterator[None]:
    """Observe every run that begins while inside. Raises `ConfigurationError` for an invalid option."""
    slow = how.thresholds
    with ExitStack() as opened:
        if how.log_format == "json" or how.log_level in {"debug", "info"} or slow != Thresholds():
            opened.enter_context(observing(Narrator(slow)))
        if how.metrics is not None:
            # its library is an extra
            from headrace.observability.prometheus import serving  # noqa: PLC0415

            opened.enter_context(observing(opened.enter_context(serving(how.metrics))))
        yield
