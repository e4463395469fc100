"""Events in PostgreSQL: slices go in by COPY, IDs come out packed by the server (`headrace.storage.events.Events`)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import cast

import numpy as np
import pyarrow as pa
from psycopg import sql

from headrace.storage.held import HeldRows
from headrace.storage.id_sums import HASH_OF_PROBE, IdSum
from headrace.storage.postgres.catalogue import PostgresCatalogue
from headrace.storage.postgres.copy_out import copied_rows, copy_out
from headrace.storage.postgres.id_pages import (
    ALONG_THE_KEY,
    IDS_PER_BLOCK,
    THROUGH_THE_KEY,
    as_array,
    held_of,
    holdings_of,
    ids_in,
    packed_by_key,
    packed_by_number,
    sum_of,
)
from headrace.storage.postgres.one_message import Statement, alone, driver_of
from headrace.storage.postgres.slice_transaction import PostgresTransaction
from headrace.storage.records import Committed, Holdings, IdRange, Slice, TimeRange
from headrace.storage.spans import Stopwatch
from headrace.storage.sql.commit import commit
from headrace.storage.sql.database import Database, in_packs

__all__ = ["PostgresEvents"]


class PostgresEvents:
    """Commits are as durable as the server's ``synchronous_commit`` says."""

    def __init__(self, database: Database, catalogue: PostgresCatalogue) -> None:
        self._database = database
        self._catalogue = catalogue

    def commit(self, piece: Slice) -> Committed:
        """Commit one slice."""
        return commit(self._database, self._begin, piece)

    @contextmanager
    def _begin(self, piece: Slice, watch: Stopwatch) -> Iterator[PostgresTransaction]:
        """In autocommit mode psycopg leaves BEGIN to us: it goes out with the first statements (`claim`)."""
        with ExitStack() as begun:
            with watch.stage("commit.begin"):
                connection = begun.enter_context(self._database.engine.connect())
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
                begun.enter_context(connection.begin())
            yield PostgresTransaction(connection, piece, watch, self._database, self._catalogue)

    def fetch_ids(
        self, table: str, where: IdRange | TimeRange | None = None, *, limit: int | None = None
    ) -> Iterator[bytes]:
        """Packed IDs in blocks: along the key for a range of IDs, numbered otherwise."""
        if isinstance(where, IdRange):
            yield from self._packed(packed_by_key(table, where, limit), first=ALONG_THE_KEY)
        else:
            yield from self._packed(packed_by_number(ids_in(table, where, limit)))

    def held(self, table: str, ids: bytes) -> Iterator[bytes]:
        """Those of the packed `ids` that `table` holds, through the key."""
        for block in in_packs(ids, IDS_PER_BLOCK):
            yield from self._packed(held_of(table), {"ids": as_array(block)}, first=THROUGH_THE_KEY)

    def id_sum(self, table: str, ranges: Sequence[IdRange | None]) -> IdSum | None:
        """The sum of the IDs in `ranges`, where the server hashes as Headrace does."""
        with self._database.reading() as connection:
            asked = Statement(sum_of(table, ranges))
            found = alone(driver_of(connection), asked, self._database.say).fetchone()
        count, total, probed = found or (0, "0", None)
        return IdSum(count, int(total)) if probed == HASH_OF_PROBE else None

    def holdings(self, table: str) -> Iterator[Holdings]:
        """Every row's ID and receipt."""
        for packed in self._packed(holdings_of(table)):
            rows = np.frombuffer(packed, dtype=[("id", "V16"), ("receipt", ">i8")])
            yield Holdings(rows["id"].tobytes(), rows["receipt"].astype(np.int64))

    def rows(
        self, table: str, columns: pa.Schema, *, ids: Sequence[bytes] | None = None, limit: int | None = None
    ) -> Iterator[HeldRows]:
        """Every row's ID, receipt and `columns`, or those of the events `ids`, or of `limit` rows, by COPY."""
        with self._database.reading() as connection:
            cursor = driver_of(connection).cursor()
            statement = copy_out(table, columns, ids, limit)
            self._database.say(statement.as_string(cursor))
            with cursor.copy(statement) as copy:
                yield from copied_rows(copy, columns)

    def _packed(
        self, statement: sql.Composed, values: Mapping[str, str] | None = None, *, first: sql.SQL | None = None
    ) -> Iterator[bytes]:
        """The rows of packed IDs, streamed: neither side holds more than a few of them."""
        with self._database.reading() as connection:
            cursor = driver_of(connection).cursor()
            if first is not None:
                cursor.execute(first)
            self._database.say(statement.as_string(cursor))
            # declared an iterator; closed early, as the generator it is, it cancels the query
            with closing(cast(Generator[tuple[bytes]], cursor.stream(statement, values, binary=True))) as rows:
                # rows that were there before the column was added have no ID
                yield from (packed for (packed,) in rows if packed is not None)
