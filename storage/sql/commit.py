"""The commit of a slice: both databases take the same steps in the same order, each with statements of its own.

    commit(slice) ─► claim the receipt ─► take its locks ─► write the events ─► compare the repeats, ─► keep the rejects
                         │ taken              │ not in time         │               raise the alerts        │
                         ▼                    ▼                     ▼ unique key refused some               ▼
                     already done        LockTimeoutError       safe path: which went in?     complete the receipt

**The transaction contract.** `commit` takes one `Slice` and makes it durable in exactly one transaction:

0. Lock the table against changes of its definition (types, keys, triggers), and read its present definition.
1. Insert the receipt. Its key is (run, source, first row, partition). If it exists, the slice is already committed:
   change nothing, return the counts that receipt holds with ``already_done=True``. Idempotency needs no other
   machinery.
2. Take the slice's locks (`Slice.locks`), ascending, before anything is read. They end with the transaction, so that
   neither a crash nor a connection pooler can leave one behind. One that is not granted in time is a
   `LockTimeoutError`, and the whole transaction is rolled back.
3. Write the events, as `Slice.existing` says: those that the snapshot vouches for go by the fast path; for ``query``
   the database is first asked which of the IDs it holds, and the others go by the fast path. Should the unique key
   refuse one (writers that take no lock exist), the events alone roll back to a savepoint and go by the safe path
   (``ON CONFLICT (event_id) DO NOTHING``), which says exactly which were inserted, and which ``conflict`` goes by at
   once.
4. Compare the slice's repeats, and the events that did not go in, with the table (`Slice.repeats`); bring its rows up
   to date where that is asked for.
5. Write the alerts of the events that were really inserted (`Slice.alerts`) and of the rows that have taken the table's
   row (`Repeats.alerts`), but for keys that are in the outbox already, and the rejects.
   Settle those that are replayed (`Slice.replayed`): if one of them is kept no more, somebody else has loaded or
   discarded its row; that is a `SettledError`, and the whole transaction is rolled back.
6. Where triggers or children act on the table's rows, look for every event that was sent
   (`headrace.storage.postgres.written_slice`).
7. Complete the receipt with the counts, and commit.

Rows, alerts, rejects and receipt are therefore visible together or not at all. A transaction that fails for a temporary
reason (serialization failure, deadlock, a table's lock, a lost connection) is run again as a whole, with jitter and a
cap.
A connection lost during COMMIT leaves the outcome unknown; running the slice again is safe because of step 1.

The unique key on ``event_id`` is the sole authority over what is a duplicate; a snapshot only saves work.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import sqlalchemy as sa

from headrace.errors import BooksError, StaleReceiptsError
from headrace.storage.digest import NOTHING, Digest
from headrace.storage.records import EVENT_ID, Committed, Repeats, Slice
from headrace.storage.spans import Stopwatch
from headrace.storage.sql import ledger_rows
from headrace.storage.sql.database import Database, SqlDialect
from headrace.storage.sql.numbers import NumberTakenError, catch_up
from headrace.storage.sql.outbox import raise_alerts
from headrace.storage.sql.rejects import keep_rejects
from headrace.storage.sql.revise import UNREVISED, Revised, candidates, revise
from headrace.storage.sql.schema import RECEIPT_KEY, RECEIPTS
from headrace.storage.sql.slice_transaction import Begin, SliceTransaction, Written

__all__ = ["commit"]


def commit(database: Database, begin: Begin, piece: Slice) -> Committed:
    """Commit one slice as the module's transaction contract says, in a transaction that `begin` begins."""
    watch = Stopwatch(piece.address.source, piece.address.first_row, piece.partition)
    attempt = partial(
        database.retried,
        lambda: begin(piece, watch),
        lambda transaction: _committed_by(transaction, database.dialect),
        piece.table,
        watch,
    )
    with watch.stage("commit", rows=piece.events.num_rows, size=piece.events.nbytes):
        try:
            committed, failures = attempt()
        except NumberTakenError:
            database.write(catch_up)
            committed, failures = attempt()
    spans = tuple(watch.spans)
    return replace(committed, retries=failures, server_was_away=database.lost_since(), spans=spans)


