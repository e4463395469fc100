"""Slices for the store's tests, and a second pair of eyes on the database that shares nothing with the store."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from headrace.storage.records import EVENT_ID, PROVIDER, Address, Counts, Existing, RunRecord, Slice
from headrace.storage.rejects import Reject, StoredReject
from headrace.storage.store import Store

__all__ = [
    "RUN",
    "SCHEMA",
    "TABLE",
    "WAYS",
    "Pause",
    "Stop",
    "batch",
    "look",
    "make",
    "new_ids",
    "open_run",
    "packed",
    "piece",
    "postgres_driver",
    "prepared",
    "reject",
    "second_connection",
    "stored_ids",
]

TABLE = "events"
RUN = "run-1"
WAYS: tuple[Existing, ...] = ("snapshot", "conflict", "query")
SCHEMA = pa.schema([("n", pa.int64()), ("t", pa.timestamp("us", tz="UTC")), ("s", pa.string())])


class Stop(Exception):  # noqa: N818 - it stands for the end of the process, which is no error
    """What a dying process does, as far as the database can tell: the transaction ends without COMMIT."""


class Pause:
    """A statement hook that, once armed, stops just before the first statement that starts with one of `prefixes`,
    until it is let go; then goes on, or raises `then`. `seen` are the statements since it was armed.
    """

    def __init__(self, *prefixes: str, then: Exception | None = None) -> None:
        self.prefixes, self.then = prefixes, then
        self.seen: list[str] = []
        self._armed = False
        self._there, self._go = threading.Event(), threading.Event()

    def arm(self) -> None:
        self._there.clear()
        self._go.clear()
        self.seen.clear()
        self._armed = True

    def __call__(self, statement: str) -> None:
        self.seen.append(statement)
        if self._armed and statement.lstrip().startswith(self.prefixes):
            self._armed = False
            self._there.set()
            assert self._go.wait(60), f"nobody let go of {statement}"
            if self.then is not None:
                raise self.then

    def wait_until_there(self, work: Future[Any]) -> None:
        """Return when the hook has stopped `work`, which must not end before."""
        deadline = time.monotonic() + 60
        while not self._there.wait(0.01):
            assert not work.done(), f"it never came to {self.prefixes}: {work.exception() or work.result()}"
            assert time.monotonic() < deadline, f"it did not come to {self.prefixes}"

    def go(self) -> None:
        self._go.set()


def new_ids(count: int, *, seed: int = 0) -> list[bytes]:
    """`count` sorted IDs; different seeds give different ones."""
    chance = random.Random(seed)
    return sorted(chance.randbytes(16) for _ in range(count))


def packed(ids: Iterator[bytes] | bytes) -> list[bytes]:
    """Packed IDs, in blocks or whole, as a sorted list."""
    text = ids if isinstance(ids, bytes) else b"".join(ids)
    return sorted(text[at : at + 16] for at in range(0, len(text), 16))


def batch(ids: Sequence[bytes], columns: dict[str, pa.Array] | None = None) -> pa.RecordBatch:
    """Events with these IDs, in `SCHEMA` unless `columns` are given."""
    numbers = list(range(len(ids)))
    data = columns or {
        "n": pa.array(numbers, pa.int64()),
        "t": pa.array([number * 1_000_000 for number in numbers], pa.timestamp("us", tz="UTC")),
        "s": pa.array([str(number) for number in numbers], pa.string()),
    }
    reserved = {EVENT_ID: pa.array(ids, pa.binary(16)), PROVIDER: pa.array(["acme"] * len(ids), pa.string())}
    return pa.RecordBatch.from_pydict({**data, **reserved})


def reject(number: int = 0, **changed: Any) -> Reject:
    values = {"source": "in.csv", "row": number, "line": number + 2, "column": "n", "reason": "no integer", "raw": "x"}
    return Reject(**{**values, **changed})


def piece(
    events: Sequence[bytes] | pa.RecordBatch,
    *,
    first_row: int = 0,
    existing: Existing = "snapshot",
    table: str = TABLE,
    rejects: Sequence[Reject] = (),
    replayed: Sequence[StoredReject] = (),
    digest: str = "digest",
    run_id: str = RUN,
    partition: int = 0,
    locks: Sequence[int] = (),
    lock_timeout: float = 30.0,
) -> Slice:
    """A slice of balanced books: each event and each reject is one row read."""
    held = events if isinstance(events, pa.RecordBatch) else batch(events)
    read = held.num_rows + len(rejects)
    return Slice(
        run_id=run_id,
        table=table,
        provider="acme",
        address=Address("in.csv", first_row, read),
        digest=digest,
        events=held,
        existing=existing,
        counts=Counts(read=read, rejected=len(rejects)),
        rejects=rejects,
        replayed=dict(enumerate(replayed)),
        partition=partition,
        locks=locks,
        lock_timeout=lock_timeout,
    )


def open_run(store: Store, *, run_id: str = RUN, table: str = TABLE, job: str | None = "job", key: str = "key") -> None:
    store.ledger.start_run(RunRecord(run_id, table, "acme", job, key, "[]", "sequential", "sequential", 1, "0"))


def prepared(store: Store, *, schema: pa.Schema = SCHEMA, table: str = TABLE) -> Store:
    """`store` with ledger, table and a run that slices may name."""
    store.ledger.prepare()
    store.tables.create_or_widen(table, schema, time_index=None)
    open_run(store, table=table)
    return store


@contextmanager
def second_connection(url: str) -> Iterator[sa.Connection]:
    """A connection that shares neither code nor transaction with the store under test."""
    engine = sa.create_engine(postgres_driver(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def postgres_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def look(url: str, query: str) -> list[tuple[Any, ...]]:
    """What another client sees."""
    with second_connection(url) as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def make(url: str, *statements: str) -> None:
    """Do as the database's owner, who is not Headrace."""
    with second_connection(url) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
        connection.commit()


def stored_ids(url: str, table: str = TABLE) -> list[bytes]:
    """The IDs another client sees in `table`, sorted."""
    quoted = table.replace('"', '""')
    found = look(url, f'SELECT event_id FROM "{quoted}"')  # noqa: S608 - a name that the test chose
    return sorted(one if isinstance(one, bytes) else one.bytes for (one,) in found)
