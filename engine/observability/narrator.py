"""Logging a run: one record for each slice, and a warning for each slow run, stage and statement.

observing(Narrator(Thresholds(query=5.0)))
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.errors import ConfigurationError
from headrace.observability.metrics import statement_of
from headrace.observability.stages import Listener, PoolHealth, RunFacts, Silent
from headrace.report import Report
from headrace.storage.records import Committed, Slice
from headrace.storage.spans import Span

__all__ = ["Narrator", "Thresholds"]

log = logging.getLogger("headrace.run")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Seconds from which on work is slow, ``None`` for never: the run of a provider, one stage of a chunk or slice
    (not waiting), one statement in the database.
    """

    provider: float | None = None
    chunk: float | None = None
    query: float | None = None

    def __post_init__(self) -> None:
        for value in (self.provider, self.chunk, self.query):
            if value is not None and value <= 0:
                raise ConfigurationError("a threshold must be longer than 0", hint="--slow-query 5s")


class Narrator:
    """An observer that logs each run."""

    def __init__(self, slow: Thresholds) -> None:
        self._slow = slow

    def __call__(self, run: RunFacts) -> Listener:  # noqa: ARG002 - an observer's signature
        """The listener for a run."""
        return _Narration(self._slow)


class _Narration(Silent):
    def __init__(self, slow: Thresholds) -> None:
        self._slow = slow
        self._provider = ""

    def began(self, run: RunFacts) -> None:
        self._provider = run.provider
        log.info(
            "run %s began: %s into %s, %s", run.run_id, run.provider, run.table, run.strategy,
            extra={"workers": run.pool.wanted, "flag": run.decision.flag, "flag_source": run.decision.source},
        )  # fmt: skip

    def measured(self, spans: Sequence[Span]) -> None:
        for span in spans:
            statement = statement_of(span.stage)
            if statement is not None:
                self._warn("statement", statement, span, self._slow.query)
            elif not span.stage.startswith("wait."):
                self._warn("stage", span.stage, span, self._slow.chunk)

    def committed(self, piece: Slice, done: Committed) -> None:
        counts = done.counts
        log.info(
            "committed %s", piece.address,
            extra={
                "chunk": str(piece.address), "partition": piece.partition, "path": done.path, "read": counts.read,
                "inserted": counts.inserted, "duplicate_in_input": counts.duplicate_in_input,
                "duplicate_in_store": counts.duplicate_in_store, "rejected": counts.rejected,
                "already_done": done.already_done, "retries": done.retries,
            },
        )  # fmt: skip

    def pool(self, health: PoolHealth) -> None:
        log.debug("%d of %d workers, pool restarted %d times", health.alive, health.wanted, health.restarted)

    def ended(self, report: Report) -> None:
        facts = {name: value for name, value in report.to_dict().items() if name not in {"run_id", "provider", "table"}}
        log.info("run %s is done", report.run_id, extra=facts)
        if self._slow.provider is not None and report.seconds >= self._slow.provider:
            log.warning(
                "slow provider: %s took %.1f s", self._provider, report.seconds, extra={"seconds": report.seconds}
            )

    def failed(self, error: BaseException) -> None:
        log.error("the run failed: %s: %s", type(error).__name__, error, extra={"error": type(error).__name__})

    def _warn(self, what: str, name: str, span: Span, limit: float | None) -> None:
        if limit is None or span.seconds < limit:
            return
        facts: dict[str, object] = {what: name, "seconds": round(span.seconds, 3), "rows": span.rows}
        if span.source:
            facts |= {"chunk": f"{span.source}, from row {span.first_row}", "partition": span.partition}
        log.warning("slow %s: %s took %.1f s", what, name, span.seconds, extra=facts)
