"""PostgreSQL killed again and again under a load, full disks, and PgBouncer in transaction mode."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from contract.pieces import WAYS as WAYS_TO_WRITE
from contract.pieces import new_ids, piece, prepared
from support.evidence import Record, keep
from support.nursery import Ended, Nursery
from support.oracle import OPTIONS, WAYS, Oracle, first_wins, forget
from support.program import Headrace, scaled
from support.proxy import proxied
from support.servers import OwnPostgres, own_postgres, pgbouncer, small_disk

import headrace as package
from headrace import AlertRule
from headrace.errors import StoreError
from headrace.storage import open_store
from headrace.storage.locks import lock_keys
from headrace.storage.records import Existing

NAMED: Any = {
    "table": "t",
    "alerts": [AlertRule("third", "key % 3 = 0")],
    "id": ["key", "at"],
    "time": "at",
    "types": {"key": "integer"},
}
FULL = 20_000  # rows that do not fit on a small disk
MOST_RUNS = 1000


@pytest.fixture(scope="module")
def server(postgres_server: str) -> Iterator[OwnPostgres]:
    with own_postgres() as opened:
        yield opened


# Killed and started again ---------------------------------------------------------------------------------------


class Killer:
    """Kills the server and starts it again, a number of times, while a load takes its time."""

    def __init__(self, server: OwnPostgres, times: int, chance: random.Random) -> None:
        self.done = 0
        self._server, self._times, self._chance = server, times, chance
        self._thread = threading.Thread(target=self._kill)
        self._thread.start()

    def _kill(self) -> None:
        while self.done < self._times:
            time.sleep(self._chance.uniform(0, 2))
            self._server.kill()
            self._server.start()
            self.done += 1

    def pace(self, events: pa.RecordBatch) -> pa.RecordBatch:
        """Takes its time while there is killing to be done."""
        time.sleep(0 if self.done >= self._times else 0.3)
        return events

    def join(self) -> None:
        self._thread.join()


@pytest.mark.timeout(7200)
def test_postgres_killed_and_restarted_again_and_again_during_one_load(
    server: OwnPostgres, tmp_path: Path, seed: int
) -> None:
    times = scaled(50)
    headrace = Headrace(server.url, tmp_path)
    oracle = Oracle(tmp_path / "events.csv", 600 * times, seed)
    killer = Killer(server, times, random.Random(seed))
    runs = 0
    report = None
    while report is None and runs < MOST_RUNS:
        runs += 1
        try:
            report = package.load(
                oracle.path, to=server.url, mode="sequential", enrich=killer.pace, chunk_rows=50, **NAMED
            )
        except StoreError as error:  # the server was away when a connection was first made, or something read
            print(error)
            time.sleep(0.5)
    killer.join()
    assert report is not None
    print(f"{runs} runs, {report.retries} retries in the last")
    found = oracle.look(headrace, first_wins=True)
    keep(Record("server killed", "at random", "postgresql, sequential", times, *found, seed=seed, rows=oracle.rows))
    assert not any(found)
    oracle.check_ledger(headrace)
    forget(headrace)


# Full disks -----------------------------------------------------------------------------------------------------


class Full:
    """Loads whose store, spool or server has a disk that is filled by `ballast` but for some kilobytes."""

    def __init__(self, nursery: Nursery, oracle: Oracle, folder: Path, disk: Path) -> None:
        self._nursery, self._folder = nursery, folder
        self.oracle = oracle
        self.ballast = disk / "ballast"

    def fill(self, left: int) -> None:
        """Leave `left` bytes free."""
        with self.ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with self.ballast.open("ab") as file:
            file.truncate(max(0, file.tell() - left))

    def load(self, url: str, scratch: Path, way: str) -> Ended:
        words = ["load", str(self.oracle.path), *OPTIONS, "--chunk-rows", "2000", *WAYS[way]]
        environment = {"HEADRACE_DATABASE_URL": url, "TMPDIR": str(scratch)}
        ended = self._nursery.run(words, environment, self._folder)
        assert not ended.orphans
        return ended

    def judge(self, url: str, what: str, where: str) -> None:
        headrace = Headrace(url, self._folder)
        found = self.oracle.look(headrace, first_wins=True)
        keep(Record(f"disk full: {what}", "during the load", where, 1, *found, self.oracle.seed, self.oracle.rows))
        assert not any(found)
        self.oracle.check_ledger(headrace)


@pytest.mark.slow
def test_a_full_disk_under_an_sqlite_file_is_named_and_the_load_resumes(
    nursery: Nursery, tmp_path: Path, scratch: Path, seed: int
) -> None:
    with small_disk(16) as disk:
        full = Full(nursery, Oracle(tmp_path / "events.csv", FULL, seed), tmp_path, disk)
        full.fill(1 << 20)
        url = f"sqlite:///{disk / 'h.db'}"
        ended = full.load(url, scratch, "sequential")
        assert ended.code == 1, ended.stderr
        assert str(disk / "h.db") in ended.stderr
        assert "full" in ended.stderr
        assert "resume" in ended.stderr
        full.ballast.unlink()
        assert full.load(url, scratch, "sequential").code == 3
        full.judge(url, "SQLite file", "sqlite, sequential")


@pytest.mark.slow
def test_a_full_disk_under_the_spool_is_named_and_the_load_resumes(
    nursery: Nursery, tmp_path: Path, sqlite_url: str, seed: int
) -> None:
    with small_disk(16) as disk:
        full = Full(nursery, Oracle(tmp_path / "events.csv", FULL, seed), tmp_path, disk)
        full.fill(200_000)
        ended = full.load(sqlite_url, disk, "partitioned")
        assert ended.code == 1, ended.stderr
        assert str(disk) in ended.stderr
        assert "free some space" in ended.stderr
        full.ballast.unlink()
        assert full.load(sqlite_url, disk, "partitioned").code == 3
        full.judge(sqlite_url, "spool", "sqlite, partitioned")


@pytest.mark.slow
def test_a_full_disk_under_postgres_is_named_and_the_load_resumes(
    nursery: Nursery, postgres_server: str, tmp_path: Path, scratch: Path, seed: int
) -> None:
    with small_disk(160) as disk, own_postgres(disk) as server:
        full = Full(nursery, Oracle(tmp_path / "events.csv", FULL, seed), tmp_path, disk)
        full.fill(600_000)
        ended = full.load(server.url, scratch, "sequential")
        assert ended.code == 1, ended.stderr
        assert "No space left" in ended.stderr
        assert "the server's disk is full" in ended.stderr
        full.ballast.unlink()
        assert full.load(server.url, scratch, "sequential").code == 3
        full.judge(server.url, "PostgreSQL", "postgresql, sequential")


# PgBouncer ------------------------------------------------------------------------------------------------------


def held(server: OwnPostgres) -> tuple[int, int]:
    """Advisory locks, and transactions that are open, once no client is there."""
    with psycopg.connect(server.url) as direct:
        asked = (
            "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), "
            "(SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%')"
        )
        locks, idle = direct.execute(asked).fetchone() or (-1, -1)
    return int(locks), int(idle)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_load_passes_through_a_pooler_in_transaction_mode(
    server: OwnPostgres, nursery: Nursery, tmp_path: Path, scratch: Path, seed: int, way: str
) -> None:
    forget(Headrace(server.url, tmp_path))
    oracle = Oracle(tmp_path / "events.csv", 3000, seed)
    words = ["load", str(oracle.path), *OPTIONS, "--chunk-rows", "300"]
    # fewer sessions than there are clients: each transaction may find itself in another one
    with pgbouncer(server, pool=2) as url:
        environment = {"TMPDIR": str(scratch), "HEADRACE_DATABASE_URL": url}
        for mode in (way, "sequential"):
            ended = nursery.run([*words, *WAYS[mode]], environment, tmp_path)
            assert ended.code == 3, ended.stderr
        Headrace(url, tmp_path).run("verify", oracle.path, "--table", "t")
        found = oracle.look(Headrace(url, tmp_path), first_wins=first_wins(way))
        left = held(server)
    lost, twice, unexpected = found
    unexpected += sum(left)
    where = f"postgresql, {way}"
    keep(Record("PgBouncer, transaction mode", "all the time", where, 1, lost, twice, unexpected, seed, oracle.rows))
    assert not any(found)
    oracle.check_ledger(Headrace(server.url, tmp_path))
    assert left == (0, 0)


SERVICE = """
[providers.p]
path = "p.csv"
table = "polled"
id = ["n"]
revisions = "update"
version_column = "at"
types = {n = "integer", at = "integer"}
[[providers.p.alerts]]
name = "even"
where = "n % 2 = 0"
"""


@pytest.mark.slow
def test_polls_revisions_rejects_and_delivery_pass_through_a_pooler_in_transaction_mode(
    server: OwnPostgres, tmp_path: Path, seed: int
) -> None:
    """Two rounds of a service, the second with newer versions; what is kept aside replayed; alerts delivered once."""
    for table in ("polled", "t"):
        Headrace(server.url, tmp_path).query(f"DROP TABLE IF EXISTS {table}")
    forget(Headrace(server.url, tmp_path))
    (tmp_path / "headrace.toml").write_text(SERVICE)
    with pgbouncer(server, pool=2) as url:
        headrace = Headrace(url, tmp_path)
        for at in (1, 2):
            rows = [f"{n},{at},v{at}" for n in range(400)] + [f"x{at},{at},"]
            (tmp_path / "p.csv").write_text("n,at,v\n" + "\n".join(rows) + "\n")
            headrace.run("run", "--force", expect=3)
        assert headrace.query("SELECT count(*), sum(n), min(v), max(at) FROM polled") == [(400, 79_800, "v2", 2)]
        headrace.run("rejects", "replay", "--set", "n=400", "--alert", "even=n % 2 = 0")
        assert headrace.count("polled") == 401
        delivered = [json.loads(line) for line in headrace.run("alerts", "deliver").stdout.splitlines()]
        numbers = sorted(one["event"]["n"] for one in delivered)
        assert headrace.run("alerts", "deliver").stdout == ""
        for words in (["doctor"], ["runs", "list"], ["alerts", "list"], ["rejects", "list"]):
            headrace.run(*words)
        left = held(server)
    wanted = list(range(0, 401, 2))
    lost, unexpected = len(set(wanted) - set(numbers)), len(set(numbers) - set(wanted)) + sum(left)
    twice = len(numbers) - len(set(numbers))
    where = "postgresql, run and alerts deliver"
    keep(Record("PgBouncer, transaction mode", "all the time", where, 2, lost, twice, unexpected, seed, 401))
    assert numbers == wanted
    assert left == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_a_trial_that_a_pooler_would_lead_into_the_real_tables_is_refused(
    server: OwnPostgres, tmp_path: Path, ignored: bool
) -> None:
    """A profile keeps apart by its search path, which a pooler may refuse or, worse, leave out."""
    forget(Headrace(server.url, tmp_path))
    (tmp_path / "t.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(500)))
    with pgbouncer(server, pool=2, more="ignore_startup_parameters = options" if ignored else "") as url:
        headrace = Headrace(url, tmp_path)
        headrace.load("t.csv", "--id", "n")
        refused = headrace.run("profile", "t.csv", "--id", "n", "--workers", "2", expect=2)
        assert "search_path" in refused.stderr
        assert "--in-place" in refused.stderr
        assert held(server) == (0, 0)
    assert len(headrace_runs(server)) == 1
    schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'headrace%'"
    assert Headrace(server.url, tmp_path).query(schemas) == [(0,)]


def headrace_runs(server: OwnPostgres) -> list[tuple[Any, ...]]:
    return Headrace(server.url, server.folder).query("SELECT run_id FROM headrace_runs")


@pytest.mark.parametrize("existing", WAYS_TO_WRITE)
def test_a_commit_over_a_slow_network_leaves_the_poolers_session_to_others(
    server: OwnPostgres, tmp_path: Path, existing: Existing
) -> None:
    """What arrives behind a COMMIT begins a transaction for the pooler: its client would hold a session and be idle."""
    Headrace(server.url, tmp_path).query("DROP TABLE IF EXISTS events")
    forget(Headrace(server.url, tmp_path))
    with (
        pgbouncer(server, pool=1, more="query_wait_timeout = 5") as url,
        proxied(url) as slow,
        open_store(slow.url) as store,
    ):
        prepared(store)
        slow.trouble = "scatter"
        keys = lock_keys("events", 0, 8) if existing == "query" else ()
        for first_row in (0, 10):
            store.events.commit(piece(new_ids(5, seed=first_row), first_row=first_row, existing=existing, locks=keys))
            time.sleep(0.2)  # whatever is on its way has come
            with psycopg.connect(url) as other:
                assert other.execute("SELECT count(*) FROM events").fetchone() == (5 + first_row // 2,)


def test_a_lock_that_leaks_through_a_pooler_would_be_seen(server: OwnPostgres) -> None:
    """The negative control: a session's lock outlives its client there."""
    with pgbouncer(server, pool=1) as url:
        with psycopg.connect(url, autocommit=True) as client:
            client.execute("SELECT pg_advisory_lock(1)")
        assert held(server) == (1, 0)
