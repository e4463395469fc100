"""Promise 2: rows, rejects and receipt are in the database together or not at all, wherever a commit stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
from contract.pieces import TABLE, WAYS, Stop, look, new_ids, packed, piece, prepared, reject, stored_ids

from headrace.errors import BooksError, InputError, SettledError
from headrace.storage import open_store
from headrace.storage.records import Counts, Existing

BOOKS = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM headrace_receipts), (SELECT count(*) FROM {})"
EVERYTHING = BOOKS.format("headrace_rejects")


class StopAt:
    """A statement hook that stops the commit just before its `number`-th statement is sent."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.seen: list[str] = []

    def __call__(self, statement: str) -> None:
        if self.number is not None and len(self.seen) == self.number:
            raise Stop(statement)
        self.seen.append(statement)

    def arm(self, number: int | None) -> None:
        self.number, self.seen = number, []


@pytest.mark.parametrize("existing", WAYS)
def test_a_commit_stopped_before_any_of_its_statements_leaves_nothing(store_url: str, existing: Existing) -> None:
    ids, hook = new_ids(50), StopAt()
    with open_store(store_url, on_statement=hook) as store:
        prepared(store)
        first = new_ids(5, seed=9)
        store.events.commit(piece(first, first_row=1000))  # the table has been met, so that every commit is alike
        whole = piece(ids[:-1], rejects=[reject(1), reject(2)], existing=existing)
        steps = 0
        while True:
            hook.arm(steps)
            try:
                store.events.commit(whole)
            except Stop:
                assert look(store_url, EVERYTHING) == [(5, 1, 0)], f"stopped before {hook.seen[-1:]} of step {steps}"
                steps += 1
            else:
                break
        assert steps >= 4, "receipt, events, rejects, receipt completed"
        assert look(store_url, EVERYTHING) == [(5 + 49, 2, 2)]


def test_nothing_is_visible_to_others_before_the_commit(store_url: str) -> None:
    seen: set[tuple[int, ...]] = set()
    watching = False

    def watch(statement: str) -> None:
        if watching:
            seen.update(look(store_url, EVERYTHING))

    with open_store(store_url, on_statement=watch) as store:
        prepared(store)
        watching = True
        store.events.commit(piece(new_ids(20), rejects=[reject()]))
        watching = False
    assert seen == {(0, 0, 0)}
    assert look(store_url, EVERYTHING) == [(20, 1, 1)]


def test_a_slice_committed_again_changes_nothing_and_returns_its_counts(store_url: str) -> None:
    with open_store(store_url) as store:
        prepared(store)
        first = store.events.commit(piece(new_ids(10), rejects=[reject()]))
        again = store.events.commit(piece(new_ids(10, seed=5), rejects=[reject()]))
    assert (first.already_done, again.already_done) == (False, True)
    assert again.counts == first.counts == Counts(read=11, inserted=10, rejected=1)
    assert again.receipt_id == first.receipt_id
    assert stored_ids(store_url) == new_ids(10)
    assert look(store_url, EVERYTHING) == [(10, 1, 1)]


def test_a_receipt_of_another_content_is_refused(store_url: str) -> None:
    with open_store(store_url) as store:
        prepared(store)
        store.events.commit(piece(new_ids(3)))
        with pytest.raises(InputError, match=r"in\.csv, rows 0-2") as raised:
            store.events.commit(piece(new_ids(3), digest="changed"))
    assert raised.value.hint
    assert look(store_url, EVERYTHING) == [(3, 1, 0)]


@pytest.mark.parametrize("off", [{"read": 1}, {"duplicate_in_input": 1}, {"rejected": 1}])
def test_books_that_do_not_balance_are_never_committed(store_url: str, off: dict[str, int]) -> None:
    right = piece(new_ids(3))
    wrong = replace(right, counts=right.counts + Counts(**off))
    with open_store(store_url) as store:
        prepared(store)
        with pytest.raises(BooksError):
            store.events.commit(wrong)
    assert look(store_url, EVERYTHING) == [(0, 0, 0)]


