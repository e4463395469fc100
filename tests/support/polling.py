"""``headrace run`` inside the test's own process: rounds under a clock that the test sets, every statement heard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from headrace.polling import service
from headrace.polling.config_file import read_settings
from headrace.polling.poll import Poll, Round
from headrace.polling.service import Service, Wanted
from headrace.storage import open_store

__all__ = ["FakeClock", "Heard", "Rounds", "hear", "rounds"]

START = datetime(2026, 3, 1, tzinfo=UTC)


class FakeClock:
    """Time passes when the test says so, or when somebody waits."""

    def __init__(self, now: datetime = START) -> None:
        self.moment = now

    def now(self) -> datetime:
        return self.moment

    def wait(self, seconds: float, stop: Event) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class Heard:
    """The statements that reached the database, in order; what only begins a transaction is left out."""

    statements: list[str] = field(default_factory=list)

    def __call__(self, statement: str) -> None:
        text = " ".join(statement.replace('"', "").split())
        if not text.startswith(("BEGIN", "COMMIT")):
            self.statements.append(text)

    def about(self, pattern: str) -> list[str]:
        return [one for one in self.statements if re.search(pattern, one)]

    def take(self) -> list[str]:
        taken, self.statements = self.statements, []
        return taken


def hear(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Hear every statement of the service's own store (the thread that renews claims has another)."""
    heard = Heard()
    monkeypatch.setattr(service, "open_store", lambda url: open_store(url, on_statement=heard))
    return heard


@dataclass
class Rounds:
    """A service that is open, and its clock."""

    service: Service
    clock: FakeClock
    stop: Event

    def __call__(self, after: float = 0.0) -> Round:
        """The round `after` seconds from now."""
        self.clock.moment += timedelta(seconds=after)
        return self.service.round()

    def one(self, after: float = 0.0) -> Poll:
        """The same, where there is one provider."""
        (poll,) = self(after).polls
        return poll


@contextmanager
def rounds(
    folder: Path, text: str, *, clock: FakeClock | None = None, wanted: Wanted | None = None
) -> Iterator[Rounds]:
    """A service over the file `text`."""
    file = folder / "headrace.toml"
    file.write_text(text)
    clock, stop = clock or FakeClock(), Event()
    with Service(read_settings(file), wanted or Wanted(), clock, stop) as service:
        yield Rounds(service, clock, stop)
