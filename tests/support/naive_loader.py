"""What Headrace replaces: a parallel loader with the three races, kept as the negative control of `tests/races`.

    chunk ──► check: which of its keys are not in the shared set?      "checked"
                └──► act: INSERT them, page by page, in input order     "begun" (after the first page)
                       └──► read the shared set, add them, write it     "read" (before it is written)

Each chunk has a thread and a connection of its own. There is no ownership, no order of the inserts, and no key but what
the table happens to have. `meet` is called at the three points at which another worker may come in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg import sql

__all__ = ["PAGE", "NaiveLoader"]

PAGE = 20  # rows of one bulk INSERT
Row = tuple[int, str]


class NaiveLoader:
    """Loads chunks of (key, value) into `table` at the same time; `existing` is what it believes to be there."""

    def __init__(self, url: str, table: str, meet: Callable[[str], None], *, on_conflict: str = "") -> None:
        self.existing: frozenset[int] = frozenset()
        self.failures: list[psycopg.Error] = []
        self._url = url
        self._meet = meet
        self._insert = sql.SQL("INSERT INTO {} VALUES (%s, %s) {}").format(sql.Identifier(table), sql.SQL(on_conflict))

    def load(self, chunks: Sequence[Sequence[Row]]) -> None:
        with ThreadPoolExecutor(len(chunks)) as workers:
            list(workers.map(self._load_chunk, chunks))

    def _load_chunk(self, chunk: Sequence[Row]) -> None:
        absent = [row for row in chunk if row[0] not in self.existing]
        self._meet("checked")
        try:
            self._write(absent)
        except psycopg.Error as error:
            self.failures.append(error)
            return
        existing = self.existing
        self._meet("read")
        self.existing = existing.union(key for key, _ in absent)

    def _write(self, rows: Sequence[Row]) -> None:
        with psycopg.connect(self._url) as connection, connection.cursor() as cursor:
            for start in range(0, len(rows), PAGE):
                cursor.executemany(self._insert, rows[start : start + PAGE])
                if start == 0:
                    self._meet("begun")
