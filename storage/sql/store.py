"""What both stores share: the transaction of a commit, the ledger, retries. `PostgresStore` and `SqliteStore` add how
events are written, how IDs are fetched and how a table is reflected.

    commit(slice) ─► claim the receipt ─► take its locks ─► write the events ─► compare the repeats, ─► keep the rejects
                         │ taken              │ not in time         │               raise the alerts        │
                         ▼                    ▼                     ▼ unique key refused some               ▼
                     already done        LockTimeoutError       safe path: which went in?     complete the receipt
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from headrace.errors import BooksError, StaleReceiptsError
from headrace.storage.digest import NOTHING, Digest
from headrace.storage.held import HeldRows
from headrace.storage.holdings import Holdings
from headrace.storage.id_sums import IdSum
from headrace.storage.interface import (
    EVENT_ID,
    RECEIPT,
    RESERVED_COLUMNS,
    Committed,
    IdRange,
    Origin,
    Slice,
    StatementHook,
    TimeRange,
)
from headrace.storage.spans import Stopwatch
from headrace.storage.sql import ledger_rows
from headrace.storage.sql.doctor import Checks
from headrace.storage.sql.facts import Facts, require_columns
from headrace.storage.sql.fit import missing
from headrace.storage.sql.limits import Limits
from headrace.storage.sql.migrations import is_current, is_there, migrate
from headrace.storage.sql.numbers import NumberTakenError, catch_up
from headrace.storage.sql.outbox import SqlOutbox
from headrace.storage.sql.providers import ProviderTable
from headrace.storage.sql.rejects import SqlRejects
from headrace.storage.sql.revise import UNREVISED, Aside, Revised, candidates, revise
from headrace.storage.sql.runs import SqlRuns
from headrace.storage.sql.schema import CONTRACTS, RECEIPT_KEY, RECEIPTS, event_table
from headrace.storage.sql.stored_forms import StoredForms
from headrace.storage.sql.whole_rows import RowForm

__all__ = ["Opened", "SqlStore", "Written", "in_packs"]

LEDGER_ROWS = 10_000  # fetched at once
LONGEST_USUAL = 50  # of an index's name, so that a number fits behind it


class Written(NamedTuple):
    """What became of a slice's events; `inserted` are packed IDs, ``None`` when all of them went in."""

    path: Literal["fast", "safe", "none"]
    inserted: bytes | None


class Opened(NamedTuple):
    """How a commit began: its receipt, ``None`` where that is taken, and the seconds that its locks were waited for."""

    receipt_id: int | None
    waited: float = 0.0


