"""How often a failed transaction is tried again, and how long each retry waits."""

from __future__ import annotations

import random
import time

from headrace.errors import ConnectionLostError, RetryableStoreError

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "SERVER_AWAY", "TRIES", "RetryPolicy"]

TRIES = 6
SERVER_AWAY = 30.0  # seconds, from the first failure of a transaction on
FIRST_PAUSE = 0.05  # seconds, doubled with each try and jittered
LONGEST_PAUSE = 2.0  # seconds, before jitter


class RetryPolicy:
    """The retries of one transaction: while the server is away by the time, after a conflict by the number."""

    def __init__(self) -> None:
        self.failures = 0
        self._conflicts = 0
        self._away_since: float | None = None

    def allows(self, error: RetryableStoreError) -> bool:
        """Count a failure; returns whether to try again."""
        self.failures += 1
        if isinstance(error, ConnectionLostError):
            self._away_since = self._away_since or time.monotonic()
            return time.monotonic() - self._away_since < SERVER_AWAY
        self._conflicts += 1
        return self._conflicts < TRIES

    def pause(self) -> float:
        """Seconds until the next try."""
        pause = min(FIRST_PAUSE * 2 ** (self.failures - 1), LONGEST_PAUSE)
        # jitter keeps loaders that collided from colliding again; nothing secret hangs on it
        return float(pause * random.uniform(0.5, 1.5))  # noqa: S311
