"""Revisions, against a plain dict that takes one row after the other: what is in the table, what is counted, what is
kept aside, which alerts are raised, for every policy, mode, strategy and chunk size, over inputs whose columns differ.

The oracle knows nothing of IDs, chunks, snapshots or SQL. The seeds that hypothesis prints reproduce a failure.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from support.evidence import Record, keep
from support.program import Crash, Headrace, crash_at, scaled
from xxhash import xxh3_128_digest

from headrace.events import alert_judge
from headrace.events.alert_rule import AlertRule
from headrace.events.choices import RevisionsName
from headrace.loading.run import ingest
from headrace.options.choices import StrategyName
from headrace.options.load import LoadOptions, ParallelOptions
from headrace.partitioning import identity
from headrace.reading.inputs import ReadOptions, open_inputs
from headrace.report import Report
from headrace.storage import open_store
from headrace.storage.records import StatementHook

Row = tuple[str, ...]
POLICIES: tuple[RevisionsName, ...] = ("ignore", "report", "update")
STRATEGIES: tuple[StrategyName | None, ...] = (None, "partitioned", "upsert", "locked")
COLUMNS = ("key", "version", "value", "more")
# in ascending order, as text; the empty one is null and the oldest
VERSIONS = {
    "integer": ["", "2", "10"],
    "string": ["", "10", "2", "\u00e9"],
    "timestamp": ["", "2024-05-01T00:00:00Z", "2024-05-01T00:00:00.5Z", "2024-05-01T05:00:00Z"],
    "float": ["", "-1.5", "2e3"],
    "date": ["", "2024-05-01", "2024-11-01"],
}
KINDS = st.sampled_from(sorted(VERSIONS))
NUMBERS = st.tuples(st.integers(0, 12).map(str), st.integers(0, 2), st.sampled_from(["", "a", "A", "b"]))
FILES = st.lists(
    st.tuples(st.booleans(), st.lists(st.tuples(NUMBERS, st.sampled_from(["", "x"])), min_size=1, max_size=20)),
    min_size=1,
    max_size=3,
)
tables = count()


@dataclass(frozen=True)
class Way:
    """One way of carrying a load out; without a strategy it is sequential."""

    strategy: StrategyName | None
    chunk_rows: int
    workers: int = 2
    partitions: int = 3


WAYS = st.builds(
    Way,
    strategy=st.sampled_from(STRATEGIES),
    chunk_rows=st.sampled_from([1, 3, 7, 1000]),
    workers=st.sampled_from([1, 2, 4]),
    partitions=st.sampled_from([1, 3, 16]),
)


@dataclass
class Oracle:
    """What the table must hold, what must be kept aside, and how many rows were revisions."""

    policy: RevisionsName
    order: Sequence[str]
    held: dict[str, dict[str, str]] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)
    revised: int = 0
    told: Counter[tuple[str, bool, str]] = field(default_factory=Counter)
    """How often each rule tells of a row, and whether as a revision."""

    def take(self, row: dict[str, str]) -> None:
        held = self.held.setdefault(row["key"], row)
        if held is row:
            self._tell(row, "once", "each", revision=False)
        if self.policy == "ignore" or held is row:
            return
        newer = self.order.index(row["version"]) - self.order.index(held["version"])
        if self.policy == "update" and newer > 0:
            self.held[row["key"]] = row
            self.revised += 1
            self._tell(row, "each", revision=True)
        elif any(held.get(name, "") != value for name, value in row.items()):
            self.revised += 1
            if self.policy == "report" or newer == 0:
                self.kept[json.dumps([row.get(name) for name in COLUMNS])] += 1

    def compare(
        self, held: dict[str, tuple[str, ...]], expected: dict[str, tuple[str, ...]], kept: Counter[str]
    ) -> tuple[int, int, int]:
        """What of the rows in the table and of those kept aside is lost, twice there, or not as it must be."""
        wanted = short(self.kept)
        wrong = sum(held[key] != expected.get(key) for key in held)
        lost, beyond = len(expected.keys() - held.keys()) + (wanted - kept).total(), kept - wanted
        twice = sum((beyond & wanted).values())
        return lost, twice, wrong + beyond.total() - twice

    def _tell(self, row: dict[str, str], *alert_judge: str, revision: bool) -> None:
        if row["value"].lower() == "a":
            self.told += Counter((rule, revision, shown(row)) for rule in alert_judge)


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    """Threads: they commit side by side as processes do, over connections of their own, and start at once."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def options_for(url: str, table: str, way: Way, policy: RevisionsName, executor: Executor, kind: str) -> LoadOptions:
    types = {"key": "integer", "version": kind, "value": "string", "more": "string"}
    options = LoadOptions(
        to=url,
        table=table,
        provider=table,  # the tables of a test hold the same keys, and an alert's key knows no table
        identity=("key",),
        mode="parallel" if way.strategy else "sequential",
        read=ReadOptions(types=types, chunk_rows=way.chunk_rows),  # type: ignore[arg-type]
        revisions=policy,
        version_column="version" if policy == "update" else None,
        alerts=(
            AlertRule("once", where="lower(value) = 'a'"),
            AlertRule("each", where="lower(value) = 'a'", revisions=policy == "update"),
        ),
    )
    if way.strategy is None:
        return options
    return replace(options, parallel=ParallelOptions(way.strategy, way.workers, way.partitions, executor=executor))


