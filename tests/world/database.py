"""The database as a neighbour sees it: plain SQL through ``sqlite3`` and ``psycopg``, nothing of Headrace's.

`Database.look` takes one picture of the events and of the ledger. The judge compares such pictures. The world's acts
are statements that go through `Database.run`. A neighbour waits for nobody: a statement that meets a lock is `Blocked`,
and the act has then not happened.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

__all__ = ["EVENTS", "LEDGER", "Blocked", "Database", "Key", "Picture", "Postgres", "Sqlite", "norm"]

EVENTS = "ev"
USER = "headrace_world"
"""Headrace speaks to PostgreSQL as this user: who is no superuser feels row security, and settings made for it."""
LEDGER = (
    "headrace_alerts",
    "headrace_contracts",
    "headrace_past_loads",
    "headrace_providers",
    "headrace_receipts",
    "headrace_rejects",
    "headrace_runs",
    "headrace_schema",
)
OWN = ("event_id", "headrace_receipt")
Key = tuple[str, str]
"""An event's identity as the oracle has it: its provider and ``k``. ``at`` hangs on ``k`` alone."""


class Blocked(Exception):  # noqa: N818 - no error: the act has not happened
    """The neighbour met a lock, or what it would have changed is not there."""


def norm(value: object) -> str | None:
    """A value as text, alike for all types that a column may be altered to and that lose nothing."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(int(value))
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, date):
        return f"{value.isoformat()} 00:00:00"
    if isinstance(value, bytes):
        return value.hex()
    return _norm_text(str(value))


def _norm_text(text: str) -> str:
    try:
        number = Decimal(text)
    except ArithmeticError:
        pass
    else:
        return format(number.normalize(), "f") if number.is_finite() else text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return norm(moment) or text


@dataclass(frozen=True)
class Picture:
    """What the database held at one moment. `rows` are without Headrace's own columns, their values normalised."""

    exists: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    events: dict[Key, list[dict[str, str | None]]] = field(default_factory=dict)
    rejects: tuple[dict[str, Any], ...] = ()
    alerts: dict[str, Key] = field(default_factory=dict)
    """The event of each alert by the alert's key."""
    states: Counter[str] = field(default_factory=Counter)
    """How many alerts are in each state."""
    contract: str | None = None
    runs: frozenset[str] = frozenset()
    """The IDs of the runs in the ledger."""

    def count(self) -> int:
        """Rows of events."""
        return sum(map(len, self.events.values()))

    def is_text(self, column: str) -> bool:
        """Whether the table takes any text there."""
        return any(word in self.columns.get(column, "") for word in ("text", "char"))

    def changed(self, later: Picture) -> set[Key]:
        """The events that are other rows later, or in one of the two alone."""
        both = self.columns.keys() & later.columns.keys()
        return {
            key
            for key in self.events.keys() | later.events.keys()
            if _shown(self.events.get(key, []), both) != _shown(later.events.get(key, []), both)
        }


def _shown(
    rows: Iterable[dict[str, str | None]], columns: Iterable[str]
) -> Counter[tuple[tuple[str, str | None], ...]]:
    names = sorted(columns)
    return Counter(tuple((name, row.get(name)) for name in names) for row in rows)


