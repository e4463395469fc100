"""Several independent loaders of one table, each the real command line: every event goes in exactly once.

They load the same events in different orders, each strategy beside each, the first loader with a snapshot that sees
nothing. A ninth of the events is there beforehand. On PostgreSQL a gate holds all commits until each loader waits for
its first one: all have judged what is new before any of them writes.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from contract.pieces import look
from support.program import Headrace, scaled
from support.races import PATIENCE

import headrace
from headrace.storage import open_store

TESTS = Path(__file__).resolve().parents[1]
ROWS = scaled(200_000)
DISTINCT = ROWS * 9 // 10
STRATEGIES = ("sequential", "partitioned", "upsert", "locked")
FIRST = (STRATEGIES[:2], STRATEGIES[2:])
PAIRS = sorted(
    combinations_with_replacement(STRATEGIES, 2),
    key=lambda pair: (pair not in FIRST, pair[0] == pair[1], "sequential" in pair),
)
# one of each, then two and two; in the first three every strategy meets every other and itself
COMPANIES: list[Sequence[str]] = [STRATEGIES, *((one, one, other, other) for one, other in PAIRS)]
ROUNDS = scaled(20, least=10) // 10  # of each company
IDENTITIES = (("key", "at"), ("key",))  # IDs that begin with the event time, and IDs that do not
ORDERS = ("key, value", "key DESC, value", "hash(key + {seed})", "hash(value || '{seed}')")
WAITING = (
    "SELECT count(DISTINCT usename) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock' AND usename LIKE 'loader%'"
)
ADVISORY = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
IDLE = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"


# The events ----------------------------------------------------------------------------------------------------------


def write(folder: Path, seed: int) -> list[Path]:
    """The same events in each of the `ORDERS`, a tenth of the rows being events that are there twice."""
    key, at = f"n % {DISTINCT}", f"TIMESTAMP '2024-01-01' + to_minutes(n % {DISTINCT})"
    events = f"SELECT {key} AS key, {at} AS at, 'event ' || n AS value FROM range({ROWS}) AS rows(n)"  # noqa: S608
    files = [folder / f"{seed}-{number}.parquet" for number in range(len(ORDERS))]
    for file, order in zip(files, ORDERS, strict=True):
        duckdb.execute(f"COPY ({events} ORDER BY {order.format(seed=seed)}) TO '{file}'")
    return files


def load_some(url: str, table: str, file: Path, identity: Sequence[str]) -> int:
    """A ninth of the events of `file`, so that there is something for a snapshot to miss; returns how many."""
    some = file.with_suffix(".some.parquet")
    duckdb.execute(f"COPY (SELECT * FROM '{file}' WHERE key % 9 = 0) TO '{some}'")  # noqa: S608 - our own files
    time_column = "at" if "at" in identity else None
    return headrace.load(some, to=url, table=table, id=identity, time=time_column, mode="sequential").inserted


def check_table(url: str, table: str, files: Sequence[Path], inserted: int) -> None:
    """Exactly the files' events are in the table, told by DuckDB, and exactly so many were said to be inserted."""
    listed = ", ".join(f"'{file}'" for file in files)
    distinct = f"SELECT DISTINCT key FROM read_parquet([{listed}]) ORDER BY key"  # noqa: S608 - our own files
    expected = duckdb.execute(distinct).fetchall()
    assert look(url, f"SELECT key FROM {table} ORDER BY key") == expected  # noqa: S608 - our own table
    assert look(url, f"SELECT count(DISTINCT event_id) FROM {table}") == [(inserted,)]  # noqa: S608
    assert inserted == len(expected) == DISTINCT


# The loaders ---------------------------------------------------------------------------------------------------------