class SqlStore(SqlOutbox, SqlRejects, SqlRuns, ProviderTable, Checks, ABC):
    """The half of a `Store` that is the same text on PostgreSQL and SQLite."""

    def __init__(self, engine: sa.Engine, url: str, on_statement: StatementHook | None) -> None:
        super().__init__(engine, url, on_statement)
        # what each table is like; in a commit, what it is like under that commit's lock (`_opened`)
        self._facts: dict[str, Facts] = {}
        self._ledger_is_there = False

    # What each database does its own way --------------------------------------------------------------------------

    @abstractmethod
    def _reflect(self, connection: sa.Connection, table: str, *, keyed: bool = True) -> Facts | None:
        """What `table` is like as `connection` sees it, its own uncommitted changes included; ``None`` if absent."""

    @abstractmethod
    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]: ...

    @abstractmethod
    def held(self, table: str, ids: bytes) -> Iterator[bytes]: ...

    @abstractmethod
    def holdings(self, table: str) -> Iterator[Holdings]: ...

    @abstractmethod
    def rows(self, table: str, columns: pa.Schema, *, ids: Sequence[bytes] | None = None) -> Iterator[HeldRows]: ...

    @abstractmethod
    def _row_form(self, connection: sa.Connection, table: str) -> RowForm:
        """How a whole row of `table` is fetched and told."""

    @abstractmethod
    def stored_forms(self, table: str) -> StoredForms: ...

    @abstractmethod
    def describe(self) -> dict[str, str]: ...

    @abstractmethod
    def _opened(self, connection: sa.Connection, piece: Slice) -> Opened:
        """Keep the table as it is until the transaction ends, claim the receipt, take the slice's locks, and learn what
        the table is like now (`_facts`).
        """

    @abstractmethod
    def _complete(self, connection: sa.Connection, books: sa.Update) -> None:
        """Write the receipt's books, and COMMIT."""

    @abstractmethod
    def _write_events(self, connection: sa.Connection, piece: Slice, receipt_id: int) -> Written: ...

    @abstractmethod
    def _prove(self, connection: sa.Connection, piece: Slice, written: Written, receipt_id: int) -> None:
        """Raise `StoreError` unless the table has every event of the slice as it was sent."""

    @abstractmethod
    def _put_repeats_aside(self, connection: sa.Connection, table: str, aside: Aside) -> sa.TableClause:
        """A temporary table with the rows of `aside`, its columns of the types that `table` has."""

    @abstractmethod
    def _exclusive(self, connection: sa.Connection) -> None:
        """Keep other processes from changing tables until this transaction ends."""

    # Tables -------------------------------------------------------------------------------------------------------

    def is_in_place(self) -> bool:
        return True

    def id_sum(self, table: str, ranges: Sequence[IdRange | None]) -> IdSum | None:  # noqa: ARG002 - for who can
        return None

    def has_ledger(self) -> bool:
        if not self._ledger_is_there:
            with self._reading() as connection:
                self._ledger_is_there = is_there(connection, self._url)
        return self._ledger_is_there

    def prepare_ledger(self, *, create: bool = True) -> None:
        self._ledger_is_there = False
        if not create and not self.has_ledger():
            return
        with self._reading() as connection:
            current = is_current(connection, self._url)
        # who only looks into a ledger that is there need not wait for a writer
        if not current:
            self._write(self._migrate)
        self._ledger_is_there = True

    def _migrate(self, connection: sa.Connection) -> None:
        self._exclusive(connection)
        migrate(connection, self._url, self._now())

    def table_schema(self, table: str, *, keyed: bool = True) -> pa.Schema | None:
        with self._reading() as connection:
            facts = self._reflect(connection, table, keyed=keyed)
        return None if facts is None else facts.schema

    def limits(self, table: str) -> Limits:
        facts = self._lately(table)
        columns = () if facts is None else facts.columns.values()
        return {one.name: one.limit for one in columns if one.limit is not None}

    def filled_columns(self, table: str) -> frozenset[str]:
        facts = self._lately(table)
        return frozenset() if facts is None else facts.filled - {*RESERVED_COLUMNS}

    def require_writable(self, table: str, columns: Sequence[str], *, whole: bool = True) -> None:
        facts = self._lately(table)
        if facts is not None:
            require_columns(table, facts, columns, whole=whole)

    def _lately(self, table: str) -> Facts | None:
        """What the table was like when it was looked at last: who asks early is asked again by the commit."""
        if table not in self._facts:
            self.table_schema(table)
        return self._facts.get(table)

    def create_or_widen(self, table: str, schema: pa.Schema, *, time_index: str | None) -> bool:
        present = self.table_schema(table)
        if present is not None and not missing(table, schema, present):
            return False
        return self._write(lambda connection: self._create_or_widen(connection, table, schema, time_index), table)

    def _create_or_widen(
        self, connection: sa.Connection, table: str, schema: pa.Schema, time_index: str | None
    ) -> bool:
        self._exclusive(connection)
        # another process may have been quicker while we waited for the lock
        facts = self._reflect(connection, table)
        self._require_names(table, [*RESERVED_COLUMNS, *(facts.columns if facts is not None else ()), *schema.names])
        if facts is None:
            self._create(connection, table, schema, time_index)
            return True
        lacking = missing(table, schema, facts.schema)
        require_columns(table, facts, [field.name for field in lacking], whole=False)
        self._widen(connection, table, pa.schema(lacking))
        return False

    @abstractmethod
    def _require_names(self, table: str, columns: Sequence[str]) -> None:
        """Raise `SchemaError` unless the database can have these columns beside each other, under these names."""

    def _create(self, connection: sa.Connection, table: str, schema: pa.Schema, time_index: str | None) -> None:
        events = event_table(table, schema, self._engine.dialect.name)
        events.create(connection)
        if time_index is not None:
            index = sa.Index(None, events.c[time_index])
            # a table of this name that was renamed keeps its index, and the index its name
            names = self._engine.dialect.identifier_preparer
            usual, taken = names.format_index(index).strip('"'), 1
            while self._has_index(connection, names.format_index(index).strip('"')):
                taken += 1
                index.name = sa.sql.quoted_name(f"{usual[:LONGEST_USUAL]}_{taken}", quote=None)
            index.create(connection)

    def _has_index(self, connection: sa.Connection, name: str) -> bool:
        """Whether a new index cannot have this name."""
        postgres = "SELECT 1 FROM pg_class WHERE relname = :name AND pg_table_is_visible(oid)"
        sqlite = "SELECT 1 FROM sqlite_master WHERE name = :name COLLATE NOCASE"
        asked = postgres if self._engine.dialect.name == "postgresql" else sqlite
        return connection.execute(sa.text(asked), {"name": name}).first() is not None

    def _widen(self, connection: sa.Connection, table: str, added: pa.Schema) -> None:
        for column in event_table(table, added, self._engine.dialect.name).columns:
            if column.name not in RESERVED_COLUMNS:
                self._add_column(connection, table, column)

    def _add_column(self, connection: sa.Connection, table: str, column: sa.Column[Any]) -> None:
        dialect = self._engine.dialect
        target = dialect.identifier_preparer.quote(table)
        specification = sa.schema.CreateColumn(column).compile(dialect=dialect)
        connection.exec_driver_sql(f"ALTER TABLE {target} ADD COLUMN {specification}")

    def tables(self) -> list[str]:
        with self._reading() as connection:
            return list(connection.scalars(sa.select(CONTRACTS.c.table_name).order_by(CONTRACTS.c.table_name)))

    def pinned_contract(self, table: str) -> str | None:
        if not self.has_ledger():
            return None
        with self._reading() as connection:
            return connection.scalar(sa.select(CONTRACTS.c.contract).where(CONTRACTS.c.table_name == table))

    def pin_contract(self, table: str, contract: str) -> str:
        row = {"table_name": table, "contract": contract, "pinned_at": self._now()}
        pin = self._insert(CONTRACTS).values(row).on_conflict_do_nothing()
        stored = sa.select(CONTRACTS.c.contract).where(CONTRACTS.c.table_name == table)

        def work(connection: sa.Connection) -> str:
            connection.execute(pin)
            return str(connection.execute(stored).scalar_one())

        return self._write(work, table)

    def extend_contract(self, table: str, stored: str, contract: str) -> str:
        of_table = CONTRACTS.c.table_name == table
        extend = sa.update(CONTRACTS).where(of_table, CONTRACTS.c.contract == stored).values(contract=contract)

        def work(connection: sa.Connection) -> str:
            connection.execute(extend)
            return str(connection.execute(sa.select(CONTRACTS.c.contract).where(of_table)).scalar_one())

        return self._write(work, table)

    # Commit -------------------------------------------------------------------------------------------------------

    def commit(self, piece: Slice) -> Committed:
        try:
            return self._commit(piece)
        except NumberTakenError:
            self._write(catch_up)
            return self._commit(piece)

    def _commit(self, piece: Slice) -> Committed:
        self._watch = Stopwatch(piece.address.source, piece.address.first_row, piece.partition)
        with self._watch.stage("commit", rows=piece.events.num_rows, size=piece.events.nbytes):
            tried = self._retried(
                lambda connection: self._commit_in(connection, piece), piece.table, lambda: self._timed(piece)
            )
        spans = tuple(self._watch.spans)
        return replace(tried.value, retries=tried.failures, server_was_away=self._lost_since(), spans=spans)

    @contextmanager
    def _timed(self, piece: Slice) -> Iterator[sa.Connection]:
        """`_begun`, with what getting a connection and BEGIN take."""
        with ExitStack() as transaction:
            with self._watch.stage("commit.begin"):
                connection = transaction.enter_context(self._begun(piece))
            yield connection

    def _begun(self, piece: Slice) -> AbstractContextManager[sa.Connection]:  # noqa: ARG002 - for who locks by BEGIN
        """The transaction that commits `piece`."""
        return self._engine.begin()

    def _commit_in(self, connection: sa.Connection, piece: Slice) -> Committed:
        receipt_id, waited = self._opened(connection, piece)
        if receipt_id is None:
            return self._already_done(connection, piece)
        written = self._write_events(connection, piece, receipt_id) if piece.events.num_rows else Written("none", None)
        revised = self._revise(connection, piece, written)
        alerts = self._raise_alerts(connection, piece, written.inserted, revised.newer, receipt_id)
        self._keep_rejects(connection, piece, receipt_id, revised.kept)
        if piece.events.num_rows and self._facts[piece.table].watchers:
            self._prove(connection, piece, written, receipt_id)
        committed = replace(_settled(piece, written, receipt_id, revised.rows), lock_seconds=waited, alerts=alerts)
        complete = sa.update(RECEIPTS).where(RECEIPTS.c.receipt_id == receipt_id)
        books = ledger_rows.counts_values(committed.counts)
        values = books | {"inserted_digest": _inserted_digest(piece, written), "alerts": alerts}
        self._complete(connection, complete.values(values))
        return committed

    def _claim(self, piece: Slice) -> Any:
        """The statement that inserts the receipt, and returns nothing where it is there."""
        claim = self._insert(RECEIPTS).values(ledger_rows.receipt_values(piece, self._now()))
        claim = claim.on_conflict_do_nothing(index_elements=RECEIPT_KEY)
        return claim.returning(RECEIPTS.c.receipt_id)

    def _already_done(self, connection: sa.Connection, piece: Slice) -> Committed:
        values = ledger_rows.receipt_values(piece, None)
        same = [RECEIPTS.c[name] == values[name] for name in RECEIPT_KEY]
        receipt = ledger_rows.receipt_of(connection.execute(sa.select(RECEIPTS).where(*same)).mappings().one())
        if receipt.digest != piece.digest:
            raise StaleReceiptsError(
                "the input is not what it was when this run began",
                where=str(piece.address),
                hint="load it as a new run with --no-resume; events already loaded will be found again as duplicates",
            )
        return Committed(receipt.receipt_id, receipt.counts, already_done=True, alerts=receipt.alerts)

    def _revise(self, connection: sa.Connection, piece: Slice, written: Written) -> Revised:
        if piece.repeats is None:
            return UNREVISED
        aside = candidates(piece, piece.repeats, written.inserted)
        if not aside.rows.num_rows:
            return UNREVISED
        place = self._put_repeats_aside(connection, piece.table, aside)
        with self._watch.stage("commit.revise", rows=aside.rows.num_rows):
            return revise(connection, piece.table, place, aside, piece.repeats, self._facts[piece.table])

    def _insert(self, table: sa.Table) -> Any:
        return (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)

    # Reading back -------------------------------------------------------------------------------------------------

    def origin(self, table: str, event_id: bytes) -> Origin | None:
        events = sa.table(table, sa.column(EVENT_ID))
        with self._reading() as connection:
            form = self._row_form(connection, table)
            found = sa.select(*form.columns).select_from(events).where(events.c[EVENT_ID] == self._id(event_id))
            held = connection.execute(found).mappings().first()
            if held is None:
                return None
            row = form.row(held)
            receipt = connection.execute(sa.select(RECEIPTS).where(RECEIPTS.c.receipt_id == row[RECEIPT])).mappings()
            brought = receipt.first()
        if brought is None:
            return Origin(row, None, None)
        return Origin(row, ledger_rows.receipt_of(brought), self.run(brought["run_id"]))


