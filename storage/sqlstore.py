"""What both stores share: the transaction of a commit, the ledger, retries. `PostgresStore` and `SqliteStore` add how
events are written, how IDs are fetched and how a table is reflected.

    commit(slice) ─► claim the receipt ─► write the events ─► keep the rejects ─► complete the receipt ─► COMMIT
                         │ taken                │ unique key refused some
                         ▼                      ▼
                     already done           safe path: which of them went in?
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

import pyarrow as pa
import sqlalchemy as sa
from headrace.errors import BooksError, InputError, RetryableStoreError, SchemaError, StoreError
from headrace.storage import ledger
from headrace.storage.base import (
    EVENT_ID,
    RECEIPT,
    RESERVED_COLUMNS,
    Committed,
    IdRange,
    Origin,
    Receipt,
    RejectState,
    RunRecord,
    RunStatus,
    Slice,
    StatementHook,
    StoredReject,
    TimeRange,
)
from headrace.storage.failures import translated
from headrace.storage.schema import CONTRACTS, LEDGER, RECEIPTS, REJECTS, RUNS, event_table, kind
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["SqlStore", "Written", "require_fit", "require_type"]

TRIES = 6
FIRST_PAUSE = 0.05  # seconds, doubled with each try and jittered
T = TypeVar("T")


class Written(NamedTuple):
    """What became of a slice's events; `inserted` are packed IDs, ``None`` when all of them went in."""

    path: Literal["fast", "safe", "none"]
    inserted: bytes | None