def _committed_by(transaction: SliceTransaction, dialect: SqlDialect) -> Committed:
    piece = transaction.piece
    claim = dialect.insert(RECEIPTS).values(ledger_rows.receipt_values(piece, dialect.now()))
    # where the receipt is there, nothing is inserted, and nothing returned
    claim = claim.on_conflict_do_nothing(index_elements=RECEIPT_KEY).returning(RECEIPTS.c.receipt_id)
    receipt_id, waited = transaction.claim(claim)
    if receipt_id is None:
        return _already_done(transaction.connection, piece)
    written = transaction.write_events(receipt_id) if piece.events.num_rows else Written("none", None)
    revised, alerts = UNREVISED, 0
    if piece.repeats is not None:
        revised = _revised(transaction, piece.repeats, written)
    if piece.alerts is not None or piece.repeats is not None:
        alerts = raise_alerts(transaction, written.inserted, revised.newer, receipt_id)
    if piece.rejects or piece.replayed or revised.kept:
        keep_rejects(transaction, revised.kept, receipt_id, dialect.now())
    if piece.events.num_rows and transaction.facts.watchers:
        transaction.prove(written, receipt_id)
    committed = replace(_settled(piece, written, receipt_id, revised.rows), lock_seconds=waited, alerts=alerts)
    complete = sa.update(RECEIPTS).where(RECEIPTS.c.receipt_id == receipt_id)
    books = ledger_rows.counts_values(committed.counts)
    values = books | {"inserted_digest": _inserted_digest(piece, written), "alerts": alerts}
    transaction.complete(complete.values(values))
    return committed


def _already_done(connection: sa.Connection, piece: Slice) -> Committed:
    values = ledger_rows.receipt_values(piece, None)
    same = [RECEIPTS.c[name] == values[name] for name in RECEIPT_KEY]
    receipt = ledger_rows.receipt_of(connection.execute(sa.select(RECEIPTS).where(*same)).mappings().one())
    if receipt.digest != piece.digest:
        raise StaleReceiptsError(
            "the input is not what it was when this run began",
            where=str(piece.address),
            hint="load it as a new run with --no-resume; events already loaded will be found again as duplicates",
        )
    return Committed(receipt.receipt_id, receipt.counts, already_done=True, alerts=receipt.alerts)


def _revised(transaction: SliceTransaction, repeats: Repeats, written: Written) -> Revised:
    piece = transaction.piece
    aside = candidates(piece, repeats, written.inserted)
    if not aside.rows.num_rows:
        return UNREVISED
    place = transaction.put_repeats_aside(aside)
    with transaction.watch.stage("commit.revise", rows=aside.rows.num_rows):
        return revise(transaction.connection, piece.table, place, aside, repeats, transaction.facts)


def _settled(piece: Slice, written: Written, receipt_id: int, revised: int) -> Committed:
    offered = piece.events.num_rows
    inserted = offered if written.inserted is None else len(written.inserted) // 16
    in_store = piece.counts.duplicate_in_store + offered - inserted
    revised += piece.counts.revised
    counts = replace(piece.counts, inserted=inserted, duplicate_in_store=in_store, revised=revised)
    if not counts.balanced:
        raise BooksError(f"the chunk's books do not balance: {counts}", where=str(piece.address))
    return Committed(receipt_id, counts, inserted_ids=written.inserted, path=written.path)


def _inserted_digest(piece: Slice, written: Written) -> bytes:
    """The digest of the events that went in."""
    if written.inserted is not None:
        return Digest.of_packed(written.inserted).to_bytes()
    if not piece.events.num_rows:
        return NOTHING.to_bytes()
    column = piece.events.column(EVENT_ID)
    packed = memoryview(column.buffers()[1])[column.offset * 16 : (column.offset + len(column)) * 16]
    return Digest.of_packed(packed).to_bytes()
