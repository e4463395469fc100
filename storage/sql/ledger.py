"""The ledger as SQL, the same text on PostgreSQL and SQLite: contracts, runs and receipts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from headrace.errors import LostCommitsError
from headrace.storage.records import PROVIDER, Counts, LedgerEntry, Receipt, RunProgress, RunRecord, RunStatus
from headrace.storage.sql import ledger_rows
from headrace.storage.sql.database import Database, in_blocks
from headrace.storage.sql.migrations import is_current, is_there, migrate
from headrace.storage.sql.schema import CONTRACTS, RECEIPTS, RUNS

__all__ = ["Ledger"]

LEDGER_ROWS = 10_000  # fetched at once


class Ledger:
    """The part of a store that keeps contracts, runs and receipts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect
        self._is_there = False

    def exists(self) -> bool:
        """Whether Headrace's own tables exist. Raises `SchemaError` if a newer release has used the database."""
        if not self._is_there:
            with self._database.reading() as connection:
                self._is_there = is_there(connection, self._database.url)
        return self._is_there

    def prepare(self, *, create: bool = True) -> None:
        """Create Headrace's own tables where they are missing, and bring those of an older release up to date.

        If there are none, and `create` is false, none is created.
        Safe when several processes do it at once. Raises `SchemaError` if a newer release has used the database.
        """
        self._is_there = False
        if not create and not self.exists():
            return
        with self._database.reading() as connection:
            current = is_current(connection, self._database.url)
        # who only looks into a ledger that is there need not wait for a writer
        if not current:
            self._database.write(self._migrate)
        self._is_there = True

    def _migrate(self, connection: sa.Connection) -> None:
        self._dialect.exclusive(connection)
        migrate(connection, self._database.url, self._dialect.now())

    # Contracts ------------------------------------------------------------------------------------------

    def tables(self) -> list[str]:
        """The event tables: those with a stored contract."""
        with self._database.reading() as connection:
            return list(connection.scalars(sa.select(CONTRACTS.c.table_name).order_by(CONTRACTS.c.table_name)))

    def pinned_contract(self, table: str) -> str | None:
        """The contract stored with `table` (JSON text), ``None`` if there is none."""
        if not self.exists():
            return None
        with self._database.reading() as connection:
            return connection.scalar(sa.select(CONTRACTS.c.contract).where(CONTRACTS.c.table_name == table))

    def pin_contract(self, table: str, contract: str) -> str:
        """Store `contract` unless `table` has one already; return the one that is stored."""
        row = {"table_name": table, "contract": contract, "pinned_at": self._dialect.now()}
        pin = self._dialect.insert(CONTRACTS).values(row).on_conflict_do_nothing()
        stored = sa.select(CONTRACTS.c.contract).where(CONTRACTS.c.table_name == table)

        def work(connection: sa.Connection) -> str:
            connection.execute(pin)
            return str(connection.execute(stored).scalar_one())

        return self._database.write(work, table)

    def extend_contract(self, table: str, stored: str, contract: str) -> str:
        """Replace `stored` by `contract`, unless another contract is stored by now; return the stored contract."""
        of_table = CONTRACTS.c.table_name == table
        extend = sa.update(CONTRACTS).where(of_table, CONTRACTS.c.contract == stored).values(contract=contract)

        def work(connection: sa.Connection) -> str:
            connection.execute(extend)
            return str(connection.execute(sa.select(CONTRACTS.c.contract).where(of_table)).scalar_one())

        return self._database.write(work, table)

    # Runs -----------------------------------------------------------------------------------------------

    def start_run(self, run: RunRecord, *, because: str | None = None) -> RunRecord:
        """Insert `run`; returns it with `started_at` by the database server's clock (aware, UTC).

        The run that it supersedes is closed in the same transaction: as failed, `because` of what is said, with the
        books of its receipts and without a job, so that nothing resumes it.
        """
        insert = self._dialect.insert(RUNS).values(ledger_rows.run_values(run, self._dialect.now()))
        # the same run again is one whose COMMIT was not answered
        once = insert.on_conflict_do_update(index_elements=["run_id"], set_={"status": insert.excluded.status})

        def work(connection: sa.Connection) -> datetime | str:
            if run.supersedes is not None:
                self._close_run(connection, run.supersedes, 0.0, "failed", because, job=None)
            started: datetime | str = connection.execute(once.returning(RUNS.c.started_at)).scalar_one()
            return started

        return replace(run, started_at=ledger_rows.moment(self._database.write(work)))

    def unfinished_runs(self, table: str, job: str, *, limit: int) -> list[RunRecord]:
        """Runs on `table` that are not ``done`` and could be resumed: those of `job` first, the newest first."""
        with self._database.reading() as connection:
            return [
                ledger_rows.run_of(row)
                for row in connection.execute(ledger_rows.unfinished(table, job, limit)).mappings()
            ]

    def reopen_run(self, run_id: str, holder: str | None = None) -> datetime:
        """Set an unfinished run to ``running``, with its `holder`; returns the server's clock now (aware, UTC)."""
        values = {"status": "running", "finished_at": self._dialect.now(), "error": None, "holder": holder}
        again = sa.update(RUNS).where(RUNS.c.run_id == run_id).values(values).returning(RUNS.c.finished_at)
        return ledger_rows.moment(self._database.write(lambda connection: connection.execute(again).scalar_one()))

    def finish_run(
        self,
        run_id: str,
        *,
        status: RunStatus,
        seconds: float,
        error: str | None = None,
        counted: Counts | None = None,
    ) -> RunRecord:
        """Close the run, with its books summed from its receipts by the database; returns the row as stored.

        Where those books are not what was `counted`, the run stays as it is, and the row is returned with them. Raises
        `LostCommitsError` if the run is no longer in the ledger.
        """

        def work(connection: sa.Connection) -> RunRecord | None:
            return self._close_run(connection, run_id, seconds, status, error, counted=counted)

        if (finished := self._database.write(work)) is None:
            raise LostCommitsError(
                "the run is no longer in the ledger: it was deleted, or the database has lost confirmed commits",
                where=f"{self._database.url}, run {run_id}",
                hint="run the same command again: events in the table are found as duplicates",
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
        values = ledger_rows.finished_values(books, status, seconds, error, self._dialect.now()) | more
        row = connection.execute(sa.update(RUNS).where(this).values(values).returning(*RUNS.columns)).mappings().first()
        return None if row is None else ledger_rows.run_of(row)

    def runs(self, *, table: str | None = None, limit: int = 50) -> list[RunRecord]:
        """The newest runs first."""
        newest = sa.select(RUNS).order_by(RUNS.c.started_at.desc()).limit(limit)
        if table is not None:
            newest = newest.where(RUNS.c.table_name == table)
        with self._database.reading() as connection:
            return [ledger_rows.run_of(row) for row in connection.execute(newest).mappings()]

    def run(self, run_id: str) -> RunRecord | None:
        """One run by its ID, or by a prefix of it that is unique."""
        alike = sa.select(RUNS).where(RUNS.c.run_id.startswith(run_id, autoescape=True))
        # a whole ID is the shortest that begins with itself
        shortest_first = alike.order_by(sa.func.length(RUNS.c.run_id)).limit(2)
        with self._database.reading() as connection:
            rows = connection.execute(shortest_first).mappings().all()
        unique = len(rows) == 1 or (bool(rows) and rows[0]["run_id"] == run_id)
        return ledger_rows.run_of(rows[0]) if unique else None

    def progress(self, run_ids: Sequence[str]) -> dict[str, RunProgress]:
        """The progress of the runs that have receipts. One statement."""
        with self._database.reading() as connection:
            found = connection.execute(ledger_rows.progress_of(run_ids, self._dialect.now())).mappings().all()
        return {row["run_id"]: ledger_rows.progress_from(row) for row in found}

    def receipts(self, run_id: str) -> list[Receipt]:
        """The run's receipts, ordered by receipt ID."""
        ordered = sa.select(RECEIPTS).where(RECEIPTS.c.run_id == run_id).order_by(RECEIPTS.c.receipt_id)
        with self._database.reading() as connection:
            return [ledger_rows.receipt_of(row) for row in connection.execute(ordered).mappings()]

    def receipt(self, receipt_id: int) -> Receipt | None:
        """One receipt by its ID."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(RECEIPTS).where(RECEIPTS.c.receipt_id == receipt_id)).mappings()
            row = found.first()
        return None if row is None else ledger_rows.receipt_of(row)

    def receipts_numbered(self, receipt_ids: Sequence[int]) -> Iterator[Receipt]:
        """The existing receipts among these IDs."""
        with self._database.reading() as connection:
            for block in in_blocks(receipt_ids):
                found = connection.execute(sa.select(RECEIPTS).where(RECEIPTS.c.receipt_id.in_(block)))
                yield from map(ledger_rows.receipt_of, found.mappings())

    def entries(self, table: str) -> Iterator[LedgerEntry]:
        """The ledger entry of every receipt of `table`, ordered by receipt ID."""
        with self._database.reading() as connection:
            streaming = connection.execution_options(yield_per=LEDGER_ROWS)
            yield from map(ledger_rows.entry_of, streaming.execute(ledger_rows.entries_of(table)).mappings())

    def other_providers(self, table: str, provider: str) -> Mapping[str, int]:
        """Count the events of other providers in `table`, most first, if it holds none of `provider`.

        Nothing where it holds one of `provider`, or none at all, or the ledger knows of no other provider.
        """
        of_table = (RECEIPTS.c.table_name == table, RECEIPTS.c.inserted > 0)
        own = sa.select(RECEIPTS.c.receipt_id).where(*of_table, RECEIPTS.c.provider == provider).limit(1)
        any_other = sa.select(RECEIPTS.c.receipt_id).where(*of_table, RECEIPTS.c.provider != provider).limit(1)
        name: sa.ColumnClause[Any] = sa.column(PROVIDER)
        number = sa.func.count()
        held = sa.select(name, number).select_from(sa.table(table, name)).group_by(name).order_by(number.desc())
        with self._database.reading() as connection:
            # the ledger is quickly asked, but only a belief: rows may be gone, or have come in another way
            if connection.scalar(own) is not None or connection.scalar(any_other) is None:
                return {}
            others = {str(held_by): int(rows) for held_by, rows in connection.execute(held)}
        return {} if provider in others else others
