"""The outbox, alike on both stores: alerts exist only with their events, and are handed out once at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from contract.pieces import WAYS, Stop, look, make, new_ids, piece, prepared
from support.program import Headrace

from headrace.events.alert_rule import alert_key
from headrace.storage import open_store
from headrace.storage.outbox import ALERT_COLUMNS, Attempt
from headrace.storage.records import Existing, Slice
from headrace.storage.sql import outbox
from headrace.storage.store import Store

RULES = ("large", "strange \u00e9")
BOOKS = (
    "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM headrace_receipts), "
    "(SELECT count(*) FROM headrace_alerts), (SELECT coalesce(sum(alerts), 0) FROM headrace_receipts)"
)


def alerts_of(ids: Sequence[bytes], rules: Sequence[str] = RULES) -> pa.RecordBatch:
    rows = [(alert_key(one, rule), one, rule, f'{{"n":{n}}}') for n, one in enumerate(ids) for rule in rules]
    columns = [
        pa.array(list(column), kind) for column, kind in zip(zip(*rows, strict=True), ALERT_COLUMNS.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ALERT_COLUMNS)


def alerting(ids: Sequence[bytes], **more: Any) -> Slice:
    """A slice whose every event raises an alert under each of two rules."""
    return replace(piece(ids, **more), alerts=alerts_of(ids))


@pytest.fixture
def full(store_url: str, store: Store) -> Store:
    """An outbox with twenty pending alerts."""
    prepared(store).events.commit(alerting(new_ids(10)))
    return store


def keys_of(ids: Sequence[bytes]) -> list[str]:
    return sorted(alert_key(one, rule) for one in ids for rule in RULES)


# Raising --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", WAYS)
def test_alerts_exist_only_with_their_events_wherever_a_commit_stops(store_url: str, existing: Existing) -> None:
    sent = 0
    die_at: int | None = None

    def hook(statement: str) -> None:
        nonlocal sent
        if die_at is not None and sent == die_at:
            raise Stop(statement)
        sent += 1

    with open_store(store_url, on_statement=hook) as store:
        prepared(store)
        store.events.commit(piece(new_ids(1, seed=9), first_row=1000))
        for step in range(100):
            sent, die_at = 0, step
            try:
                store.events.commit(alerting(new_ids(10), existing=existing))
            except Stop:
                assert look(store_url, BOOKS) == [(1, 1, 0, 0)], f"stopped before statement {step}"
            else:
                break
        assert step >= 4, "receipt, events, alerts, receipt completed"
        assert look(store_url, BOOKS) == [(11, 2, 20, 20)]


@pytest.mark.parametrize("existing", WAYS)
def test_only_events_that_were_really_inserted_raise_alerts(store_url: str, existing: Existing) -> None:
    old, new = new_ids(5), new_ids(5, seed=1)
    with open_store(store_url) as store:
        prepared(store)
        store.events.commit(piece(old))  # without rules
        done = store.events.commit(alerting(sorted(old + new), first_row=100, existing=existing))
        again = store.events.commit(alerting(sorted(old + new), first_row=100, existing=existing))
        raised = store.outbox.find()
    assert (done.counts.inserted, done.alerts) == (5, 10)
    assert (again.already_done, again.alerts) == (True, 10)
    assert sorted(one.key for one in raised) == keys_of(new)
    assert {one.receipt_id for one in raised} == {done.receipt_id}
    assert [one.event_id for one in raised] == sorted(one.event_id for one in raised), "in the order of the events"


def test_an_alert_that_was_raised_before_is_not_raised_again(store_url: str) -> None:
    ids = new_ids(5)
    with open_store(store_url) as store:
        prepared(store)
        store.events.commit(alerting(ids))
        (first, *_) = store.outbox.find()
        store.outbox.settle("", [Attempt(first.alert_id, "delivered")])
        make(store_url, "DELETE FROM events")  # pruned by age, then loaded once more
        again = store.events.commit(alerting(ids, first_row=100))
        assert (again.counts.inserted, again.alerts) == (5, 0)
        assert [one.state for one in store.outbox.find()] == ["delivered"] + ["pending"] * 9


def test_a_slice_whose_events_were_all_there_raises_nothing(store_url: str) -> None:
    with open_store(store_url) as store:
        prepared(store)
        store.events.commit(piece(new_ids(5)))
        assert store.events.commit(alerting(new_ids(5), first_row=100)).alerts == 0
        assert store.outbox.find() == []


# Claiming -------------------------------------------------------------------------------------------------------


def test_a_claim_leases_what_is_due_and_no_other_holder_gets_it(full: Store) -> None:
    mine = full.outbox.claim("a", limit=15, seconds=60)
    theirs = full.outbox.claim("b", limit=15, seconds=60)
    assert (len(mine), len(theirs)) == (15, 5)
    assert not {one.key for one in mine} & {one.key for one in theirs}
    assert {(one.lease, one.attempts) for one in mine} == {("a", 1)}
    assert full.outbox.claim("c", limit=15, seconds=60) == []


def test_a_lease_that_ended_is_handed_out_again_under_the_same_key(full: Store) -> None:
    first = full.outbox.claim("dies", limit=20, seconds=-1)
    second = full.outbox.claim("b", limit=20, seconds=60)
    assert [one.key for one in second] == [one.key for one in first]
    assert {one.attempts for one in second} == {2}
    # the dead one's failures count no more; what it did deliver, it did
    full.outbox.settle("dies", [Attempt(first[0].alert_id, "dead", "late"), Attempt(first[1].alert_id, "delivered")])
    states = {one.alert_id: one.state for one in full.outbox.find()}
    assert (states[first[0].alert_id], states[first[1].alert_id]) == ("pending", "delivered")


def test_attempts_are_settled_as_they_went(full: Store) -> None:
    one, two, three, *rest = full.outbox.claim("a", limit=5, seconds=60)
    full.outbox.settle(
        "a",
        [
            Attempt(one.alert_id, "delivered"),
            Attempt(two.alert_id, "dead", "no\0such thing"),
            Attempt(three.alert_id, "pending", "busy", delay=3600),
        ],
    )
    full.outbox.release("a", [other.alert_id for other in rest])
    states = {other.alert_id: other for other in full.outbox.find()}
    assert [states[other.alert_id].state for other in (one, two, three)] == ["delivered", "dead", "pending"]
    assert states[two.alert_id].error == "no\\u0000such thing"
    assert states[one.alert_id].settled_at is not None
    assert states[three.alert_id].next_attempt_at > states[three.alert_id].created_at
    assert {(states[other.alert_id].attempts, states[other.alert_id].lease) for other in rest} == {(0, None)}
    due = {other.alert_id for other in full.outbox.claim("b", limit=50, seconds=60)}
    assert len(due) == 17
    assert not due & {one.alert_id, two.alert_id, three.alert_id}


def test_dead_alerts_can_be_retried_or_discarded(full: Store) -> None:
    ids = [one.alert_id for one in full.outbox.claim("a", limit=20, seconds=60)]
    full.outbox.settle("a", [Attempt(one, "dead", "gone") for one in ids[:4]])
    assert full.outbox.discard(ids[:1]) == 1
    assert full.outbox.retry(ids) == 4  # the dead and the discarded
    assert full.outbox.count() == {"pending": 20}
    assert [one.alert_id for one in full.outbox.claim("b", limit=20, seconds=60)] == ids[:4]
    assert full.outbox.discard(ids[3:6]) == 3
    assert full.outbox.count() == {"pending": 17, "discarded": 3}
    full.outbox.settle("b", [Attempt(ids[3], "delivered")])
    assert full.outbox.find(ids=ids[3:4])[0].state == "discarded", "what was settled otherwise is left alone"


def test_only_what_was_settled_long_ago_is_pruned_and_never_what_is_pending_or_dead(
    full: Store, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [one.alert_id for one in full.outbox.claim("a", limit=12, seconds=60)]
    full.outbox.settle("a", [Attempt(one, "delivered") for one in ids[:8]])
    full.outbox.settle("a", [Attempt(one, "dead", "gone") for one in ids[8:10]])
    full.outbox.discard(ids[10:])
    assert full.outbox.prune(3600) == 0, "they were settled just now"
    # every alert is two days older, whatever became of it; the first was delivered today
    for column in ("settled_at", "created_at", "next_attempt_at"):
        older = f"{column} - interval '2 days'" if store_url.startswith("p") else f"datetime({column}, '-2 days')"
        Headrace(store_url, tmp_path).query(f"UPDATE headrace_alerts SET {column} = {older} WHERE alert_id <> {ids[0]}")  # noqa: S608
    assert full.outbox.prune(86_400, table="others") == 0
    assert full.outbox.prune(86_400, rules=["no such rule"]) == 0
    monkeypatch.setattr(outbox, "PRUNED_AT_ONCE", 3)
    assert full.outbox.prune(86_400) == 7
    assert full.outbox.count() == {"delivered": 1, "dead": 2, "discarded": 2, "pending": 8}
    assert full.outbox.prune(86_400, states=("delivered", "discarded")) == 2
    assert full.outbox.count() == {"delivered": 1, "dead": 2, "pending": 8}


@pytest.mark.parametrize("existing", WAYS)
def test_a_pruned_alert_is_not_raised_again_when_its_event_comes_again(store_url: str, existing: Existing) -> None:
    ids = new_ids(10)
    with open_store(store_url) as store:
        assert prepared(store).events.commit(alerting(ids, existing=existing)).alerts == 20
        claimed = store.outbox.claim("a", limit=50, seconds=60)
        store.outbox.settle("a", [Attempt(one.alert_id, "delivered") for one in claimed])
        assert store.outbox.prune(-1) == 20
        # a stale snapshot: the slice says that all of them are new
        again = store.events.commit(alerting(new_ids(11), run_id="again", existing=existing))
        assert (again.counts.inserted, again.alerts) == (1, 2)
        assert [one.event_id for one in store.outbox.find()] == [new_ids(11)[-1]] * 2


def test_claims_and_lists_can_be_of_a_table_and_of_rules(full: Store) -> None:
    assert full.outbox.claim("a", limit=5, seconds=60, table="others") == []
    assert {one.rule for one in full.outbox.claim("a", limit=50, seconds=60, rules=["large"])} == {"large"}
    assert len(full.outbox.find(rules=["large"], states=["pending"], table="events", limit=7)) == 7


def test_many_holders_share_the_work_and_none_gets_what_another_has(store_url: str) -> None:
    seed = random.randrange(10**6)
    with open_store(store_url) as store:
        prepared(store).events.commit(alerting(new_ids(100, seed=seed)))

    def holder(name: int) -> list[str]:
        chance = random.Random(seed + name)
        held: list[str] = []
        with open_store(store_url) as store:
            while claimed := store.outbox.claim(str(name), limit=chance.randint(1, 9), seconds=600):
                held += [one.key for one in claimed]
        return held

    with ThreadPoolExecutor(4) as pool:
        held = list(pool.map(holder, range(4)))
    assert sorted(key for some in held for key in some) == keys_of(new_ids(100, seed=seed)), f"seed {seed}"


def test_a_claim_does_not_wait_for_a_claim_that_is_not_committed_yet(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        prepared(store).events.commit(alerting(new_ids(10)))
        make(
            postgres_url,
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$",
            "CREATE TRIGGER slow AFTER UPDATE ON headrace_alerts FOR EACH STATEMENT EXECUTE FUNCTION wait()",
        )
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(store.outbox.claim, "a", limit=5, seconds=60)
            while not look(postgres_url, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
                assert not first.done()
            with open_store(postgres_url) as other:
                theirs = other.outbox.claim("b", limit=50, seconds=60)
            mine = first.result()
    assert (len(mine), len(theirs)) == (5, 15)
