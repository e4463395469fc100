"""Rows of Headrace's own tables as plain data, and the statements that read and write them, alike on both stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from headrace.storage.records import (
    Address,
    Counts,
    LedgerEntry,
    Receipt,
    RunProgress,
    RunRecord,
    RunStatus,
    Slice,
)
from headrace.storage.rejects import Reject, StoredReject
from headrace.storage.sql.schema import RECEIPTS, REJECTS, RUNS

__all__ = [
    "bounded",
    "counts_of",
    "counts_values",
    "entries_of",
    "entry_of",
    "finished_values",
    "moment",
    "progress_from",
    "progress_of",
    "receipt_of",
    "receipt_values",
    "reject_of",
    "reject_values",
    "rejects_where",
    "run_of",
    "run_values",
    "storable",
    "sum_of_receipts",
    "unfinished",
]

LONGEST_KEY = 1_000  # bytes of a source's name that is a key as it is
_COUNTS = ("read", "inserted", "duplicate_in_input", "duplicate_in_store", "rejected", "revised")
_RUN = (
    *("run_id", "provider", "job", "inputs_key", "mode", "strategy", "workers", "version", "status", "shape"),
    "supersedes",
)
_SAID_OF_RUN = ("inputs", "holder", "asked")  # may hold what no database can
Row = sa.RowMapping


def counts_of(row: Row) -> Counts:
    """The figures in `row`."""
    return Counts(*(int(row[name] or 0) for name in _COUNTS))


def counts_values(counts: Counts) -> dict[str, int]:
    """The figures as column values."""
    return {name: getattr(counts, name) for name in _COUNTS}


def run_values(run: RunRecord, now: datetime | sa.ColumnElement[Any]) -> dict[str, Any]:
    """A new run as column values."""
    return {
        **{name: getattr(run, name) for name in _RUN},
        **{name: _storable(getattr(run, name)) for name in _SAID_OF_RUN},
        "table_name": run.table,
        "started_at": now,
    }


def run_of(row: Row) -> RunRecord:
    """A row of ``headrace_runs``."""
    return RunRecord(
        table=row["table_name"],
        started_at=moment(row["started_at"]),
        finished_at=None if row["finished_at"] is None else moment(row["finished_at"]),
        counts=counts_of(row),
        **{name: row[name] for name in (*_RUN, *_SAID_OF_RUN, "seconds", "chunks", "error")},
    )


def finished_values(
    books: Row, status: RunStatus, seconds: float, error: str | None, now: datetime | str | sa.ColumnElement[Any]
) -> dict[str, Any]:
    """What closing a run sets, from the sum of its receipts; a resumed run's seconds add up."""
    return {
        "status": status,
        "finished_at": now,
        "seconds": RUNS.c.seconds + seconds,
        "chunks": books["chunks"],
        "error": _storable(error),
        **counts_values(counts_of(books)),
    }


def bounded(source: str) -> str:
    """`source` as a key that fits into an index entry of PostgreSQL (2,704 bytes): itself, or its beginning with a
    digest of the whole. No source is as long as a shortened one without being shortened itself, so none shares its key.
    """
    encoded = source.encode()
    if len(encoded) <= LONGEST_KEY:
        return source
    digest = blake2b(encoded, digest_size=16).hexdigest()
    return f"{encoded[:LONGEST_KEY].decode('utf-8', 'ignore')}\u2026{digest}"


def receipt_values(piece: Slice, now: Any) -> dict[str, Any]:
    """The receipt that claims `piece`'s address; its counts come when they are known."""
    source = storable(piece.address.source)
    key = bounded(source)
    return {
        "run_id": piece.run_id,
        "table_name": piece.table,
        "provider": piece.provider,
        "source": key,
        "source_name": None if key == source else source,
        "first_row": piece.address.first_row,
        "row_count": piece.address.rows,
        "partition": piece.partition,
        "digest": piece.digest,
        "committed_at": now,
    }


def receipt_of(row: Row) -> Receipt:
    """A row of ``headrace_receipts``."""
    return Receipt(
        receipt_id=row["receipt_id"],
        run_id=row["run_id"],
        address=Address(row["source_name"] or row["source"], row["first_row"], row["row_count"]),
        digest=row["digest"],
        counts=counts_of(row),
        committed_at=moment(row["committed_at"]),
        partition=row["partition"],
        spans=tuple(Address(*span) for span in json.loads(row["spans"] or "[]")),
        alerts=row["alerts"],
    )