def commands(company: Sequence[str], urls: Sequence[str], table: str, files: Sequence[Path]) -> list[list[str]]:
    """A command line for each loader; the first one's snapshot is blind."""
    found = []
    for number, (strategy, url, file) in enumerate(zip(company, urls, files, strict=True)):
        mode = ["sequential"] if strategy == "sequential" else ["parallel", "--strategy", strategy]
        how = ["--mode", *mode, "--workers", 1 + number % 2, "--chunk-rows", ROWS // 10]
        words = ["load", file, "--to", url, "--table", table, *how, "--output", "json"]
        blind = [sys.executable, str(TESTS / "support" / "blind_cli.py"), *map(str, words)]
        found.append(blind if number == 0 else Headrace(url, file.parent).command(*words))
    return found


@contextmanager
def started(argvs: Sequence[Sequence[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are gone at the end, whatever happens."""
    with ExitStack() as stack:
        processes = []
        for argv in argvs:
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        yield processes


def inserted_by(process: subprocess.Popen[str]) -> int:
    """What a loader reports that ended well, with its books in order, and had nothing to complain of."""
    stdout, stderr = process.communicate(timeout=240)
    assert (process.returncode, stderr) == (0, ""), stdout
    report: dict[str, Any] = json.loads(stdout)
    assert report["read"] == ROWS
    assert report["inserted"] + report["duplicate_in_store"] == DISTINCT
    assert (report["duplicate_in_input"], report["rejected"]) == (ROWS - DISTINCT, 0)
    assert (report["retries"], report["fell_back"]) == (0, None)
    return int(report["inserted"])


# PostgreSQL ----------------------------------------------------------------------------------------------------------


@contextmanager
def gate(url: str) -> Iterator[None]:
    """Nobody gets further than the first statement of a commit until this ends."""
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE headrace_receipts IN EXCLUSIVE MODE")
        yield


def wait_for_all(url: str, processes: Sequence[subprocess.Popen[str]]) -> None:
    """Return when every loader waits at the gate."""
    deadline = time.monotonic() + PATIENCE
    while look(url, WAITING) != [(len(processes),)]:
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "a loader did not come to its first commit"
        time.sleep(0.05)


@pytest.fixture
def loader_urls(postgres_url: str) -> list[str]:
    """The database for each loader, under a user of its own, by whom its sessions are told from the others'."""
    users = [f"loader{number}" for number in range(len(ORDERS))]
    assert "//postgres:@" in postgres_url
    with psycopg.connect(postgres_url) as connection:
        present = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for user in sorted(set(users) - present):  # they go with the server, which is this test process's own
            connection.execute(f"CREATE ROLE {user} SUPERUSER LOGIN".encode())
    return [postgres_url.replace("//postgres:@", f"//{user}:@") for user in users]


@pytest.mark.parametrize("company", COMPANIES[: scaled(11, default=3)], ids="-".join)
def test_four_loaders_insert_every_event_once(
    postgres_url: str, loader_urls: list[str], tmp_path: Path, company: Sequence[str]
) -> None:
    seed = random.randrange(10**6)
    for number in range(ROUNDS):
        print(f"seed {seed + number}")  # pytest shows it where the test fails
        table, files = f"t{number}", write(tmp_path, seed + number)
        inserted = load_some(postgres_url, table, files[0], IDENTITIES[(COMPANIES.index(company) + number) % 2])
        with started(commands(company, loader_urls, table, files)) as processes:
            with gate(postgres_url):
                wait_for_all(postgres_url, processes)
            inserted += sum(map(inserted_by, processes))
        assert look(postgres_url, ADVISORY) == look(postgres_url, IDLE) == [(0,)]
        check_table(postgres_url, table, files, inserted)


# SQLite --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("company", COMPANIES[1 : scaled(11, least=3)], ids="-".join)
def test_two_loaders_insert_every_event_once_into_a_file(
    sqlite_url: str, tmp_path: Path, company: Sequence[str]
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    files = write(tmp_path, seed)[1:3]
    inserted = load_some(sqlite_url, "t", files[0], IDENTITIES[COMPANIES.index(company) % 2])
    with started(commands(company[::2], [sqlite_url] * 2, "t", files)) as processes:
        inserted += sum(map(inserted_by, processes))
    check_table(sqlite_url, "t", files, inserted)


def test_two_loaders_may_make_the_file_together(tmp_path: Path) -> None:
    start = threading.Barrier(2)

    def make(url: str) -> None:
        start.wait(PATIENCE)
        with open_store(url) as store:
            store.ledger.prepare()

    with ThreadPoolExecutor(2) as loaders:
        for number in range(scaled(1000, default=25)):
            list(loaders.map(make, [f"sqlite:///{tmp_path / str(number)}.db"] * 2))
