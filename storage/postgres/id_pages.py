"""Existing IDs as PostgreSQL packs them: 10,000 to a row. The client handles few objects, and neither side much memory.

    by key      an ID range in pages along the primary key: each page begins after the last ID of the one before,
                all in one statement
    by number   IDs found any other way, in groups as they come
    held        which of some IDs are there: each looked up in the key

Measured on a million IDs while another thread of the client hashes: 10.0 M IDs/s by key, 2.6 by number, 1.0 one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from psycopg import sql

from headrace.storage.id_sums import PROBE
from headrace.storage.records import EVENT_ID, NO_RECEIPT, RECEIPT, IdRange, TimeRange

__all__ = [
    "ALONG_THE_KEY",
    "IDS_PER_BLOCK",
    "THROUGH_THE_KEY",
    "as_array",
    "held_of",
    "holdings_of",
    "ids_in",
    "packed_by_key",
    "packed_by_number",
    "sum_of",
]

IDS_PER_BLOCK = 10_000
_ID_BYTES = 16
_ID = sql.Identifier(EVENT_ID)

# Of a table without statistics, such as one just loaded, the planner expects few rows: it would sort all for each page.
ALONG_THE_KEY = sql.SQL("SET LOCAL enable_sort = off")
# Likewise, it would read all of a table to look up a few thousand IDs.
THROUGH_THE_KEY = sql.SQL(
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
)
# The IDs of a page come in the order of the inner query, so its last is the greatest.
_BY_KEY = sql.SQL(
    "WITH RECURSIVE page (number, ids) AS ("
    "SELECT 1, {first} UNION ALL "
    "SELECT number + 1, {next} FROM page WHERE length(ids) = {full}"
    ") SELECT ids FROM page WHERE ids IS NOT NULL"
)
_PAGE = sql.SQL(
    "(SELECT string_agg(uuid_send({id}), '') FROM "
    "(SELECT {id} FROM {table} WHERE {condition} ORDER BY {id} LIMIT {limit}) AS ids)"
)
_AFTER = sql.SQL("{id} > encode(substring(page.ids FROM {last}), 'hex')::uuid AND {condition}")
_BY_NUMBER = sql.SQL(
    "SELECT string_agg({packed}, '') FROM "
    "(SELECT *, (row_number() OVER () - 1) / {size} AS page FROM ({found}) AS found) AS numbered GROUP BY page"
)
_PACKED_ID = sql.SQL("uuid_send({})").format(_ID)
_PACKED_ROW = sql.SQL("uuid_send({}) || int8send(coalesce({}, {}))").format(
    _ID, sql.Identifier(RECEIPT), sql.Literal(NO_RECEIPT)
)


def packed_by_key(table: str, where: IdRange, limit: int | None) -> sql.Composed:
    """The statement for the IDs of `table` in a range, at most `limit`: rows of packed IDs, ascending."""
    condition = _in_range(where)
    size = sql.Literal(IDS_PER_BLOCK)
    later = size if limit is None else sql.SQL("least({}, {} - number * {})").format(size, sql.Literal(limit), size)
    first = size if limit is None else sql.Literal(min(limit, IDS_PER_BLOCK))
    after = _AFTER.format(id=_ID, last=sql.Literal((IDS_PER_BLOCK - 1) * _ID_BYTES + 1), condition=condition)
    name = sql.Identifier(table)
    return _BY_KEY.format(
        first=_PAGE.format(id=_ID, table=name, condition=condition, limit=first),
        next=_PAGE.format(id=_ID, table=name, condition=after, limit=later),
        full=sql.Literal(IDS_PER_BLOCK * _ID_BYTES),
    )


def packed_by_number(found: sql.Composable) -> sql.Composed:
    """The statement for the IDs that the query `found` selects as ``event_id``: rows of packed IDs in any order."""
    return _BY_NUMBER.format(packed=_PACKED_ID, size=sql.Literal(IDS_PER_BLOCK), found=found)


def held_of(table: str) -> sql.Composed:
    """The statement for those of the IDs ``ids`` (`as_array`) that `table` holds: one row of packed IDs."""
    held = (
        "SELECT string_agg(uuid_send({id}), '') FROM unnest(%(ids)s::uuid[]) AS wanted ({id}) JOIN {table} USING ({id})"
    )
    return sql.SQL("SELECT coalesce(({held}), '')").format(
        held=sql.SQL(held).format(id=_ID, table=sql.Identifier(table))
    )


def as_array(ids: bytes) -> str:
    """Packed IDs as PostgreSQL writes an array of them."""
    return "{" + ids.hex(",", _ID_BYTES) + "}"


def sum_of(table: str, ranges: Sequence[IdRange | None]) -> sql.Composed:
    """The statement for the sum of all IDs of `table` in `ranges`: count, sum, and the hash of `PROBE`."""
    where = [sql.SQL("true") if one is None else _in_range(one) for one in ranges] or [sql.SQL("false")]
    sums = sql.SQL(
        "SELECT count(*), coalesce(sum(uuid_hash_extended({id}, 0)), 0)::text, uuid_hash_extended({probe}::uuid, 0) "
        "FROM {table} WHERE {where}"
    )
    either = sql.SQL(" OR ").join(sql.SQL("({})").format(one) for one in where)
    return sums.format(id=_ID, probe=sql.Literal(str(PROBE)), table=sql.Identifier(table), where=either)


def holdings_of(table: str) -> sql.Composed:
    """The statement for all rows of `table`: the ID and the receipt as int64, packed, in any order."""
    found = sql.SQL("SELECT {}, {} FROM {}").format(_ID, sql.Identifier(RECEIPT), sql.Identifier(table))
    return _BY_NUMBER.format(packed=_PACKED_ROW, size=sql.Literal(IDS_PER_BLOCK), found=found)


def ids_in(table: str, where: TimeRange | None, limit: int | None) -> sql.Composed:
    """The query for the IDs of the events in `where`, at most `limit` of them."""
    condition = sql.SQL("true") if where is None else _in_times(where)
    found = sql.SQL("SELECT {} FROM {} WHERE {}").format(_ID, sql.Identifier(table), condition)
    return found if limit is None else sql.SQL("{} LIMIT {}").format(found, sql.Literal(limit))


def _in_range(where: IdRange) -> sql.Composable:
    low, high = (None if edge is None else UUID(bytes=edge) for edge in (where.low, where.high))
    return _between(_ID, low, high)


def _in_times(where: TimeRange) -> sql.Composable:
    column = sql.Identifier(where.column)
    # UTC as plain text takes the column's own type: a timestamp without zone then means UTC, not the session's zone
    low, high = (_utc(edge) for edge in (where.low, where.high))
    return sql.SQL("(({}) OR {} IS NULL)").format(_between(column, low, high), column)


def _utc(edge: datetime | None) -> str | None:
    return None if edge is None else str(edge.astimezone(UTC))


def _between(column: sql.Composable, low: UUID | str | None, high: UUID | str | None) -> sql.Composable:
    edges = [(sql.SQL(">="), low), (sql.SQL("<"), high)]
    parts = [sql.SQL("{} {} {}").format(column, sign, sql.Literal(edge)) for sign, edge in edges if edge is not None]
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true")
