"""What a slice has written, looked for again in its own transaction: for tables on which triggers or children act.

    sent: IDs, those that went in ─► the table's rows under these IDs ─┬─► one each, in the table itself, with the
                                                                       │   slice's receipt and provider: proven
                                                                       └─► else: an error that names who may have
                                                                           done it, and nothing is committed

A trigger may stamp other columns and write elsewhere. It may not leave a row out, send it elsewhere, or change what
makes it this event of this receipt: books, receipt and alerts would tell of rows that are not there.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from headrace.errors import StoreError
from headrace.storage.postgres.one_message import Statement
from headrace.storage.records import EVENT_ID, PROVIDER, RECEIPT, array_of_ids
from headrace.storage.sql.facts import Facts

__all__ = ["FRESH", "astray", "carrying", "meddled", "sent_ids"]

FRESH = "fresh"  # the column that says whether an event went in just now
_SHOWN = 3

# one row each; of those that went in with all that makes it this event of this receipt, of the others without it
_ASTRAY = (
    "SELECT sent.event_id::text, count(*) OVER () FROM {sent} AS sent LEFT JOIN {table} AS held USING (event_id) "
    "GROUP BY sent.event_id, sent.fresh HAVING count(held.event_id) <> 1 OR CASE WHEN sent.fresh "
    "THEN NOT coalesce(bool_and(held.{receipt} = {number} AND held.{provider} = {name} "
    "AND ({spread} OR held.tableoid = to_regclass({quoted}))), false) "
    "ELSE coalesce(bool_or(held.{receipt} = {number}), false) END LIMIT {most}"
)


def sent_ids(events: pa.RecordBatch, inserted: bytes | None) -> tuple[pa.RecordBatch, int]:
    """The IDs of `events` with whether they went in, and how many of the packed IDs `inserted` are none of them."""
    ids = events.column(EVENT_ID)
    if inserted is None:
        return pa.RecordBatch.from_pydict({EVENT_ID: ids, FRESH: pa.array(np.ones(len(ids), bool))}), 0
    packed = array_of_ids(inserted)
    fresh = pc.is_in(ids, value_set=packed)
    strange = len(packed) - (pc.sum(fresh).as_py() or 0)
    return pa.RecordBatch.from_pydict({EVENT_ID: ids, FRESH: fresh}), strange


def astray(table: str, facts: Facts, sent: sql.Identifier, receipt_id: int, provider: str) -> Statement:
    """The statement that finds events of the table `sent` that are not in `table` as they were sent: a few of them,
    each with the number of all.
    """
    name = sql.Identifier(table)
    return Statement(
        sql.SQL(_ASTRAY).format(
            sent=sent,
            table=name,
            receipt=sql.Identifier(RECEIPT),
            number=sql.Literal(receipt_id),
            provider=sql.Identifier(PROVIDER),
            name=sql.Literal(provider),
            spread=sql.Literal(not facts.alone),
            quoted=sql.Literal(name.as_string(None)),
            most=sql.Literal(_SHOWN),
        )
    )


def carrying(table: str, receipt_id: int) -> Statement:
    """The statement that counts the rows which carry a receipt. There is no index: only who has a suspicion asks."""
    asked = sql.SQL("SELECT count(*) FROM {} WHERE {} = {}")
    return Statement(asked.format(sql.Identifier(table), sql.Identifier(RECEIPT), sql.Literal(receipt_id)))


def meddled(what: str, where: str, facts: Facts) -> StoreError:
    """`what` was found in the table after a slice was written, and who may have done it."""
    names = ", ".join(one.name for one in facts.watchers) or "nothing that the catalogue names"
    cure = next((one.cure for one in facts.watchers if one.cure), None)
    hint = (
        "a trigger may set other columns and write elsewhere, but not leave rows out, move them, or change event_id, "
    )
    hint += "provider or headrace_receipt"
    return StoreError(
        f"{what}; what acts on its rows: {names}",
        where=where,
        hint=f"{hint}. Nothing of this slice was kept: {cure or 'correct it'}, and run the same command again",
    )