def load(options: LoadOptions, files: Sequence[Path], hook: StatementHook | None = None) -> Report:
    with open_store(options.to, on_statement=hook) as store:
        store.ledger.prepare()
        inputs = open_inputs([str(file) for file in files], options.read, None)
        # --type names a column that perhaps none of the first files has
        types = {
            name: kind for name, kind in options.read.types.items() if any(name in one.columns() for one in inputs)
        }
        options = replace(options, read=replace(options.read, types=types))
        inputs = open_inputs([str(file) for file in files], options.read, None)
        return ingest(store, inputs, str(options.table), options)


def write(folder: Path, name: str, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> Path:
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def table_of(headrace: Headrace, table: str, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The table's rows by key, as text, told by the database's own version of each value but the version's."""
    listed = ", ".join(columns)
    rows = headrace.query(f"SELECT {listed} FROM {table}")  # noqa: S608 - our own table
    return {str(row[0]): tuple("" if value is None else str(value) for value in row) for row in rows}


def kept_in(headrace: Headrace, table: str) -> Counter[str]:
    """The rows kept aside, by what their record says of value and more (versions differ in form)."""
    found = headrace.query(
        f"SELECT record, line_number, differs FROM headrace_rejects WHERE table_name = '{table}' AND stage = 'revision'"  # noqa: S608
    )
    assert all(line is not None and json.loads(differs) for _, line, differs in found)
    return Counter(key_of(json.loads(record)) for record, _, _ in found)


def told_in(headrace: Headrace, table: str) -> Counter[tuple[str, bool, str]]:
    """The alerts raised, by rule, whether by a revision, and row."""
    found = headrace.query(f"SELECT rule, revision, payload FROM headrace_alerts WHERE table_name = '{table}'")  # noqa: S608
    return Counter((rule, bool(revision), shown(json.loads(payload))) for rule, revision, payload in found)


def shown(row: dict[str, Any]) -> str:
    """A row but for its version, whose form differs; a value that is not there is null."""
    return json.dumps([str(row["key"]), *(row.get(name) or "" for name in ("value", "more"))])


def key_of(record: dict[str, Any]) -> str:
    return json.dumps([record["key"], record["value"] or "", record.get("more", "-") or ""])


def short(kept: Counter[str]) -> Counter[str]:
    """The oracle's kept rows in the form of `key_of`."""
    found: Counter[str] = Counter()
    for text, times in kept.items():
        key, _, value, more = json.loads(text)
        found[json.dumps([key, value, "-" if more is None else more])] += times
    return found


@pytest.mark.parametrize("policy", POLICIES)
def test_every_way_does_with_revisions_what_a_dict_does(
    store_url: str, tmp_path: Path, headrace: Headrace, executor: Executor, policy: RevisionsName
) -> None:
    founds: dict[StrategyName | None, list[tuple[int, ...]]] = {}

    @settings(
        max_examples=scaled(100 if store_url.startswith("sqlite") else 50),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn=FILES, kind=KINDS, way=WAYS, split=st.booleans())
    def check(drawn: list[Any], kind: str, way: Way, split: bool) -> None:
        number, order = next(tables), VERSIONS[kind]
        oracle, files = Oracle(policy, order), []
        for index, (wide, rows) in enumerate(drawn):
            columns = COLUMNS if wide else COLUMNS[:3]
            records = [
                dict(zip(columns, (key, order[version], value, more), strict=False))
                for (key, version, value), more in rows
            ]
            files.append(write(tmp_path, f"{number}_{index}", columns, records))
            for record in records:
                oracle.take(record)
        note(f"{way}")
        table = f"t{number}"
        options = options_for(store_url, table, way, policy, executor, kind)
        reports = [load(options, some) for some in ([[file] for file in files] if split else [files])]
        columns = COLUMNS if any(wide for wide, _ in drawn) else COLUMNS[:3]
        names = [name for name in columns if name != "version"]
        expected = {key: tuple(row.get(name, "") for name in names) for key, row in oracle.held.items()}
        held, kept = table_of(headrace, table, names), kept_in(headrace, table)
        rows = sum(len(rows) for _, rows in drawn)
        again = rows - len(expected)
        founds.setdefault(way.strategy, []).append((rows, again, *oracle.compare(held, expected, kept)))
        assert held == expected
        assert sum(report.revised for report in reports) == oracle.revised
        assert sum(report.inserted for report in reports) == len(expected)
        assert kept == short(oracle.kept)
        assert told_in(headrace, table) == oracle.told
        assert sum(report.alerts for report in reports) == oracle.told.total()

    try:
        check()
    finally:
        for strategy, found in founds.items():
            rows, *counts = zip(*found, strict=True)
            sums = [sum(column) for column in counts]
            keep_found("same ID, another payload", store_url, policy, strategy, sums, max(rows))


def keep_found(
    fault: str, url: str, policy: str, strategy: StrategyName | None, found: Sequence[int], rows: int
) -> None:
    """Keep `found`: tries, lost, duplicated, unexpected."""
    tries, lost, duplicated, unexpected = found
    where = f"{url.partition(':')[0]}, {strategy or 'sequential'}"
    keep(Record(fault, f"--revisions {policy}", where, tries, lost, duplicated, unexpected, 0, rows))


def test_alerts_whose_key_leaves_the_version_out_would_be_found(
    store_url: str, tmp_path: Path, headrace: Headrace, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the negative control: the second version's alert meets the key of the first, and is lost
    monkeypatch.setattr(alert_judge, "version_bytes", lambda column: [b""] * len(column))
    oracle = Oracle("update", VERSIONS["integer"])
    rows = [{"key": "1", "version": version, "value": "a"} for version in ("2", "10")]
    for row in rows:
        oracle.take(row)
    options = options_for(store_url, "t", Way(None, 10), "update", executor, "integer")
    load(options, [write(tmp_path, "events", COLUMNS[:3], rows)])
    assert (oracle.told.total(), told_in(headrace, "t").total()) == (3, 2)


def collide(contract: object, encoded: Any, key: object) -> bytes:
    """Digests of rows that end in an integer: those of 2n and 2n + 1 are the same."""
    rows = encoded.to_pylist()
    return b"".join(
        xxh3_128_digest(row[:-8] + (int.from_bytes(row[-8:], "big") // 2).to_bytes(8, "big")) for row in rows
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_thousand_collisions_of_the_digest_are_not_lost_in_silence(
    store_url: str,
    tmp_path: Path,
    headrace: Headrace,
    executor: Executor,
    policy: RevisionsName,
    strategy: StrategyName | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "_digests", collide)
    # each second event is another one with the ID of the first; half of those in a load of their own; newer each time
    rows = [{"key": str(key), "version": str(key), "value": f"v{key}"} for key in range(2000)]
    files = [
        write(tmp_path, "first", COLUMNS[:3], [row for row in rows if int(row["key"]) % 4 != 3]),
        write(tmp_path, "then", COLUMNS[:3], rows),
    ]
    options = options_for(store_url, "t", Way(strategy, 300), policy, executor, "integer")
    first, then = (load(options, [file]) for file in files)
    even = {str(key): (str(key), f"v{key}") for key in range(0, 2000, 2)}
    odd = {json.dumps([str(key), f"v{key}", "-"]): 1 + (key % 4 == 1) for key in range(1, 2000, 2)}
    held, kept = table_of(headrace, "t", ["key", "value"]), kept_in(headrace, "t")
    wanted = Counter(odd if policy != "ignore" else {})
    lost, beyond = len(even.keys() - held.keys()) + (wanted - kept).total(), (kept - wanted).total()
    wrong = sum(held[key] != even.get(key) for key in held)
    if policy == "ignore":  # nothing is kept aside: what is not counted is lost
        lost += abs(2500 - sum(one.duplicate_in_input + one.duplicate_in_store for one in (first, then)))
    keep_found("collision of the digest", store_url, policy, strategy, (1000, lost, beyond, wrong), 2000)
    assert (first.read, first.inserted, first.duplicate_in_input) == (1500, 1000, 500)
    assert (then.read, then.inserted, then.duplicate_in_input, then.duplicate_in_store) == (2000, 0, 1000, 1000)
    assert held == even
    if policy == "ignore":
        assert (first.revised, then.revised, kept) == (0, 0, Counter())
        return
    assert (first.revised, then.revised) == (500, 1000)
    assert kept == wanted
    reasons = headrace.query("SELECT reason FROM headrace_rejects")
    assert all(reason.startswith("another event has the same ID: key was '") for (reason,) in reasons)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["report", "update"])
def test_killed_before_any_statement_and_resumed_the_revisions_are_the_same(
    store_url: str,
    tmp_path: Path,
    headrace: Headrace,
    executor: Executor,
    policy: RevisionsName,
) -> None:
    order = VERSIONS["integer"]
    rows = [{"key": str(n % 5), "version": order[n * 2 % 3], "value": "ab"[n % 2]} for n in range(18)]
    oracle = Oracle(policy, order)
    for row in rows:
        oracle.take(row)
    file = write(tmp_path, "events", COLUMNS[:3], rows)
    way = Way(None, chunk_rows=6)
    step, statement, survived = (7, 3, False) if scaled(10) < 10 else (1, 0, False)
    while not survived:
        statement += step
        table = f"t{statement}"
        options = options_for(store_url, table, way, policy, executor, "integer")
        try:
            load(options, [file], crash_at(statement))
            survived = True
        except Crash:
            assert load(options, [file]).revised == oracle.revised, f"died before statement {statement}"
        held = {key: (key, row["value"]) for key, row in oracle.held.items()}
        assert table_of(headrace, table, ["key", "value"]) == held, f"died before statement {statement}"
        assert kept_in(headrace, table) == short(oracle.kept), f"died before statement {statement}"
        assert told_in(headrace, table) == oracle.told, f"died before statement {statement}"
    assert statement > 30, "the loads were too short to die in"
