"""The command line with failpoints: named steps of a load at which the process can be made to die.

The product knows nothing of them. This program wraps functions of Headrace from outside and then is Headrace's command
line; a worker runs it too (multiprocessing imports the program again), so its steps are wrapped as well. What to do is
said by the environment:

    HEADRACE_FAULT_HITS   a file: every step that is reached adds its name as a line, in whatever process
    HEADRACE_FAULT        ``STEP:K:WHOM``: die when STEP is reached for the K-th time, counted over all processes; WHOM
                          is ``alone`` (the process that got there) or ``all`` (the coordinator first)
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from headrace.cli import load
from headrace.loading.commits import Commits
from headrace.loading.coordinator import Coordinator
from headrace.loading.met_chunk import MetChunk
from headrace.partitioning.snapshot import Snapshot
from headrace.reading import inputs
from headrace.runtime import parcel, scratch
from headrace.storage.postgres import copy_in
from headrace.storage.postgres.slice_transaction import PostgresTransaction
from headrace.storage.sql import commit
from headrace.storage.sql.ledger import Ledger
from headrace.storage.sql.tables import Tables
from headrace.storage.sqlite.slice_transaction import SqliteTransaction

__all__ = ["COORDINATOR", "FAULT", "HITS", "become_coordinator", "hit", "install"]

HITS = "HEADRACE_FAULT_HITS"
FAULT = "HEADRACE_FAULT"
COORDINATOR = "HEADRACE_FAULT_COORDINATOR"


def become_coordinator() -> None:
    """Make this process the one that ``all`` speaks of."""
    os.environ[COORDINATOR] = str(os.getpid())


def hit(step: str) -> None:
    """This process has reached `step`."""
    count = _count(step)
    wanted, number, whom = os.environ.get(FAULT, "none:0:alone").split(":")
    if (step, count) == (wanted, int(number)):
        if whom == "all":
            os.kill(int(os.environ[COORDINATOR]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _count(step: str) -> int:
    """How often `step` was reached, in all processes together, this time included."""
    with Path(os.environ[HITS]).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{step}\n")
        file.flush()
        file.seek(0)
        return file.read().split("\n").count(step)


def around(owner: Any, name: str, step: str) -> None:
    """Have `owner.name` reach ``STEP before`` and ``STEP after``."""
    inner: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        hit(f"{step} before")
        result = inner(*args, **named)
        hit(f"{step} after")
        return result

    setattr(owner, name, wrapped)


def install() -> None:
    """Wrap every step. For a process that does nothing else."""
    around(Ledger, "prepare", "ledger")
    around(Tables, "create_or_widen", "table")
    around(Ledger, "pin_contract", "contract")
    around(Ledger, "start_run", "run")
    around(Ledger, "reopen_run", "reopen")
    around(Snapshot, "extend", "snapshot")
    around(Coordinator, "_dispatch", "dispatch")
    around(Commits, "_land", "land")
    for transaction in (PostgresTransaction, SqliteTransaction):
        around(transaction, "claim", "receipt")
    around(commit, "raise_alerts", "alerts")
    around(commit, "keep_rejects", "rejects")
    around(Ledger, "finish_run", "books")
    around(scratch, "_drop", "cleanup")
    around(MetChunk, "discard", "discard")
    around(SQLiteDialect_pysqlite, "do_commit", "COMMIT")
    # in PostgreSQL a slice's COMMIT goes out with its books, and SQLAlchemy finds nothing left to commit
    around(PostgresTransaction, "complete", "COMMIT")
    _install_read()
    _install_spool()
    _install_copy()
    _install_insert()


def _install_read() -> None:
    chunks = inputs._Source.chunks

    def wrapped(self: Any, *args: Any) -> Iterator[Any]:
        for chunk in chunks(self, *args):
            hit("read chunk")
            yield chunk
        hit("read end")

    inputs._Source.chunks = wrapped  # type: ignore[method-assign]


def _install_spool() -> None:
    pack = parcel._pack_file

    def wrapped(batch: Any, spool: Path) -> Any:
        hit("spool start")
        half = spool / f"{os.getpid()}-half.arrow"
        half.write_bytes(b"ARROW1\0\0")  # what such a file begins with, and no more
        hit("spool middle")
        half.unlink()
        packed = pack(batch, spool)
        hit("spool end")
        return packed

    parcel._pack_file = wrapped


def _install_copy() -> None:
    copy = PostgresTransaction._copy

    def wrapped(self: Any, *words: Any) -> None:
        hit("COPY start")
        copy(self, *words)
        hit("COPY end")

    PostgresTransaction._copy = wrapped  # type: ignore[method-assign]
    inner = copy_in.ArrowToPostgresBinaryEncoder

    class Encoder:
        """The encoder, which reaches the middle of a COPY when header and rows are sent, and the end is not."""

        def __init__(self, schema: Any) -> None:
            self._inner = inner(schema)

        def __getattr__(self, name: str) -> Any:
            if name == "finish":
                hit("COPY middle")
            return getattr(self._inner, name)

    copy_in.ArrowToPostgresBinaryEncoder = Encoder


def _install_insert() -> None:
    write = SqliteTransaction.write_events

    def wrapped(self: Any, receipt_id: int) -> Any:
        hit("INSERT start")
        self.connection.exec_driver_sql("SAVEPOINT half")
        whole = self.piece
        self.piece = replace(whole, events=whole.events.slice(0, max(1, whole.events.num_rows // 2)))
        write(self, receipt_id)
        hit("INSERT middle")
        self.connection.exec_driver_sql("ROLLBACK TO half")
        self.piece = whole
        written = write(self, receipt_id)
        hit("INSERT end")
        return written

    SqliteTransaction.write_events = wrapped  # type: ignore[method-assign]


if os.environ.get(HITS):
    install()

if __name__ == "__main__":
    from headrace.cli.main import main

    assert load  # loaded ahead, for the fork server to share
    become_coordinator()
    main()
