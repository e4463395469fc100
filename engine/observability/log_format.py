"""Logs of the command line: as text, or one JSON object a line, with run, provider, chunk and partition.

    with logging_to(stream, "json", "info"):        handlers of the logger `headrace`, taken off at the end
        with about(run=…, provider=…):              every record logged inside carries it

At high volume records below a warning are sampled: each place in the code emits a few records a second, and the next
record says how many were left out (`left_out`). Warnings and errors are always emitted.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import TextIO, get_args

from headrace.errors import ConfigurationError, concealed
from headrace.options.choices import LogFormat, LogLevel
from headrace.runtime.worker_logs import about_now

__all__ = ["JsonLines", "PlainText", "RecordFilter", "logging_to"]

MOST_A_SECOND = 10
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a record: time (UTC), level, logger, message, its marks, `extra` fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """`record` as one line."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD and value is not None}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        elif record.exc_text:
            fields["traceback"] = record.exc_text
        told = {name: concealed(value) if isinstance(value, str) else value for name, value in fields.items()}
        return json.dumps(told, ensure_ascii=False, default=str)


class PlainText(logging.Formatter):
    """The message, and the traceback if there is one, without the secrets that were concealed."""

    def format(self, record: logging.LogRecord) -> str:
        """`record` as text."""
        return concealed(super().format(record))


class RecordFilter(logging.Filter):
    """Adds the marks to each record, and passes at most `most` records a second of each place below a warning."""

    def __init__(self, most: int = MOST_A_SECOND) -> None:
        super().__init__()
        self._most = most
        self._places: dict[tuple[str, int], _Place] = {}
        self._lock = Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is emitted."""
        for name, value in about_now().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        if record.levelno >= logging.WARNING:
            return True
        with self._lock:
            place = self._places.setdefault((record.pathname, record.lineno), _Place())
            left_out = place.admit(time.monotonic(), self._most)
        if left_out:
            record.left_out = left_out
        return left_out is not None


class _Place:
    """A place in the code that logs: how much of this second's share is used."""

    def __init__(self) -> None:
        self._second = 0.0
        self._used = 0
        self._left_out = 0

    def admit(self, now: float, most: int) -> int | None:
        """``None`` to leave the record out, otherwise the number of records left out since the last emitted one."""
        if now - self._second >= 1.0:
            self._second, self._used = now, 0
        if self._used >= most:
            self._left_out += 1
            return None
        self._used += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


@contextmanager
def logging_to(stream: TextIO, form: LogFormat, level: LogLevel, *, most: int = MOST_A_SECOND) -> Iterator[None]:
    """Write Headrace's logs from `level` on to `stream` while inside, in this `form`.

    Raises `ConfigurationError` for an unknown form or level.
    """
    for given, known in ((form, get_args(LogFormat)), (level, get_args(LogLevel))):
        if given not in known:
            raise ConfigurationError(f"there is no log format or level {given!r}", hint=f"one of {', '.join(known)}")
    logger = logging.getLogger("headrace")
    handler = logging.StreamHandler(stream)
    handler.addFilter(RecordFilter(most))
    handler.setFormatter(JsonLines() if form == "json" else PlainText())
    before = logger.level, logger.propagate
    logger.setLevel(level.upper())
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        logger.setLevel(before[0])
