"""Rejects as SQL, the same text on PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from headrace.errors import SettledError
from headrace.storage.records import DifferingRow, Slice
from headrace.storage.rejects import Reject, RejectStage, RejectState, StoredReject
from headrace.storage.sql import ledger_rows
from headrace.storage.sql.database import Database, in_blocks
from headrace.storage.sql.schema import REJECTS
from headrace.storage.sql.slice_transaction import SliceTransaction

__all__ = ["Rejects", "keep_rejects"]


class Rejects:
    """The part of a store that keeps rejects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(
        self,
        *,
        table: str | None = None,
        run_id: str | None = None,
        ids: Sequence[int] | None = None,
        state: RejectState | None = "kept",
        stage: RejectStage | None = None,
        limit: int | None = None,
    ) -> list[StoredReject]:
        """Rejects, oldest first."""
        wanted: Sequence[Sequence[int] | None] = [None] if ids is None else in_blocks(sorted(set(ids)))
        found: list[StoredReject] = []
        with self._database.reading() as connection:
            for block in wanted:
                some = ledger_rows.rejects_where(
                    block, limit, table_name=table, run_id=run_id, state=state, stage=stage
                )
                found += map(ledger_rows.reject_of, connection.execute(some).mappings())
        return found[:limit]

    def place(self, places: Mapping[int, tuple[int | None, str | None]]) -> None:
        """Set the line and, where it is known, the raw text of rejects, by their numbers."""
        rows = [
            {"id": reject, "line": line, "text": None if raw is None else ledger_rows.storable(raw)}
            for reject, (line, raw) in sorted(places.items())
        ]
        raw = sa.func.coalesce(sa.bindparam("text", type_=sa.Text), REJECTS.c.raw)
        place = sa.update(REJECTS).where(REJECTS.c.reject_id == sa.bindparam("id"))
        place = place.values(line_number=sa.bindparam("line"), raw=raw)
        if rows:
            self._database.write(lambda connection: connection.execute(place, rows))

    def discard(self, ids: Sequence[int]) -> int:
        """Mark kept rejects as discarded; returns how many changed."""
        return self._settle(ids, "discarded")

    def mark_replayed(self, ids: Sequence[int]) -> int:
        """Mark kept rejects as replayed: their rows were read again by another run. Returns how many changed."""
        return self._settle(ids, "replayed")

    def _settle(self, ids: Sequence[int], state: RejectState) -> int:
        now = self._database.dialect.now()
        return self._database.write(lambda connection: _settled(connection, ids, state, now))


def keep_rejects(transaction: SliceTransaction, differences: Sequence[DifferingRow], receipt_id: int, now: Any) -> None:
    """Keep the slice's rejects and differing rows; settle the rejects that it replays.

    Raises `SettledError` unless all of those were kept.
    """
    piece = transaction.piece
    revisions = [piece.repeats.reject(one) for one in differences] if piece.repeats else []
    if rejects := [*piece.rejects, *revisions]:
        with transaction.watch.stage("commit.rejects", rows=len(rejects)):
            rows = [ledger_rows.reject_values(piece, _again(piece, reject), receipt_id) for reject in rejects]
            transaction.insert_rejects(rows)
    if not piece.replayed:
        return
    numbers = [one.reject_id for one in piece.replayed.values()]
    settled = _settled(transaction.connection, numbers, "replayed", now)
    if settled != len(numbers):
        raise SettledError(
            f"{len(numbers) - settled:,} of {len(numbers):,} rejects were replayed or discarded meanwhile",
            where=transaction.where,
            hint="run the same command again: it replays the rejects that are still kept",
        )


def _settled(connection: sa.Connection, ids: Sequence[int], state: RejectState, now: Any) -> int:
    """Settle those of `ids` that are kept; returns how many those were."""
    settle = sa.update(REJECTS).where(REJECTS.c.state == "kept").values(state=state, settled_at=now)
    return sum(
        connection.execute(settle.where(REJECTS.c.reject_id.in_(block))).rowcount for block in in_blocks(sorted(ids))
    )


def _again(piece: Slice, reject: Reject) -> Reject:
    """`reject` under the place of the one that its row was before, where the slice replays that."""
    if not piece.replayed:
        return reject
    before = piece.replayed.get(reject.row) if reject.row is not None else None
    if before is None:  # behind a select nobody knows which row it was, unless there was only one
        return replace(reject, row=None) if len(piece.replayed) > 1 else _in_place(reject, *piece.replayed.values())
    return _in_place(reject, before)


def _in_place(reject: Reject, before: StoredReject) -> Reject:
    held = before.reject
    return replace(reject, source=held.source, row=held.row, line=held.line, raw=held.raw, replaces=before.reject_id)
