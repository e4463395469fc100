"""Several loaders bring several versions of the same events, each in another order, one of them is killed and comes
again: the newest version of each event is in the table, whoever brought it, and nobody ever had to give way. A rule
that asks for revisions has told of each newest version once, whoever brought it.

Each loader is the real command line. On PostgreSQL a gate holds all commits until each loader waits for its first one:
all believe that every event is new. What must be there is told by a plain dict.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from contract.pieces import look
from races.test_many_loaders import gate, started
from support.program import Headrace, scaled
from support.races import PATIENCE

KEYS = scaled(20_000)
VERSIONS = 3
Row = tuple[int, int, str]
# each strategy beside each other one, and beside itself
COMPANIES = [
    ("sequential", "partitioned", "upsert"),
    ("locked", "upsert", "sequential"),
    ("partitioned", "locked", "partitioned"),
    ("upsert", "upsert", "locked"),
]
ORDERS: Sequence[Callable[[Row], object]] = (
    lambda row: (row[1], row[0]),
    lambda row: (-row[1], -row[0]),
    lambda row: hash((row[0] * 7919, row[1])),
)
UPDATE = ("--revisions", "update", "--version-column", "version")
RULES = ("--alert", "each=key % 20 = 0", "--alert-revisions", "each", "--alert", "once=key % 20 = 5")
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'headrace_receipts'::regclass"


def write(folder: Path, seed: int) -> list[Path]:
    """The same rows in each of the `ORDERS`."""
    chance = random.Random(seed)
    rows = [
        (key, version, f"{version} of {key}") for key in range(KEYS) for version in chance.sample(range(100), VERSIONS)
    ]
    files = []
    for number, order in enumerate(ORDERS):
        files.append(folder / f"{number}.csv")
        with files[-1].open("w", newline="") as stream:
            csv.writer(stream).writerows([("key", "version", "value"), *sorted(rows, key=order)])  # type: ignore[arg-type]
    return files


def newest(file: Path) -> dict[int, tuple[int, str]]:
    held: dict[int, tuple[int, str]] = {}
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            key, version = int(row["key"]), int(row["version"])
            held[key] = max(held.get(key, (-1, "")), (version, row["value"]))
    return held


def commands(url: str, company: Sequence[str], files: Sequence[Path]) -> list[list[str]]:
    found = []
    for strategy, file in zip(company, files, strict=False):
        mode = ("sequential",) if strategy == "sequential" else ("parallel", "--strategy", strategy)
        how = ("--mode", *mode, "--workers", 1, "--partitions", 1, "--chunk-rows", KEYS // 2, "--output", "json")
        words = ("load", file, "--to", url, "--table", "t", *UPDATE, *RULES, *how)
        found.append(Headrace(url, file.parent).command(*words))
    return found


def prepare(url: str, file: Path) -> None:
    """The table with a tenth of the rows, older than all: some IDs are in the snapshot, some are not."""
    some = file.with_name("some.csv")
    some.write_text("key,version,value\n" + "".join(f"{key},-1,old\n" for key in range(0, KEYS, 10)))
    Headrace(url, file.parent).load(some, "--table", "t", "--id", "key")


def check(url: str, file: Path, done: Sequence[subprocess.Popen[str]]) -> None:
    for process in done:
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr
        report = json.loads(stdout)
        assert (report["read"], report["rejected"], report["retries"]) == (KEYS * VERSIONS, 0, 0)
    rows = look(url, "SELECT key, version, value FROM t")
    assert {key: (version, value) for key, version, value in rows} == newest(file)
    assert len(rows) == KEYS
    assert look(url, "SELECT count(*) FROM headrace_rejects") == [(0,)]
    check_alerts(url, {key: version for key, version, _ in rows})


def check_alerts(url: str, held: dict[int, int]) -> None:
    """What was told of each event: the newest version once, no version twice, and no revision that was none."""
    told = Counter((rule, *payload(text)) for rule, text in look(url, "SELECT rule, payload FROM headrace_alerts"))
    assert max(told.values()) == 1
    assert all((key, version) in told_of(told, "each") for key, version in held.items() if key % 20 == 0)
    once = told_of(told, "once")
    assert len(once) == len(range(5, KEYS, 20))
    assert {key for key, _ in once} == set(range(5, KEYS, 20))


def told_of(told: Counter[tuple[str, int, int]], rule: str) -> set[tuple[int, int]]:
    return {(key, version) for name, key, version in told if name == rule}


def payload(text: str) -> tuple[int, int]:
    event = json.loads(text)
    return event["key"], event["version"]


@pytest.mark.parametrize("company", COMPANIES[: scaled(len(COMPANIES), least=2)], ids="-".join)
def test_the_newest_wins_among_three_loaders_one_of_which_is_killed(
    postgres_url: str, tmp_path: Path, company: Sequence[str]
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # pytest shows it where the test fails
    files = write(tmp_path, seed)
    prepare(postgres_url, files[0])
    argvs = commands(postgres_url, company, files)
    with started(argvs) as processes:
        with gate(postgres_url):
            wait_until(postgres_url, WAITING, len(argvs), processes)
        wait_until(postgres_url, "SELECT least(count(*), 3) FROM headrace_receipts", 3, ())
        processes[0].kill()
        processes[0].communicate()
        with started(argvs[:1]) as again:
            check(postgres_url, files[0], [*processes[1:], *again])


def test_the_newest_wins_among_two_loaders_of_a_file(sqlite_url: str, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    files = write(tmp_path, seed)
    prepare(sqlite_url, files[0])
    with started(commands(sqlite_url, ("sequential", "upsert"), files[1:])) as processes:
        check(sqlite_url, files[0], processes)


def wait_until(url: str, question: str, answer: int, processes: Sequence[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while look(url, question) != [(answer,)]:
        assert all(process.poll() is None for process in processes), "a loader ended before its time"
        assert time.monotonic() < deadline, f"{question}: {look(url, question)}"
        time.sleep(0.05)
