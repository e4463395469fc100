"""The three races: a naive parallel loader has them in nearly every round, Headrace in none over the same input.

1. Two chunks that hold the same event both find it absent, and both insert it.
2. Concurrent bulk inserts in different orders deadlock.
3. The shared set of existing IDs loses concurrent updates.

Loaders meet between their check and their act, so that chance has no part in it: the naive one's threads at the points
that it names, two Headrace loaders before each commit, when both have judged which events are new.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain

import pyarrow as pa
import pytest
from contract.pieces import look, make
from support.naive_loader import NaiveLoader
from support.program import scaled
from support.races import PATIENCE, Meeting, Row, chunks_of_round, first_of_each, id_of

import headrace
from headrace.execution.orders import CommitOrder
from headrace.execution.pool import PooledWorkers
from headrace.execution.workers import Task
from headrace.options.choices import StrategyName
from headrace.options.shape import STRATEGIES
from headrace.report import Report
from headrace.storage.records import Committed

ROUNDS = scaled(20, least=5)
NEARLY_ALL = 0.8 * ROUNDS
DEADLOCK = "40P01"


def workers_of(number: int) -> int:
    return 2 + number % 3


def rows_of(number: int) -> list[Row]:
    """The round's chunks one after the other."""
    return list(chain.from_iterable(chunks_of_round(number, workers_of(number))))


# every table that Headrace is to fill takes a millisecond for each row, so that transactions overlap from end to end
SLOW_ROWS = (
    "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END'",
    "CREATE FUNCTION slow_down() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE made record; BEGIN "
    "FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_identity ~ '^public.t[0-9]+$' LOOP EXECUTE "
    "format('CREATE TRIGGER slow BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION dawdle()', made.object_identity); "
    "END LOOP; END $$",
    "CREATE EVENT TRIGGER tables ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION slow_down()",
)


