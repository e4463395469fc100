"""Rejects as SQL, the same text on PostgreSQL and SQLite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from headrace.errors import SettledError
from headrace.storage.interface import Slice
from headrace.storage.rejects import Reject, RejectStage, RejectState, StoredReject
from headrace.storage.repeats import DifferingRow
from headrace.storage.sql import ledger_rows
from headrace.storage.sql.schema import REJECTS
from headrace.storage.sql.transactions import Transactions, in_blocks

__all__ = ["SqlRejects"]


class SqlRejects(Transactions, ABC):
    """The half of a `Store` that keeps rejects."""

    @abstractmethod
    def _now(self) -> Any:
        """The server's clock, as a value or an SQL expression that goes into a timestamp column."""

    @abstractmethod
    def _insert_rejects(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None: ...

    def _keep_rejects(
        self, connection: sa.Connection, piece: Slice, receipt_id: int, differences: Sequence[DifferingRow]
    ) -> None:
        revisions = [piece.repeats.reject(one) for one in differences] if piece.repeats else []
        if rejects := [*piece.rejects, *revisions]:
            with self._watch.stage("commit.rejects", rows=len(rejects)):
                rows = [ledger_rows.reject_values(piece, _again(piece, reject), receipt_id) for reject in rejects]
                self._insert_rejects(connection, rows)
        if piece.replayed:
            self._settle_replayed(connection, piece)

    def _settle_replayed(self, connection: sa.Connection, piece: Slice) -> None:
        """Mark the rejects that the slice replays. Raises `SettledError` unless all of them were kept."""
        numbers = [one.reject_id for one in piece.replayed.values()]
        settled = self._settle_rejects(connection, numbers, "replayed")
        if settled != len(numbers):
            raise SettledError(
                f"{len(numbers) - settled:,} of {len(numbers):,} rejects were replayed or discarded meanwhile",
                where=f"{self._url}, table {piece.table}",
                hint="run the same command again: it takes those that are still kept",
            )

    def rejects(
        self,
        *,
        table: str | None = None,
        run_id: str | None = None,
        ids: Sequence[int] | None = None,
        state: RejectState | None = "kept",
        stage: RejectStage | None = None,
        limit: int | None = None,
    ) -> list[StoredReject]:
        wanted: Sequence[Sequence[int] | None] = [None] if ids is None else in_blocks(sorted(set(ids)))
        found: list[StoredReject] = []
        with self._reading() as connection:
            for block in wanted:
                some = ledger_rows.rejects_where(
                    block, limit, table_name=table, run_id=run_id, state=state, stage=stage
                )
                found += map(ledger_rows.reject_of, connection.execute(some).mappings())
        return found[:limit]

    def place_rejects(self, places: Mapping[int, tuple[int | None, str | None]]) -> None:
        rows = [
            {"id": reject, "line": line, "text": None if raw is None else ledger_rows.storable(raw)}
            for reject, (line, raw) in sorted(places.items())
        ]
        raw = sa.func.coalesce(sa.bindparam("text", type_=sa.Text), REJECTS.c.raw)
        place = sa.update(REJECTS).where(REJECTS.c.reject_id == sa.bindparam("id"))
        place = place.values(line_number=sa.bindparam("line"), raw=raw)
        if rows:
            self._write(lambda connection: connection.execute(place, rows))

    def discard_rejects(self, ids: Sequence[int]) -> int:
        return self._write(lambda connection: self._settle_rejects(connection, ids, "discarded"))

    def mark_replayed(self, ids: Sequence[int]) -> int:
        return self._write(lambda connection: self._settle_rejects(connection, ids, "replayed"))

    def _settle_rejects(self, connection: sa.Connection, ids: Sequence[int], state: RejectState) -> int:
        settle = sa.update(REJECTS).where(REJECTS.c.state == "kept").values(state=state, settled_at=self._now())
        return sum(
            connection.execute(settle.where(REJECTS.c.reject_id.in_(block))).rowcount
            for block in in_blocks(sorted(ids))
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