def reject_values(piece: Slice, reject: Reject, receipt_id: int) -> dict[str, Any]:
    """A kept reject as column values, without the time."""
    return {
        "run_id": piece.run_id,
        "receipt_id": receipt_id,
        "table_name": piece.table,
        "provider": piece.provider,
        "state": "kept",
        "source": storable(reject.source),
        "row_number": reject.row,
        "line_number": reject.line,
        "column_name": _storable(reject.column),
        "reason": storable(reject.reason),
        "raw": storable(reject.raw),
        "record": _storable(reject.record),
        "stage": reject.stage,
        "differs": _storable(reject.differs),
        "replaces": reject.replaces,
    }


def reject_of(row: Row) -> StoredReject:
    """A row of ``headrace_rejects``."""
    return StoredReject(
        reject_id=row["reject_id"],
        run_id=row["run_id"],
        table=row["table_name"],
        provider=row["provider"],
        state=row["state"],
        created_at=moment(row["created_at"]),
        reject=Reject(
            source=row["source"],
            row=row["row_number"],
            line=row["line_number"],
            column=row["column_name"],
            reason=row["reason"],
            raw=row["raw"],
            record=row["record"],
            stage=row["stage"],
            differs=row["differs"],
            replaces=row["replaces"],
        ),
    )


def entries_of(table: str) -> sa.Select[Any]:
    """The receipts of `table` with what `entry_of` needs, by receipt ID."""
    columns = (RECEIPTS.c.receipt_id, RUNS.c.inputs_key, RECEIPTS.c.inserted, RECEIPTS.c.inserted_digest)
    found = sa.select(*columns).join(RUNS, RUNS.c.run_id == RECEIPTS.c.run_id).where(RECEIPTS.c.table_name == table)
    return found.order_by(RECEIPTS.c.receipt_id)


def entry_of(row: Row) -> LedgerEntry:
    """What a receipt says it inserted."""
    return LedgerEntry(row["receipt_id"], row["inputs_key"], row["inserted"], row["inserted_digest"])


def sum_of_receipts(run_id: str) -> sa.Select[Any]:
    """The books of a run, summed by the database from its receipts, and their number."""
    sums = [sa.func.coalesce(sa.func.sum(RECEIPTS.c[name]), 0).label(name) for name in _COUNTS]
    return sa.select(sa.func.count().label("chunks"), *sums).where(RECEIPTS.c.run_id == run_id)


def progress_of(run_ids: Sequence[str], now: Any) -> sa.Select[Any]:
    """The same for each of some runs that have receipts, with the time of the last, and the time."""
    sums = [sa.func.coalesce(sa.func.sum(RECEIPTS.c[name]), 0).label(name) for name in _COUNTS]
    last, time = (
        sa.func.max(RECEIPTS.c.committed_at).label("last_commit"),
        sa.literal(now) if isinstance(now, str) else now,
    )
    columns = (RECEIPTS.c.run_id, sa.func.count().label("slices"), last, time.label("now"), *sums)
    return sa.select(*columns).where(RECEIPTS.c.run_id.in_(run_ids)).group_by(RECEIPTS.c.run_id)


def progress_from(row: Row) -> RunProgress:
    """A row of `progress_of`."""
    last = moment(row["last_commit"])
    return RunProgress(row["slices"], counts_of(row), last, (moment(row["now"]) - last).total_seconds())


def unfinished(table: str, job: str, limit: int) -> sa.Select[Any]:
    """The runs on `table` that could be resumed, those of `job` first, the newest first."""
    open_ = (RUNS.c.table_name == table) & (RUNS.c.status != "done") & RUNS.c.job.is_not(None)
    others = sa.case((RUNS.c.job == job, 0), else_=1)
    return sa.select(RUNS).where(open_).order_by(others, RUNS.c.started_at.desc()).limit(limit)


def rejects_where(ids: Sequence[int] | None, limit: int | None, **wanted: str | None) -> sa.Select[Any]:
    """Rejects by their numbers and by `wanted` values of columns (``None``: any), oldest first."""
    found = sa.select(REJECTS).order_by(REJECTS.c.reject_id).limit(limit)
    for column, value in wanted.items():
        if value is not None:
            found = found.where(REJECTS.c[column] == value)
    return found if ids is None else found.where(REJECTS.c.reject_id.in_(list(ids)))


def moment(value: datetime | str) -> datetime:
    """A stored time: aware as PostgreSQL gives it, or SQLite's UTC text."""
    if isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value.astimezone(UTC)


def storable(text: str) -> str:
    """`text` without what neither database can hold in a text: NUL and lone surrogates, shown as escapes."""
    if "\0" not in text and text.isascii():
        return text
    return text.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode("utf-8")


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(text)