class SqlStore(ABC):
    """The half of a `Store` that is the same text on PostgreSQL and SQLite."""

    def __init__(self, engine: sa.Engine, url: str, on_statement: StatementHook | None) -> None:
        self._engine = engine
        self._url = url
        self._on_statement = on_statement
        sa.event.listen(engine, "before_cursor_execute", self._before_execute)

    @property
    def url(self) -> str:
        return self._url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    # What each database does its own way --------------------------------------------------------------------------

    @abstractmethod
    def table_schema(self, table: str) -> pa.Schema | None: ...

    @abstractmethod
    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]: ...

    @abstractmethod
    def fetch_ids_of_inputs(self, table: str, inputs_key: str) -> Iterator[bytes]: ...

    @abstractmethod
    def describe(self) -> dict[str, str]: ...

    @abstractmethod
    def _write_events(self, connection: sa.Connection, piece: Slice, receipt_id: int) -> Written: ...

    @abstractmethod
    def _now(self) -> Any:
        """The server's clock, as a value or an SQL expression that goes into a timestamp column."""

    @abstractmethod
    def _exclusive(self, connection: sa.Connection) -> None:
        """Keep other processes from changing tables until this transaction ends."""

    # Tables -------------------------------------------------------------------------------------------------------

    def prepare_ledger(self) -> None:
        with self._writing() as connection:
            self._exclusive(connection)
            LEDGER.create_all(connection)

    def create_or_widen(self, table: str, schema: pa.Schema, *, time_index: str | None) -> bool:
        present = self.table_schema(table)
        missing = _missing(table, schema, present)
        if present is not None and not missing:
            return False
        with self._writing() as connection:
            self._exclusive(connection)
            # another process may have been quicker while we waited for the lock
            present = self.table_schema(table)
            missing = _missing(table, schema, present)
            if present is None:
                self._create(connection, table, schema, time_index)
                return True
            self._widen(connection, table, pa.schema(missing))
        return False

    def _create(self, connection: sa.Connection, table: str, schema: pa.Schema, time_index: str | None) -> None:
        events = event_table(table, schema, self._engine.dialect.name)
        events.create(connection)
        if time_index is not None:
            sa.Index(None, events.c[time_index]).create(connection)

    def _widen(self, connection: sa.Connection, table: str, added: pa.Schema) -> None:
        dialect = self._engine.dialect
        target = dialect.identifier_preparer.quote(table)
        for column in event_table(table, added, dialect.name).columns:
            if column.name not in RESERVED_COLUMNS:
                specification = sa.schema.CreateColumn(column).compile(dialect=dialect)
                connection.exec_driver_sql(f"ALTER TABLE {target} ADD COLUMN {specification}")

    def tables(self) -> list[str]:
        with self._reading() as connection:
            return list(connection.scalars(sa.select(CONTRACTS.c.table_name).order_by(CONTRACTS.c.table_name)))

    def pinned_contract(self, table: str) -> str | None:
        with self._reading() as connection:
            return connection.scalar(sa.select(CONTRACTS.c.contract).where(CONTRACTS.c.table_name == table))

    def pin_contract(self, table: str, contract: str) -> str:
        row = {"table_name": table, "contract": contract, "pinned_at": self._now()}
        with self._writing() as connection:
            connection.execute(self._insert(CONTRACTS).values(row).on_conflict_do_nothing())
            return str(connection.scalar(sa.select(CONTRACTS.c.contract).where(CONTRACTS.c.table_name == table)))

    # Runs ---------------------------------------------------------------------------------------------------------

    def start_run(self, run: RunRecord) -> RunRecord:
        insert = self._insert(RUNS).values(ledger.run_values(run, self._now())).returning(RUNS.c.started_at)
        with self._writing() as connection:
            started: datetime | str = connection.execute(insert).scalar_one()
        return replace(run, started_at=ledger.moment(started))

    def unfinished_run(self, table: str, job: str) -> RunRecord | None:
        with self._reading() as connection:
            row = connection.execute(ledger.newest_unfinished(table, job)).mappings().first()
        return None if row is None else ledger.run_of(row)

    def reopen_run(self, run_id: str) -> datetime:
        values = {"status": "running", "finished_at": self._now(), "error": None}
        again = sa.update(RUNS).where(RUNS.c.run_id == run_id).values(values).returning(RUNS.c.finished_at)
        with self._writing() as connection:
            return ledger.moment(connection.execute(again).scalar_one())

    def finish_run(self, run_id: str, *, status: RunStatus, seconds: float, error: str | None = None) -> RunRecord:
        with self._writing() as connection:
            books = connection.execute(ledger.sum_of_receipts(run_id)).mappings().one()
            values: dict[str, Any] = {
                "status": status,
                "finished_at": self._now(),
                "seconds": RUNS.c.seconds + seconds,
                "chunks": books["chunks"],
                "error": None if error is None else ledger.storable(error),
                **ledger.counts_values(ledger.counts_of(books)),
            }
            finish = sa.update(RUNS).where(RUNS.c.run_id == run_id).values(values).returning(*RUNS.columns)
            row = connection.execute(finish).mappings().one()
        return ledger.run_of(row)

    def runs(self, *, table: str | None = None, limit: int = 50) -> list[RunRecord]:
        newest = sa.select(RUNS).order_by(RUNS.c.started_at.desc()).limit(limit)
        if table is not None:
            newest = newest.where(RUNS.c.table_name == table)
        with self._reading() as connection:
            return [ledger.run_of(row) for row in connection.execute(newest).mappings()]

    def run(self, run_id: str) -> RunRecord | None:
        alike = sa.select(RUNS).where(RUNS.c.run_id.startswith(run_id, autoescape=True)).limit(2)
        with self._reading() as connection:
            rows = connection.execute(alike).mappings().all()
        return ledger.run_of(rows[0]) if len(rows) == 1 else None

    def receipts(self, run_id: str) -> list[Receipt]:
        ordered = sa.select(RECEIPTS).where(RECEIPTS.c.run_id == run_id).order_by(RECEIPTS.c.receipt_id)
        with self._reading() as connection:
            return [ledger.receipt_of(row) for row in connection.execute(ordered).mappings()]

    # Commit -------------------------------------------------------------------------------------------------------

    def commit(self, piece: Slice) -> Committed:
        committed, retries = self._retried(lambda connection: self._commit_in(connection, piece), piece.table)
        return replace(committed, retries=retries)

    def _commit_in(self, connection: sa.Connection, piece: Slice) -> Committed:
        receipt_id = self._claim(connection, piece)
        if receipt_id is None:
            return self._already_done(connection, piece)
        written = self._write_events(connection, piece, receipt_id) if piece.events.num_rows else Written("none", None)
        self._keep_rejects(connection, piece, receipt_id)
        committed = _settled(piece, written, receipt_id)
        complete = sa.update(RECEIPTS).where(RECEIPTS.c.receipt_id == receipt_id)
        connection.execute(complete.values(ledger.counts_values(committed.counts)))
        return committed

    def _claim(self, connection: sa.Connection, piece: Slice) -> int | None:
        claim = self._insert(RECEIPTS).values(ledger.receipt_values(piece, self._now()))
        claim = claim.on_conflict_do_nothing(index_elements=["run_id", "source", "first_row"])
        return connection.execute(claim.returning(RECEIPTS.c.receipt_id)).scalar()

    def _already_done(self, connection: sa.Connection, piece: Slice) -> Committed:
        values = ledger.receipt_values(piece, None)
        same = [RECEIPTS.c[name] == values[name] for name in ("run_id", "source", "first_row")]
        receipt = ledger.receipt_of(connection.execute(sa.select(RECEIPTS).where(*same)).mappings().one())
        if receipt.digest != piece.digest:
            raise InputError(
                "the input is not what it was when this run began",
                where=str(piece.address),
                hint="load it as a new run with --no-resume; events already loaded will be found again as duplicates",
            )
        return Committed(receipt.receipt_id, receipt.counts, already_done=True)

    def _keep_rejects(self, connection: sa.Connection, piece: Slice, receipt_id: int) -> None:
        if piece.rejects:
            rows = [ledger.reject_values(piece, reject, receipt_id) for reject in piece.rejects]
            connection.execute(sa.insert(REJECTS).values(created_at=self._now()), rows)
        if piece.replayed:
            self._settle_rejects(connection, piece.replayed, "replayed")

    def _insert(self, table: sa.Table) -> Any:
        return (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)

    # Reading back -------------------------------------------------------------------------------------------------

    def origin(self, table: str, event_id: bytes) -> Origin | None:
        events = sa.table(table, sa.column(EVENT_ID), sa.column(RECEIPT))
        found: sa.Select[Any] = (
            sa.select(sa.literal_column("*")).select_from(events).where(events.c[EVENT_ID] == self._id(event_id))
        )
        with self._reading() as connection:
            row = connection.execute(found).mappings().first()
            if row is None:
                return None
            receipt = connection.execute(sa.select(RECEIPTS).where(RECEIPTS.c.receipt_id == row[RECEIPT])).mappings()
            brought = receipt.first()
        if brought is None:
            return Origin(dict(row), None, None)
        return Origin(dict(row), ledger.receipt_of(brought), self.run(brought["run_id"]))

    @abstractmethod
    def _id(self, event_id: bytes) -> Any:
        """A packed ID as a value to compare the ``event_id`` column with."""

    def rejects(
        self,
        *,
        table: str | None = None,
        run_id: str | None = None,
        ids: Sequence[int] | None = None,
        state: RejectState | None = "kept",
        limit: int | None = None,
    ) -> list[StoredReject]:
        found = ledger.rejects_where(table=table, run_id=run_id, ids=ids, state=state, limit=limit)
        with self._reading() as connection:
            return [ledger.reject_of(row) for row in connection.execute(found).mappings()]

    def discard_rejects(self, ids: Sequence[int]) -> int:
        with self._writing() as connection:
            return self._settle_rejects(connection, ids, "discarded")

    def _settle_rejects(self, connection: sa.Connection, ids: Sequence[int], state: RejectState) -> int:
        kept = REJECTS.c.reject_id.in_(list(ids)) & (REJECTS.c.state == "kept")
        return connection.execute(sa.update(REJECTS).where(kept).values(state=state, settled_at=self._now())).rowcount

    # Transactions -------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with translated(self._url), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with translated(self._url), self._engine.connect() as connection:
            reader = connection.execution_options(headrace_reading=True)
            with reader.begin():
                yield reader

    def _retried(self, work: Callable[[sa.Connection], T], table: str) -> tuple[T, int]:
        """Run `work` in a transaction of its own, and again whole for as long as the failure may pass."""
        for attempt in range(TRIES):
            try:
                with translated(f"{self._url}, table {table}"), self._engine.begin() as connection:
                    return work(connection), attempt
            except RetryableStoreError as error:
                if attempt == TRIES - 1:
                    error.add_note(f"given up after {TRIES} tries")
                    raise
                # jitter keeps loaders that collided from colliding again; nothing secret hangs on it
                time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
        raise StoreError("unreachable: the last try either returns or raises")

    def _before_execute(self, *event: Any) -> None:
        self._say(event[2])

    def _say(self, statement: str) -> None:
        if self._on_statement is not None:
            self._on_statement(statement)


