"""The part of a store that keeps the events themselves; each database has one of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from headrace.storage.held import HeldRows
from headrace.storage.id_sums import IdSum
from headrace.storage.records import Committed, Holdings, IdRange, Slice, TimeRange

__all__ = ["Events"]


class Events(Protocol):
    """Commits slices, and tells which IDs and rows a table holds."""

    def commit(self, piece: Slice) -> Committed:
        """Commit one slice as the transaction contract of `headrace.storage.sql.commit` says."""

    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]:
        """Packed 16-byte IDs of the events in `table`, in blocks of bounded size and no particular order.

        One statement. `limit` bounds the number of IDs.
        """

    def held(self, table: str, ids: bytes) -> Iterator[bytes]:
        """The packed `ids` (without duplicates) that `table` holds now, packed, in any order.

        One statement for each 10,000 IDs, through the key: the cost does not depend on the size of the table.
        """

    def id_sum(self, table: str, ranges: Sequence[IdRange | None]) -> IdSum | None:
        """The sum of the IDs that `table` holds in `ranges` (disjoint; ``None`` is all of it), by the database itself;
        ``None`` where it cannot. One statement.
        """

    def holdings(self, table: str) -> Iterator[Holdings]:
        """Every row's ID and receipt, in blocks of bounded size and no particular order. One statement."""

    def rows(
        self, table: str, columns: pa.Schema, *, ids: Sequence[bytes] | None = None, limit: int | None = None
    ) -> Iterator[HeldRows]:
        """Every row's ID, receipt and `columns` (some of `Tables.schema`), or those of the events `ids`, or of `limit`
        rows: in blocks of bounded size and no particular order. One statement.
        """