def in_packs(ids: bytes, size: int) -> Iterator[bytes]:
    """Packed IDs, `size` of them at a time."""
    for start in range(0, len(ids), 16 * size):
        yield ids[start : start + 16 * size]


def _settled(piece: Slice, written: Written, receipt_id: int, revised: int) -> Committed:
    offered = piece.events.num_rows
    inserted = offered if written.inserted is None else len(written.inserted) // 16
    in_store = piece.counts.duplicate_in_store + offered - inserted
    revised += piece.counts.revised
    counts = replace(piece.counts, inserted=inserted, duplicate_in_store=in_store, revised=revised)
    if not counts.balanced:
        raise BooksError(f"the chunk's books do not balance: {counts}", where=str(piece.address))
    return Committed(receipt_id, counts, inserted_ids=written.inserted, path=written.path)


def _inserted_digest(piece: Slice, written: Written) -> bytes:
    """The digest of the events that went in."""
    if written.inserted is not None:
        return Digest.of_packed(written.inserted).to_bytes()
    if not piece.events.num_rows:
        return NOTHING.to_bytes()
    column = piece.events.column(EVENT_ID)
    packed = memoryview(column.buffers()[1])[column.offset * 16 : (column.offset + len(column)) * 16]
    return Digest.of_packed(packed).to_bytes()