def _settled(piece: Slice, written: Written, receipt_id: int) -> Committed:
    offered = piece.events.num_rows
    inserted = offered if written.inserted is None else len(written.inserted) // 16
    counts = replace(
        piece.counts, inserted=inserted, duplicate_in_store=piece.counts.duplicate_in_store + offered - inserted
    )
    if not counts.balanced:
        raise BooksError(f"the chunk's books do not balance: {counts}", where=str(piece.address))
    return Committed(receipt_id, counts, inserted_ids=written.inserted, path=written.path)


def _missing(table: str, schema: pa.Schema, present: pa.Schema | None) -> list[pa.Field]:
    """The fields of `schema` that the table lacks. Raises `SchemaError` where a type differs."""
    held = {} if present is None else {field.name: field.type for field in present}
    for field in schema:
        if field.name in held and kind(held[field.name]) != kind(field.type):
            raise SchemaError(
                f"the input has {kind(field.type)}, the table holds {kind(held[field.name])}",
                where=f"{table}, column {field.name}",
                hint=f"convert it: --type {field.name}={kind(held[field.name])} or --select; or name another --table",
            )
    return [field for field in schema if field.name not in held]


def require_fit(table: str, names: Sequence[str], unique: Sequence[Sequence[str]], cure: str) -> None:
    """Raise `SchemaError` unless the table has the reserved columns and a unique key on ``event_id`` alone."""
    lacking = [name for name in RESERVED_COLUMNS if name not in names]
    if lacking:
        raise SchemaError(f"the table exists, but has no column {', '.join(lacking)}", where=table, hint=cure)
    if [EVENT_ID] not in [list(columns) for columns in unique]:
        raise SchemaError(
            "the table has no unique key on event_id, the authority on duplicates", where=table, hint=cure
        )


def require_type(table: str, name: str, arrow: pa.DataType | None, found: object) -> pa.DataType:
    """`arrow`, or `SchemaError` for a column whose type `found` has no canonical counterpart."""
    if arrow is None:
        raise SchemaError(
            f"Headrace cannot write a column of type {found}",
            where=f"{table}, column {name}",
            hint="change the column's type, or load into another table",
        )
    return arrow