@pytest.fixture
def impatient_url(postgres_url: str) -> str:
    """A database that writes slowly, and whose sessions look for a deadlock as soon as they have waited 10 ms."""
    name = look(postgres_url, "SELECT current_database()")[0][0]
    make(postgres_url, f"ALTER DATABASE {name} SET deadlock_timeout = '10ms'", *SLOW_ROWS)
    return postgres_url


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    """Four real worker processes for all rounds: starting them takes longer than a load."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("forkserver")) as pool:
        yield pool


# The naive loader ----------------------------------------------------------------------------------------------------


def load_naively(url: str, number: int, at: str, *, key: str = "", on_conflict: str = "") -> NaiveLoader:
    """Round `number` of the naive loader into a table of its own, its workers meeting at the point `at`."""
    make(url, f"CREATE TABLE naive{number} (key bigint {key}, value text)")
    workers = workers_of(number)
    barrier = threading.Barrier(workers, timeout=PATIENCE)

    def meet(point: str) -> None:
        if point == at:
            barrier.wait()

    loader = NaiveLoader(url, f"naive{number}", meet, on_conflict=on_conflict)
    loader.load(chunks_of_round(number, workers))
    return loader


def rows_and_keys(url: str, number: int) -> tuple[int, int]:
    rows, keys = look(url, f"SELECT count(*), count(DISTINCT key) FROM naive{number}")[0]  # noqa: S608 - our own table
    return rows, keys


def test_the_naive_loader_duplicates_what_two_chunks_find_absent(impatient_url: str) -> None:
    shown = 0
    for number in range(ROUNDS):
        loader = load_naively(impatient_url, number, "checked")
        rows, keys = rows_and_keys(impatient_url, number)
        shown += rows > keys
        assert not loader.failures
        assert keys == len(dict(rows_of(number)))
    assert shown >= NEARLY_ALL, f"{shown} of {ROUNDS} rounds"


@pytest.mark.parametrize("on_conflict", ["", "ON CONFLICT DO NOTHING"])
def test_the_naive_loader_deadlocks_where_the_table_has_a_key(impatient_url: str, on_conflict: str) -> None:
    shown = 0
    for number in range(ROUNDS):
        loader = load_naively(impatient_url, number, "begun", key="PRIMARY KEY", on_conflict=on_conflict)
        shown += DEADLOCK in [error.sqlstate for error in loader.failures]
    assert shown >= NEARLY_ALL, f"{shown} of {ROUNDS} rounds"


def test_the_naive_loader_loses_updates_of_its_shared_set(impatient_url: str) -> None:
    shown = 0
    for number in range(ROUNDS):
        loader = load_naively(impatient_url, number, "read")
        stored = {key for (key,) in look(impatient_url, f"SELECT key FROM naive{number}")}  # noqa: S608 - our own table
        assert loader.existing <= stored
        shown += loader.existing < stored
    assert shown >= NEARLY_ALL, f"{shown} of {ROUNDS} rounds"


# Headrace ------------------------------------------------------------------------------------------------------------


def load(url: str, table: str, rows: list[Row], strategy: StrategyName, workers: int, executor: Executor) -> Report:
    """`rows` cut into the chunks that they were made as, one for each worker."""
    keys, values = zip(*rows, strict=True)
    return headrace.load(
        pa.table({"key": pa.array(keys, pa.int64()), "value": pa.array(values)}),
        to=url,
        table=table,
        id=["key"],
        chunk_rows=len(rows) // workers,
        mode="parallel",
        strategy=strategy,
        workers=workers,
        executor=executor,
    )


def check_whole(report: Report) -> None:
    assert report.counts.balanced
    assert report.rejected == 0
    assert report.fell_back is None
    assert report.retries == 0, "the server refused a transaction: a deadlock"


def stored(url: str, table: str) -> list[tuple[bytes, str]]:
    """IDs and values, sorted, as they stand: a duplicate would stand twice."""
    found = look(url, f"SELECT event_id, value FROM {table}")  # noqa: S608 - our own table
    return sorted((one if isinstance(one, bytes) else one.bytes, value) for one, value in found)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_headrace_has_none_of_them(impatient_url: str, executor: Executor, strategy: StrategyName) -> None:
    for number in range(ROUNDS):
        rows, workers = rows_of(number), workers_of(number)
        oracle = first_of_each(rows)
        report = load(impatient_url, f"t{number}", rows, strategy, workers, executor)
        check_whole(report)
        assert stored(impatient_url, f"t{number}") == sorted(oracle.items())
        assert (report.chunks, report.inserted, report.duplicate_in_store) == (workers, len(oracle), 0)


@pytest.mark.parametrize("database", ["impatient_url", "sqlite_url"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_headrace_loaders_at_once_have_none_of_them(
    request: pytest.FixtureRequest,
    executor: Executor,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    strategy: StrategyName,
) -> None:
    url = request.getfixturevalue(database)
    for number in range(scaled(20, default=3)):
        other = STRATEGIES[(STRATEGIES.index(strategy) + number) % len(STRATEGIES)]
        rows = rows_of(number)
        with monkeypatch.context() as patch:
            reports = load_both(url, number, (strategy, other), executor, patch)
        for report in reports:
            check_whole(report)
            assert report.snapshot_ids == 0, "one had committed before the other judged: they did not meet"
        found = stored(url, f"t{number}")
        assert [event for event, _ in found] == sorted(first_of_each(rows)), f"round {number}"
        assert {(id_of(key), value) for key, value in rows}.issuperset(found)
        assert sum(report.inserted for report in reports) == len(found)


def load_both(
    url: str, number: int, ways: Sequence[StrategyName], executor: Executor, patch: pytest.MonkeyPatch
) -> list[Report]:
    """Two loaders with the same rows, the second's backwards; they meet before each commit, when both have judged."""
    meeting, rows = Meeting(2), rows_of(number)
    commit = PooledWorkers.commit

    def meet_and_commit(self: PooledWorkers, order: CommitOrder) -> Task[Committed]:
        meeting.wait()
        return commit(self, order)

    def one(some: list[Row], way: StrategyName) -> Report:
        with meeting.attended():
            return load(url, f"t{number}", some, way, workers_of(number), executor)

    patch.setattr(PooledWorkers, "commit", meet_and_commit)
    with ThreadPoolExecutor(2) as loaders:
        return list(loaders.map(one, [rows, rows[::-1]], ways))
