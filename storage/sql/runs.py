"""Runs and receipts as SQL, the same text on PostgreSQL and SQLite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headrace.errors import LostCommitsError
from headrace.storage.holdings import LedgerEntry
from headrace.storage.interface import PROVIDER, Counts, Receipt, RunRecord, RunStatus
from headrace.storage.runs import RunProgress
from headrace.storage.sql import ledger_rows
from headrace.storage.sql.schema import RECEIPTS, RUNS
from headrace.storage.sql.transactions import Transactions, in_blocks

__all__ = ["SqlRuns"]

LEDGER_ROWS = 10_000  # fetched at once


class SqlRuns(Transactions, ABC):
    """The half of a `Store` that keeps runs and reads receipts."""

    @abstractmethod
    def _now(self) -> Any:
        """The server's clock, as a value or an SQL expression that goes into a timestamp column."""

    @abstractmethod
    def _insert(self, table: sa.Table) -> Any:
        """The dialect's INSERT, which knows ON CONFLICT."""

    def start_run(self, run: RunRecord, *, because: str | None = None) -> RunRecord:
        insert = self._insert(RUNS).values(ledger_rows.run_values(run, self._now()))
        # the same run again is one whose COMMIT was not answered
        once = insert.on_conflict_do_update(index_elements=["run_id"], set_={"status": insert.excluded.status})

        def work(connection: sa.Connection) -> datetime | str:
            if run.supersedes is not None:
                self._close_run(connection, run.supersedes, 0.0, "failed", because, job=None)
            started: datetime | str = connection.execute(once.returning(RUNS.c.started_at)).scalar_one()
            return started

        return replace(run, started_at=ledger_rows.moment(self._write(work)))

    def unfinished_runs(self, table: str, job: str, *, limit: int) -> list[RunRecord]:
        with self._reading() as connection:
            return [
                ledger_rows.run_of(row)
                for row in connection.execute(ledger_rows.unfinished(table, job, limit)).mappings()
            ]

    def reopen_run(self, run_id: str, holder: str | None = None) -> datetime:
        values = {"status": "running", "finished_at": self._now(), "error": None, "holder": holder}
        again = sa.update(RUNS).where(RUNS.c.run_id == run_id).values(values).returning(RUNS.c.finished_at)
        return ledger_rows.moment(self._write(lambda connection: connection.execute(again).scalar_one()))

    def finish_run(
        self,
        run_id: str,
        *,
        status: RunStatus,
        seconds: float,
        error: str | None = None,
        counted: Counts | None = None,
    ) -> RunRecord:
        def work(connection: sa.Connection) -> RunRecord | None:
            return self._close_run(connection, run_id, seconds, status, error, counted=counted)

        if (finished := self._write(work)) is None:
            raise LostCommitsError(
                "the run is not in the ledger any more: it was deleted, or the database has lost what it had confirmed",
                where=f"{self._url}, run {run_id}",
                hint="run the same command again: what is in the table is found as duplicates",
            )
        return finished

    def _close_run(
        self,
        connection: sa.Connection,
        run_id: str,
        seconds: float,
        status: RunStatus,
        error: str | None,
        *,
        counted: Counts | None = None,
        **more: None,
    ) -> RunRecord | None:
        """Write how the run ended; it stays as it is where its receipts do not sum to what was `counted`."""
        this = RUNS.c.run_id == run_id
        books = connection.execute(ledger_rows.sum_of_receipts(run_id)).mappings().one()
        if counted is not None and ledger_rows.counts_of(books) != counted:
            row = connection.execute(sa.select(RUNS).where(this)).mappings().first()
            return None if row is None else replace(ledger_rows.run_of(row), counts=ledger_rows.counts_of(books))
        values = ledger_rows.finished_values(books, status, seconds, error, self._now()) | more
        row = connection.execute(sa.update(RUNS).where(this).values(values).returning(*RUNS.columns)).mappings().first()
        return None if row is None else ledger_rows.run_of(row)

    def runs(self, *, table: str | None = None, limit: int = 50) -> list[RunRecord]:
        newest = sa.select(RUNS).order_by(RUNS.c.started_at.desc()).limit(limit)
        if table is not None:
            newest = newest.where(RUNS.c.table_name == table)
        with self._reading() as connection:
            return [ledger_rows.run_of(row) for row in connection.execute(newest).mappings()]

    def run(self, run_id: str) -> RunRecord | None:
        alike = sa.select(RUNS).where(RUNS.c.run_id.startswith(run_id, autoescape=True))
        # a whole ID is the shortest that begins with itself
        shortest_first = alike.order_by(sa.func.length(RUNS.c.run_id)).limit(2)
        with self._reading() as connection:
            rows = connection.execute(shortest_first).mappings().all()
        unique = len(rows) == 1 or (bool(rows) and rows[0]["run_id"] == run_id)
        return ledger_rows.run_of(rows[0]) if unique else None

    def progress(self, run_ids: Sequence[str]) -> dict[str, RunProgress]:
        with self._reading() as connection:
            found = connection.execute(ledger_rows.progress_of(run_ids, self._now())).mappings().all()
        return {row["run_id"]: ledger_rows.progress_from(row) for row in found}

    def receipts(self, run_id: str) -> list[Receipt]:
        ordered = sa.select(RECEIPTS).where(RECEIPTS.c.run_id == run_id).order_by(RECEIPTS.c.receipt_id)
        with self._reading() as connection:
            return [ledger_rows.receipt_of(row) for row in connection.execute(ordered).mappings()]

    def receipt(self, receipt_id: int) -> Receipt | None:
        with self._reading() as connection:
            found = connection.execute(sa.select(RECEIPTS).where(RECEIPTS.c.receipt_id == receipt_id)).mappings()
            row = found.first()
        return None if row is None else ledger_rows.receipt_of(row)

    def receipts_numbered(self, receipt_ids: Sequence[int]) -> Iterator[Receipt]:
        with self._reading() as connection:
            for block in in_blocks(receipt_ids):
                found = connection.execute(sa.select(RECEIPTS).where(RECEIPTS.c.receipt_id.in_(block)))
                yield from map(ledger_rows.receipt_of, found.mappings())

    def ledger(self, table: str) -> Iterator[LedgerEntry]:
        with self._reading() as connection:
            streaming = connection.execution_options(yield_per=LEDGER_ROWS)
            yield from map(ledger_rows.entry_of, streaming.execute(ledger_rows.entries_of(table)).mappings())

    def other_providers(self, table: str, provider: str) -> Mapping[str, int]:
        of_table = (RECEIPTS.c.table_name == table, RECEIPTS.c.inserted > 0)
        own = sa.select(RECEIPTS.c.receipt_id).where(*of_table, RECEIPTS.c.provider == provider).limit(1)
        any_other = sa.select(RECEIPTS.c.receipt_id).where(*of_table, RECEIPTS.c.provider != provider).limit(1)
        name: sa.ColumnClause[Any] = sa.column(PROVIDER)
        number = sa.func.count()
        held = sa.select(name, number).select_from(sa.table(table, name)).group_by(name).order_by(number.desc())
        with self._reading() as connection:
            # the ledger is quickly asked, but only a belief: rows may be gone, or have come in another way
            if connection.scalar(own) is not None or connection.scalar(any_other) is None:
                return {}
            others = {str(held_by): int(rows) for held_by, rows in connection.execute(held)}
        return {} if provider in others else others
