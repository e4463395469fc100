"""Tables: Headrace's own, the event table made from an Arrow schema, and the way back by reflection.

canonical Arrow type    PostgreSQL          SQLite (declared)
bool                    boolean             BOOLEAN          0 or 1
int64                   bigint              BIGINT
float64                 double precision    DOUBLE
timestamp[us, UTC]      timestamptz         TIMESTAMP        text, UTC: 2022-04-09 00:18:00.000000
date32                  date                DATE             text: 2022-04-09
decimal128(38, s)       numeric(38, s)      DECIMAL_TEXT(s)  text, so that no digit is lost
string                  text                TEXT
binary                  bytea               BLOB

SQLite has no NaN (it becomes null) and does not keep the sign of a zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine, UserDefinedType

from headrace.errors import SchemaError
from headrace.storage.records import EVENT_ID, PROVIDER, RECEIPT

__all__ = [
    "ALERTS",
    "CONTRACTS",
    "LEDGER",
    "PAST_LOADS",
    "PROVIDERS",
    "RECEIPTS",
    "RECEIPT_KEY",
    "REJECTS",
    "RUNS",
    "SCHEMA",
    "WITNESSES",
    "arrow_of_sqlite",
    "event_table",
    "kind",
]

LEDGER = sa.MetaData()
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # only INTEGER becomes SQLite's own row number
_MOMENT = sa.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")

SCHEMA = sa.Table(  # which releases have changed these tables; see headrace.storage.sql.migrations
    "headrace_schema",
    LEDGER,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("changed_at", _MOMENT, nullable=False),
)

CONTRACTS = sa.Table(
    "headrace_contracts",
    LEDGER,
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("contract", sa.Text, nullable=False),
    sa.Column("pinned_at", _MOMENT, nullable=False),
)


def _counts() -> list[sa.Column[int]]:
    names = ("read", "inserted", "duplicate_in_input", "duplicate_in_store", "rejected", "revised")
    return [sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in names]


RUNS = sa.Table(
    "headrace_runs",
    LEDGER,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("job", sa.Text),
    sa.Column("inputs_key", sa.Text, nullable=False, index=True),
    sa.Column("inputs", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("shape", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("started_at", _MOMENT, nullable=False),
    sa.Column("finished_at", _MOMENT),
    sa.Column("seconds", sa.Double, nullable=False, server_default="0"),
    sa.Column("chunks", sa.BigInteger, nullable=False, server_default="0"),  # slices committed
    *_counts(),
    sa.Column("error", sa.Text),
    sa.Column("holder", sa.Text),  # the process that works at it, or did last
    sa.Column("asked", sa.Text),  # what the load was told, as JSON: in what another of the same inputs differs
    sa.Column("supersedes", sa.Text),  # the run that this one does again
    sa.Index("headrace_runs_by_job", "job", "table_name"),
)
_UNFINISHED = (RUNS.c.status != "done") & RUNS.c.job.is_not(None)
sa.Index("headrace_runs_unfinished", RUNS.c.table_name, postgresql_where=_UNFINISHED, sqlite_where=_UNFINISHED)

RECEIPT_KEY = ("run_id", "source", "first_row", "partition")
RECEIPTS = sa.Table(
    "headrace_receipts",
    LEDGER,
    sa.Column("receipt_id", _BIG, sa.Identity(), primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),  # shortened where it is too long for an index
    sa.Column("source_name", sa.Text),  # the whole name of a source that was shortened
    sa.Column("first_row", sa.BigInteger, nullable=False),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False, server_default="0"),
    sa.Column("spans", sa.Text),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("inserted_digest", sa.LargeBinary),  # see headrace.storage.digest; null in receipts of 0.1.0
    *_counts(),
    sa.Column("alerts", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("committed_at", _MOMENT, nullable=False),
    sa.UniqueConstraint(*RECEIPT_KEY, name="headrace_receipts_once"),
    sqlite_autoincrement=True,  # a number that was given is never given again; see headrace.storage.sql.numbers
)

REJECTS = sa.Table(
    "headrace_rejects",
    LEDGER,
    sa.Column("reject_id", _BIG, sa.Identity(), primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("receipt_id", sa.BigInteger, nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("row_number", sa.BigInteger),
    sa.Column("line_number", sa.BigInteger),
    sa.Column("column_name", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("record", sa.Text),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("differs", sa.Text),
    sa.Column("replaces", sa.BigInteger),  # the reject of the same row that was replayed and failed again
    sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.current_timestamp()),
    sa.Column("settled_at", _MOMENT),
    sqlite_autoincrement=True,
)

# a claim moves next_attempt_at to the end of its lease, so that what a dead dispatcher held comes due by itself
ALERTS = sa.Table(
    "headrace_alerts",
    LEDGER,
    sa.Column("alert_id", _BIG, sa.Identity(), primary_key=True),
    sa.Column("alert_key", sa.Text, nullable=False, unique=True),
    sa.Column("event_id", sa.Uuid().with_variant(sa.LargeBinary(), "sqlite"), nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("receipt_id", sa.BigInteger, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),  # the event as a JSON object
    sa.Column("revision", sa.Boolean, nullable=False, server_default=sa.false()),  # by a newer version of the event
    sa.Column("state", sa.Text, nullable=False, server_default="pending"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.current_timestamp()),
    sa.Column("next_attempt_at", _MOMENT, nullable=False, server_default=sa.func.current_timestamp()),
    sa.Column("lease", sa.Text),  # who holds it, until next_attempt_at
    sa.Column("error", sa.Text),  # of the last attempt
    sa.Column("settled_at", _MOMENT),
    sqlite_autoincrement=True,
)
_PENDING = ALERTS.c.state == "pending"
sa.Index(
    "headrace_alerts_due",
    ALERTS.c.next_attempt_at,
    ALERTS.c.alert_id,
    postgresql_where=_PENDING,
    sqlite_where=_PENDING,
)
_DELIVERED = ALERTS.c.state == "delivered"
_DEAD = ALERTS.c.state == "dead"
sa.Index("headrace_alerts_dead", ALERTS.c.alert_id, postgresql_where=_DEAD, sqlite_where=_DEAD)
sa.Index("headrace_alerts_delivered", ALERTS.c.settled_at, postgresql_where=_DELIVERED, sqlite_where=_DELIVERED)

PROVIDERS = sa.Table(
    "headrace_providers",
    LEDGER,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("table_name", sa.Text),
    sa.Column("polled_at", _MOMENT),
    sa.Column("next_at", _MOMENT),
    sa.Column("delivered_at", _MOMENT),
    sa.Column("newest_event", _MOMENT),
    sa.Column("outcome", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("empty_polls", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failures", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("polls", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("loads", sa.BigInteger, nullable=False, server_default="0"),
    *_counts(),
    sa.Column("etag", sa.Text),
    sa.Column("last_modified", sa.Text),
    sa.Column("content", sa.Text),
    sa.Column("description", sa.Text),
    sa.Column("holder", sa.Text),
    sa.Column("held_until", _MOMENT),
)

# some IDs of what a provider's last load met, by which an unchanged delivery is believed in or not
WITNESSES = sa.Table(
    "headrace_witnesses",
    LEDGER,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("met", sa.BigInteger, nullable=False),
    sa.Column("ids", sa.LargeBinary, nullable=False),  # packed; see headrace.storage.providers
    sa.Column("versions", sa.Text),  # a digest of their versions
)

# a ring: a provider's next load takes the place of its oldest, so that the table is bounded and nothing need be deleted
PAST_LOADS = sa.Table(
    "headrace_past_loads",
    LEDGER,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("polled_at", _MOMENT, nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("chunks", sa.BigInteger, nullable=False),
    sa.Column("read", sa.BigInteger, nullable=False),
    sa.Column("inserted", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("cpu_seconds", sa.Double, nullable=False),
    sa.Column("machine_cpu", sa.Double, nullable=False),
    sa.Column("stages", sa.Text, nullable=False),
)


class _Declared(UserDefinedType[Any]):
    """A column type that SQLite keeps as it is written."""

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **_: object) -> str:
        return self.text


def event_table(name: str, schema: pa.Schema, dialect: str) -> sa.Table:
    """The table for events of `schema` (canonical types), with the three columns that Headrace adds."""
    identifier = sa.Uuid() if dialect == "postgresql" else _Declared("BLOB")
    data = [sa.Column(field.name, _column_type(field.type, dialect), nullable=True) for field in schema]
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column(EVENT_ID, identifier, primary_key=True, nullable=False),
        *data,
        sa.Column(PROVIDER, sa.Text, nullable=False),
        sa.Column(RECEIPT, sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


def _column_type(arrow: pa.DataType, dialect: str) -> TypeEngine[Any] | type[TypeEngine[Any]]:
    name = kind(arrow)
    if name == "decimal":
        return sa.Numeric(38, arrow.scale) if dialect == "postgresql" else _Declared(f"DECIMAL_TEXT({arrow.scale})")
    return _KINDS[name].postgres if dialect == "postgresql" else _Declared(_KINDS[name].sqlite)


def kind(arrow: pa.DataType) -> str:
    """The name that users see for a canonical Arrow type. Raises `SchemaError` for any other type."""
    for name, one in _KINDS.items():
        if one.holds(arrow):
            return name
    raise SchemaError(f"no column type for {arrow}", hint="convert it with --select, for example to text")


class _Kind(NamedTuple):
    """Whether an Arrow type is of this kind, and the types of its columns; those of a decimal have its scale."""

    holds: Callable[[pa.DataType], bool]
    postgres: TypeEngine[Any] | type[TypeEngine[Any]]
    sqlite: str


_KINDS = {
    "bool": _Kind(pa.types.is_boolean, sa.Boolean, "BOOLEAN"),
    "integer": _Kind(pa.types.is_integer, sa.BigInteger, "BIGINT"),
    "float": _Kind(pa.types.is_floating, sa.Double, "DOUBLE"),
    "timestamp": _Kind(pa.types.is_timestamp, sa.TIMESTAMP(timezone=True), "TIMESTAMP"),
    "date": _Kind(pa.types.is_date, sa.Date, "DATE"),
    "decimal": _Kind(pa.types.is_decimal, sa.Numeric, "DECIMAL_TEXT"),
    "string": _Kind(lambda arrow: pa.types.is_string(arrow) or pa.types.is_large_string(arrow), sa.Text, "TEXT"),
    "bytes": _Kind(
        lambda arrow: pa.types.is_binary(arrow) or pa.types.is_large_binary(arrow), postgresql.BYTEA, "BLOB"
    ),
}
_UTC = pa.timestamp("us", tz="UTC")


def arrow_of_sqlite(declared: str) -> pa.DataType | None:
    """The canonical Arrow type of a column that SQLite declares so; ``None`` where there is none."""
    text = declared.upper()
    scale = re.fullmatch(r"DECIMAL_TEXT\((\d+)\)", text)
    if scale:
        return pa.decimal128(38, int(scale[1]))
    ways = [
        ("BOOL", pa.bool_()),
        ("INT", pa.int64()),
        ("DOUB|REAL|FLOA", pa.float64()),
        ("TIMESTAMP|DATETIME", _UTC),
        ("DATE", pa.date32()),
        ("TEXT|CHAR|CLOB", pa.string()),
        ("BLOB", pa.binary()),
    ]
    return next((arrow for pattern, arrow in ways if re.search(pattern, text)), None)