class Database:
    """One database of one history."""

    kind: str
    url: str

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """The rows, by column name."""
        raise NotImplementedError

    def run(self, *statements: str) -> None:
        """Run the statements, all or none of them. Raises `Blocked`."""
        raise NotImplementedError

    def columns(self, table: str) -> dict[str, str]:
        """The table's columns with their declared types in lower case; empty if there is no such table."""
        raise NotImplementedError

    def clear(self) -> None:
        """Empty it for the next history."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of it."""

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        return bool(self.columns(table))

    def has_column(self, table: str, column: str) -> bool:
        """Whether the table has such a column."""
        return column in self.columns(table)

    def may_look(self) -> None:
        """Raises `Blocked` where a lock keeps neighbours from reading the table."""

    def look(self) -> Picture:
        """A picture of this moment."""
        columns = self.columns(EVENTS)
        events: dict[Key, list[dict[str, str | None]]] = {}
        for row in self.query(f"SELECT * FROM {EVENTS}") if columns else []:
            shown = {name: norm(value) for name, value in row.items() if name not in OWN}
            events.setdefault((shown.get("provider") or "", shown.get("k") or ""), []).append(shown)
        if not self.has("headrace_alerts"):
            return Picture(bool(columns), columns, events)
        rejects = self.query(
            "SELECT reject_id, run_id, state, source, row_number, stage, provider, record FROM headrace_rejects"
        )
        raised = self.query("SELECT alert_key, provider, payload, state FROM headrace_alerts")
        alerts = {one["alert_key"]: (one["provider"], norm(json.loads(one["payload"])["k"]) or "") for one in raised}
        pinned = self.query("SELECT contract FROM headrace_contracts")
        return Picture(
            bool(columns),
            columns,
            events,
            tuple(rejects),
            alerts,
            Counter(one["state"] for one in raised),
            pinned[0]["contract"] if pinned else None,
            frozenset(one["run_id"] for one in self.query("SELECT run_id FROM headrace_runs")),
        )


class Sqlite(Database):
    """A file. `url` may name it relatively."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.path, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, parameters)]

    def run(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                for statement in statements:
                    connection.execute(statement)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise Blocked(str(error)) from error

    def columns(self, table: str) -> dict[str, str]:
        return {one["name"]: one["type"].lower() for one in self.query("SELECT * FROM pragma_table_info(?)", [table])}

    def clear(self) -> None:
        for end in ("", "-wal", "-shm", "-journal"):
            Path(f"{self.path}{end}").unlink(missing_ok=True)


class Postgres(Database):
    """A database of a server: `admin` is the superuser's URL of it, the neighbours' connection."""

    kind = "postgresql"

    def __init__(self, admin: str, url: str, server: Any = None) -> None:
        self.url = url
        self.admin = admin
        self.server = server
        """The server, where it may be killed and started again (`servers.OwnPostgres`)."""
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    @property
    def _open(self) -> psycopg.Connection[dict[str, Any]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self.admin, autocommit=True, row_factory=dict_row, prepare_threshold=None
            )
            self._connection.execute("SET lock_timeout = '3s'; SET client_min_messages = error")
        return self._connection

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        cursor = self._open.execute(statement.replace("?", "%s"), parameters or None)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []

    def run(self, *statements: str) -> None:
        # who owns what is made here is the user whose table it is
        try:
            with self._open.transaction():
                self._open.execute(f"SET LOCAL ROLE {USER}; SET LOCAL lock_timeout = '60ms'")  # type: ignore[call-overload]
                for statement in statements:
                    self._open.execute(statement)  # type: ignore[call-overload]
        except psycopg.Error as error:
            raise Blocked(str(error)) from error

    def may_look(self) -> None:
        self.run(f"LOCK TABLE {EVENTS} IN ACCESS SHARE MODE" if self.has(EVENTS) else "SELECT")

    def command(self, statement: str) -> None:
        """A superuser's statement, in no transaction."""
        self._open.execute(statement)  # type: ignore[call-overload]

    def columns(self, table: str) -> dict[str, str]:
        found = self.query(
            "SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
            "WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [f"public.{table}"],
        )
        return {one["name"]: one["type"].lower() for one in found}

    def end_connections(self) -> None:
        """End every session of Headrace's user in this database, and wait for the ends: a session that ends within a
        statement of the next command would be a hindrance.
        """
        self.command(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE usename = '{USER}' AND datname = current_database() AND pid <> pg_backend_pid()"
        )

    def settings(self, wanted: Sequence[str]) -> None:
        """Give new sessions of Headrace's user these settings, and end those that are open."""
        name = psycopg.conninfo.conninfo_to_dict(self.admin)["dbname"]
        self.command(f"ALTER ROLE {USER} IN DATABASE {name} RESET ALL")
        for one in wanted:
            self.command(f"ALTER ROLE {USER} IN DATABASE {name} SET {one}")
        self.end_connections()

    def clear(self) -> None:
        self.settings([])
        self.command(
            f"DROP SCHEMA IF EXISTS keep CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION {USER}"
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
