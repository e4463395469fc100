"""PostgreSQL: events by binary COPY, IDs packed on the server, SQLAlchemy for all the rest.

    fast path   SAVEPOINT ─► COPY events FROM STDIN (FORMAT binary) ─► all in
                                  │ unique_violation: another writer was first
                                  ▼ ROLLBACK TO SAVEPOINT, for these events alone
    safe path   COPY into a temporary table ─► INSERT … SELECT … ORDER BY event_id
                                               ON CONFLICT (event_id) DO NOTHING RETURNING event_id

The order of the inserts keeps two writers from waiting for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from headrace.errors import SchemaError, StoreError
from headrace.storage.base import EVENT_ID, RECEIPT, RESERVED_COLUMNS, IdRange, Slice, StatementHook, TimeRange
from headrace.storage.failures import translated
from headrace.storage.schema import RECEIPTS, RUNS, arrow_of_postgres
from headrace.storage.sqlstore import SqlStore, Written, require_fit, require_type
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

__all__ = ["PostgresStore"]

# Rows encoded at once: the server works on one block while the next is encoded, and pgpq, which holds the GIL, lets
# other threads run in between.
ROWS_PER_BLOCK = 16_384
IDS_PER_ROW = 10_000
NAME_BYTES = 63
# One lock for all changes of tables by Headrace: "headrace" in ASCII, as a 64-bit key.
DDL_LOCK = int.from_bytes(b"headrace", "big", signed=True)
Cursor = psycopg.Cursor[tuple[Any, ...]]


class PostgresStore(SqlStore):
    """A `Store` on PostgreSQL 12 or newer. Commits are as durable as the server's ``synchronous_commit`` says."""

    def __init__(self, url: sa.URL, shown: str, on_statement: StatementHook | None) -> None:
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            connect_args={"application_name": "headrace", "connect_timeout": 10, "keepalives_idle": 30},
        )
        super().__init__(engine, shown, on_statement)
        self._wire: dict[str, pa.Schema] = {}
        with self._reading():
            pass  # a database that cannot be reached is said now, not at the first chunk

    def describe(self) -> dict[str, str]:
        asked = "SELECT version(), now(), current_setting('synchronous_commit'), current_setting('fsync')"
        with self._reading() as connection:
            version, now, commit, fsync = connection.execute(sa.text(asked)).one()
        skew = (datetime.now(UTC) - now).total_seconds()
        return {
            "database": f"{self._url} answers: {version.split(',')[0]}",
            "clock": f"the server's differs from this machine's by {abs(skew):.1f} s (windows go by the server's)",
            "durability": f"synchronous_commit {commit}, fsync {fsync}",
        }

    # Tables -------------------------------------------------------------------------------------------------------

    def table_schema(self, table: str) -> pa.Schema | None:
        if len(table.encode()) > NAME_BYTES:
            raise SchemaError(
                f"the table's name has {len(table.encode())} bytes, PostgreSQL cuts it at {NAME_BYTES}",
                where=table,
                hint="choose a shorter --table",
            )
        with translated(self._url):
            inspector = sa.inspect(self._engine)
            if not inspector.has_table(table):
                return None
            columns = inspector.get_columns(table)
            keys = [inspector.get_pk_constraint(table)["constrained_columns"]]
            keys += [unique["column_names"] for unique in inspector.get_unique_constraints(table)]
            keys += [_plain(index) for index in inspector.get_indexes(table) if index["unique"]]
        require_fit(table, [column["name"] for column in columns], keys, self._cure(table))
        self._wire[table] = pa.schema([(c["name"], _wire_type(c["type"])) for c in columns if _wire_type(c["type"])])
        data = [column for column in columns if column["name"] not in RESERVED_COLUMNS]
        return pa.schema(
            [(c["name"], require_type(table, c["name"], arrow_of_postgres(c["type"]), c["type"])) for c in data]
        )

    def create_or_widen(self, table: str, schema: pa.Schema, *, time_index: str | None) -> bool:
        for name in schema.names:
            if len(name.encode()) > NAME_BYTES:
                raise SchemaError(
                    f"the column's name has {len(name.encode())} bytes, PostgreSQL cuts it at {NAME_BYTES}",
                    where=f"{table}, column {name}",
                    hint="rename it with --select",
                )
        self._wire.pop(table, None)
        return super().create_or_widen(table, schema, time_index=time_index)

    def _cure(self, table: str) -> str:
        quoted = self._engine.dialect.identifier_preparer.quote(table)
        return (
            f"ALTER TABLE {quoted} ADD COLUMN {EVENT_ID} uuid PRIMARY KEY, ADD COLUMN provider text, "
            f"ADD COLUMN {RECEIPT} bigint; or load into another table"
        )

    def _now(self) -> Any:
        return sa.func.now()

    def _exclusive(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(DDL_LOCK)))

    def _id(self, event_id: bytes) -> Any:
        return sa.cast(UUID(bytes=event_id), sa.Uuid())

    # Writing ------------------------------------------------------------------------------------------------------

    def _write_events(self, connection: sa.Connection, piece: Slice, receipt_id: int) -> Written:
        events = self._on_the_wire(piece, receipt_id)
        cursor = _cursor(connection)
        if piece.new_from_snapshot:
            savepoint = connection.begin_nested()
            try:
                self._copy(cursor, sql.Identifier(piece.table), events)
            except psycopg.errors.UniqueViolation:
                savepoint.rollback()
            else:
                savepoint.commit()
                return Written("fast", None)
        return Written("safe", self._copy_aside(cursor, piece.table, events))

    def _copy_aside(self, cursor: Cursor, table: str, events: pa.RecordBatch) -> bytes | None:
        """The safe path. Returns the packed IDs that went in, ``None`` for all."""
        target, aside = sql.Identifier(table), sql.Identifier("pg_temp", "headrace_slice")
        columns = _names(events.schema.names)
        self._execute(cursor, sql.SQL("DROP TABLE IF EXISTS {}").format(aside))
        create = sql.SQL("CREATE TEMPORARY TABLE headrace_slice ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA")
        self._execute(cursor, create.format(columns, target))
        self._copy(cursor, aside, events)
        insert = sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY event_id "
            "ON CONFLICT (event_id) DO NOTHING RETURNING uuid_send(event_id)"
        )
        self._execute(cursor, insert.format(target, columns, columns, aside))
        inserted = b"".join(bytes(row[0]) for row in cursor)
        return None if len(inserted) == 16 * events.num_rows else inserted

    def _copy(self, cursor: Cursor, table: sql.Composable, events: pa.RecordBatch) -> None:
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, _names(events.schema.names))
        self._say(statement.as_string(cursor))
        encoder = ArrowToPostgresBinaryEncoder(events.schema)
        with cursor.copy(statement) as copy:
            copy.write(encoder.write_header())
            for start in range(0, events.num_rows, ROWS_PER_BLOCK):
                copy.write(encoder.write_batch(events.slice(start, ROWS_PER_BLOCK)))
            copy.write(encoder.finish())

    def _on_the_wire(self, piece: Slice, receipt_id: int) -> pa.RecordBatch:
        """The events with their receipt, each column as wide as the table's: binary COPY takes no other width."""
        if piece.table not in self._wire:
            self.table_schema(piece.table)
        wire, events = self._wire[piece.table], piece.events
        receipts = pa.repeat(pa.scalar(receipt_id, pa.int64()), events.num_rows)
        columns = [*events.columns, receipts]
        names = [*events.schema.names, RECEIPT]
        return pa.RecordBatch.from_arrays(
            [_narrowed(column, wire, name, piece.table) for column, name in zip(columns, names, strict=True)],
            names=names,
        )

    # Existing IDs -------------------------------------------------------------------------------------------------

    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]:
        found = sql.SQL("SELECT event_id FROM {} WHERE {}").format(sql.Identifier(table), _condition(where))
        if limit is not None:
            found = sql.SQL("{} LIMIT {}").format(found, sql.Literal(limit))
        yield from self._packed(found)

    def fetch_ids_of_inputs(self, table: str, inputs_key: str) -> Iterator[bytes]:
        yield from self._packed(
            sql.SQL(
                "SELECT event_id FROM {table} JOIN {receipts} AS receipts ON receipts.receipt_id = {receipt} "
                "JOIN {runs} AS runs ON runs.run_id = receipts.run_id WHERE runs.inputs_key = {key} "
                "AND runs.table_name = {name}"
            ).format(
                table=sql.Identifier(table),
                receipts=sql.Identifier(RECEIPTS.name),
                receipt=sql.Identifier(table, RECEIPT),
                runs=sql.Identifier(RUNS.name),
                key=sql.Literal(inputs_key),
                name=sql.Literal(table),
            )
        )

    def _packed(self, found: sql.Composed) -> Iterator[bytes]:
        """The IDs that `found` selects, 10,000 to a row: far fewer messages than one for each ID."""
        statement = sql.SQL(
            "COPY (SELECT string_agg(uuid_send(event_id), ''::bytea) FROM "
            "(SELECT event_id, (row_number() OVER () - 1) / {size} AS block FROM ({found}) AS found) AS numbered "
            "GROUP BY block) TO STDOUT (FORMAT binary)"
        ).format(size=sql.Literal(IDS_PER_ROW), found=found)
        with self._reading() as connection:
            cursor = _cursor(connection)
            self._say(statement.as_string(cursor))
            with cursor.copy(statement) as copy:
                copy.set_types(["bytea"])
                for (block,) in copy.rows():
                    yield bytes(block)

    def _execute(self, cursor: Cursor, statement: sql.Composed) -> None:
        self._say(statement.as_string(cursor))
        cursor.execute(statement)