def test_an_empty_slice_leaves_its_receipt(store_url: str) -> None:
    with open_store(store_url) as store:
        prepared(store)
        done = store.events.commit(piece([], rejects=[reject(0)]))
        assert (done.path, done.counts) == ("none", Counts(read=1, rejected=1))
        assert store.events.commit(piece([], rejects=[reject(0)])).already_done


def test_replayed_rejects_are_settled_in_the_same_transaction_once(store_url: str) -> None:
    hook = StopAt()
    states = "SELECT state, settled_at IS NULL FROM headrace_rejects ORDER BY reject_id"
    with open_store(store_url, on_statement=hook) as store:
        prepared(store)
        store.events.commit(piece([], rejects=[reject(0), reject(1), reject(2)]))
        kept = store.rejects.find()
        assert store.rejects.discard([kept[2].reject_id]) == 1
        before = look(store_url, states)
        with pytest.raises(SettledError, match="1 of 3 rejects"):
            store.events.commit(piece(new_ids(2), first_row=10, replayed=kept))
        assert look(store_url, states) == before
        replay = piece(new_ids(2), first_row=10, replayed=kept[:2])
        for step in range(3, 5):
            hook.arm(step)
            with pytest.raises(Stop):
                store.events.commit(replay)
            assert look(store_url, states) == before
        hook.arm(None)
        store.events.commit(replay)
    assert [state for state, _ in look(store_url, states)] == ["replayed", "replayed", "discarded"]


@pytest.mark.parametrize("existing", WAYS)
def test_an_event_points_at_the_receipt_that_brought_it(store_url: str, existing: Existing) -> None:
    with open_store(store_url) as store:
        prepared(store)
        one = store.events.commit(piece(new_ids(4), existing=existing))
        two = store.events.commit(piece(new_ids(4) + new_ids(3, seed=1), first_row=100, existing=existing))
    assert packed(two.inserted_ids or b"") == new_ids(3, seed=1)
    counted = f"SELECT headrace_receipt, count(*) FROM {TABLE} GROUP BY 1 ORDER BY 1"  # noqa: S608
    assert look(store_url, counted) == [(one.receipt_id, 4), (two.receipt_id, 3)]


LOCKED = ["BEGIN", 'LOCK TABLE "events"', "INSERT INTO headrace_receipts"]
LOOK = ["SELECT c.oid", "SELECT attnum", "SELECT indexrelid"]
FAST = [*LOCKED, *LOOK, "SAVEPOINT", "COPY", "UPDATE headrace_receipts", "COMMIT"]
SAFE = [
    *LOCKED,
    *LOOK,
    "DROP",
    "CREATE TEMPORARY",
    "COPY",
    "WITH inserted AS",
    "UPDATE headrace_receipts",
    "COMMIT",
]
QUERY = [
    *LOCKED,
    "SELECT key",
    *LOOK,
    "SAVEPOINT",
    "DROP",
    "CREATE TEMPORARY",
    'COPY "pg_temp"."headrace_slice" ("event_id")',
    "SELECT coalesce",
    'COPY "events"',
    "UPDATE headrace_receipts",
    "COMMIT",
]


@pytest.mark.parametrize(
    ("existing", "locks", "expected"), [("snapshot", [], FAST), ("conflict", [], SAFE), ("query", range(64), QUERY)]
)
def test_a_commit_sends_no_statement_more_than_it_needs(
    postgres_url: str, existing: Existing, locks: list[int], expected: list[str]
) -> None:
    statements: list[str] = []
    with open_store(postgres_url, on_statement=statements.append) as store:
        prepared(store)
        store.events.commit(piece(new_ids(5, seed=1), first_row=90))
        statements.clear()
        store.events.commit(piece(new_ids(5), existing=existing, locks=locks))
    assert len(statements) == len(expected), statements
    assert all(map(str.startswith, statements, expected)), statements
