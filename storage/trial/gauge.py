"""Measures a database in a trial's place: how far away it is, what COPY gains from a second connection, its waits.

    gauge    SELECT 1, the median of some                                               ─► round trip
             the sample's own rows, as COPY sent them out, COPYed into keyed copies of
             their table over one connection, then over two at a time                   ─► seconds each
    Server   while a load runs: what its sessions wait for, its processes' CPU if they are on this machine, WAL, and
             its statements by pg_stat_statements

Each database that may not tell something leaves it out.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import psutil
import psycopg
import sqlalchemy as sa
from psycopg import sql

from headrace.storage.postgres.connecting import conninfo_for
from headrace.storage.trial.statements import StatementTime, statements_since, statements_so_far

__all__ = ["Gauged", "Server", "gauge"]

PINGS = 15
MOST_COPIED = 200_000  # rows
SECONDS_BETWEEN_LOOKS = 0.25
Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Gauged:
    """What a database can do. Seconds: `round_trip`, and `copy_one` and `copy_two` for the same `copied` rows over one
    connection, and over two at a time. `writers` is how many can write at a time (SQLite: 1; ``None``: no bound known).
    """

    round_trip: float
    copied: int = 0
    copy_one: float = 0.0
    copy_two: float = 0.0
    writers: int | None = None

    @property
    def scaling(self) -> float:
        """How many times as fast two connections are as one, 1 to 2."""
        if self.writers == 1:
            return 1.0
        return min(2.0, max(1.0, self.copy_one / self.copy_two)) if self.copied and self.copy_two else 2.0


def gauge(url: str, table: str) -> Gauged:
    """Measure the database of the trial at `url`, with the rows that a load has brought into `table` there."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return Gauged(0.0, writers=1)
    conninfo = conninfo_for(parsed)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        round_trip = statistics.median(_ping(connection) for _ in range(PINGS))
        halves = _taken(connection, table)
        if not all(rows for _, rows in halves):
            return Gauged(round_trip)
        copied = sum(rows for _, rows in halves)
        one, two = _copied(conninfo, table, halves, connections=1), _copied(conninfo, table, halves, connections=2)
    return Gauged(round_trip, copied, one, two)


def _ping(connection: Connection) -> float:
    began = time.perf_counter()
    connection.execute("SELECT 1")
    return time.perf_counter() - began


def _taken(connection: Connection, table: str) -> list[tuple[bytes, int]]:
    """Some of the table's rows as binary COPY has them, in two halves by the hash of the ID, and how many."""
    halves = []
    for half in (0, 1):
        rows = sql.SQL(
            "COPY (SELECT * FROM {} WHERE get_byte(uuid_send(event_id), 15) % 2 = {} ORDER BY event_id LIMIT {}) "
            "TO STDOUT (FORMAT binary)"
        ).format(sql.Identifier(table), sql.Literal(half), sql.Literal(MOST_COPIED // 2))
        cursor = connection.cursor()
        with cursor.copy(rows) as copy:
            halves.append((b"".join(bytes(block) for block in copy), 0))
        halves[-1] = (halves[-1][0], cursor.rowcount)
    return halves


def _copied(conninfo: str, table: str, halves: Sequence[tuple[bytes, int]], *, connections: int) -> float:
    """The seconds that COPY of all halves takes, into a new copy of the table with its keys."""
    place = sql.Identifier(f"headrace_gauge_{connections}")
    with psycopg.connect(conninfo, autocommit=True) as maker:
        maker.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(place, sql.Identifier(table)))
    opened = [psycopg.connect(conninfo, autocommit=True) for _ in range(connections)]
    try:
        with ThreadPoolExecutor(connections) as pool:
            began = time.perf_counter()
            given = [pool.submit(_copy, opened[at % connections], place, blob) for at, (blob, _) in enumerate(halves)]
            for one in given:
                one.result()
            return time.perf_counter() - began
    finally:
        for connection in opened:
            connection.close()


def _copy(connection: Connection, place: sql.Identifier, blob: bytes) -> None:
    with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(place)) as copy:
        copy.write(blob)


@dataclass
class Server:
    """The server's view of a trial's sessions while inside: `waits` counts looks by what a session waited for (``CPU``:
    for nothing), `cpu_seconds` is what its processes used, ``None`` where they are not on this machine, `wal_bytes`
    what was logged meanwhile by everybody, ``None`` where that may not be read. `statements` are those that this user
    ran in this database meanwhile, the longest first, ``None`` without ``pg_stat_statements``.
    """

    url: str
    name: str
    waits: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float | None = None
    wal_bytes: int | None = None
    statements: list[StatementTime] | None = None

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._cpu: dict[int, tuple[float, float]] = {}
        self._looker = threading.Thread(target=self._look_on, name="headrace-server", daemon=True)

    def __enter__(self) -> Self:
        if sa.make_url(self.url).get_backend_name() != "sqlite":
            self._connection: Connection = psycopg.connect(conninfo_for(sa.make_url(self.url)), autocommit=True)
            self._began = self._wal()
            # a session that is there already has worked for something else: a trial's own filled its table
            self._look(already=True)
            self._before = statements_so_far(self._connection)
            self._looker.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._looker.ident is None:
            return
        self._over.set()
        self._looker.join()
        ended = self._wal()
        self.statements = statements_since(self._before, statements_so_far(self._connection))
        if self._began is not None and ended is not None:
            self.wal_bytes = ended - self._began
        self._connection.close()

    def _wal(self) -> int | None:
        with suppress(psycopg.Error):
            row = self._connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
            return None if row is None else int(str(row[0]))
        return None

    def look(self) -> None:
        """Sample once more, before the sessions of a load end and their seconds are lost."""
        if self._looker.ident is not None:
            self._look()

    def _look_on(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self, *, already: bool = False) -> None:
        sessions = (
            "SELECT pid, state, coalesce(wait_event_type, 'CPU'), coalesce(wait_event, 'CPU') FROM pg_stat_activity "
            "WHERE application_name = %s AND pid <> pg_backend_pid()"
        )
        with suppress(psycopg.Error):
            for pid, state, kind, event in self._connection.execute(sessions, [self.name]).fetchall():
                self._note_cpu(int(str(pid)), already=already)
                if state == "active" and not already:
                    self.waits[str(event) if kind == "CPU" else f"{kind}: {event}"] += 1

    def _note_cpu(self, pid: int, *, already: bool) -> None:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if "postgres" not in process.name():
                return
            times = process.cpu_times()
            used = times.user + times.system
            # a backend that came while the load went on was made for it: all that it used counts
            first, _ = self._cpu.get(pid, (used if already else 0.0, 0.0))
            self._cpu[pid] = (first, used)
            self.cpu_seconds = sum(last - since for since, last in self._cpu.values())