def _cursor(connection: sa.Connection) -> Cursor:
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise StoreError(f"SQLAlchemy gave a {type(driver).__name__}, not a psycopg connection")
    return driver.cursor()


def _names(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _condition(where: IdRange | TimeRange | None) -> sql.Composable:
    if where is None:
        return sql.SQL("true")
    if isinstance(where, IdRange):
        edges = [None if edge is None else UUID(bytes=edge) for edge in (where.low, where.high)]
        return _between(sql.Identifier(EVENT_ID), *edges)
    column = sql.Identifier(where.column)
    return sql.SQL("(({}) OR {} IS NULL)").format(_between(column, where.low, where.high), column)


def _between(column: sql.Composable, low: object, high: object) -> sql.Composable:
    edges = [(sql.SQL(">="), low), (sql.SQL("<"), high)]
    parts = [sql.SQL("{} {} {}").format(column, sign, sql.Literal(edge)) for sign, edge in edges if edge is not None]
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true")


def _plain(index: Any) -> list[str]:
    """The columns of a unique index that holds for every row; a partial one guarantees nothing."""
    partial = index.get("dialect_options", {}).get("postgresql_where")
    return [] if partial else list(index["column_names"])


def _wire_type(found: Any) -> pa.DataType | None:
    """The Arrow type whose binary form is exactly what a column of type `found` reads."""
    exact: list[tuple[type[Any], pa.DataType]] = [
        (sa.SmallInteger, pa.int16()),
        (sa.BigInteger, pa.int64()),
        (sa.Integer, pa.int32()),
        (sa.REAL, pa.float32()),
        (sa.Uuid, pa.binary(16)),
    ]
    return next((arrow for base, arrow in exact if isinstance(found, base)), arrow_of_postgres(found))


def _narrowed(column: pa.Array, wire: pa.Schema, name: str, table: str) -> pa.Array:
    wanted = wire.field(name).type
    if column.type.equals(wanted):
        return column
    try:
        # an integer must fit; a float32 column is the user's own choice to round
        return column.cast(wanted, safe=not pa.types.is_floating(wanted))
    except pa.ArrowInvalid as error:
        raise SchemaError(
            f"a value does not fit the table's type: {error}",
            where=f"{table}, column {name}",
            hint="widen the column in the database, for example to bigint",
        ) from None
