"""Rejects are replayed while the world moves: each row is in the table once, or kept, and nowhere in between."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import monotonic, sleep
from typing import Any

import pyarrow as pa
import pytest
from support.program import Crash, Headrace, crash_at

import headrace as package
from headrace.loading.replay import replay, replay_all
from headrace.options.load import options_of
from headrace.storage import open_store
from headrace.storage.rejects import StoredReject

ROWS = 40
WAYS: dict[str, dict[str, Any]] = {
    "sequential": {"mode": "sequential"},
    "partitioned": {"mode": "parallel", "strategy": "partitioned", "workers": 2, "partitions": 3},
    "upsert": {"mode": "parallel", "strategy": "upsert", "workers": 2},
    "locked": {"mode": "parallel", "strategy": "locked", "workers": 2, "partitions": 3},
}


@pytest.fixture
def rejected(headrace: Headrace) -> Headrace:
    """A table without a row: all of them are kept, because `v` is no integer."""
    (headrace.folder / "in.csv").write_text("k,v\n" + "".join(f"{k},oops\n" for k in range(ROWS)))
    headrace.load("in.csv", "--table", "t", "--id", "k", "--type", "v=integer", "--type", "k=integer", expect=3)
    return headrace


def replayed(headrace: Headrace, kept: Sequence[StoredReject] | None = None, **named: Any) -> Any:
    """`replay_all` of what is kept, or of `kept`, in this process."""
    hook, value = named.pop("hook", None), named.pop("value", "5")
    options = options_of({"to": headrace.url, **named})
    with open_store(headrace.url, on_statement=hook) as store:
        store.ledger.prepare()
        rows = store.rejects.find() if kept is None else kept
        return replay_all(store, rows, options, changes={"v": value})


def kept_of(headrace: Headrace) -> list[StoredReject]:
    with open_store(headrace.url) as store:
        return store.rejects.find()


def states(headrace: Headrace) -> dict[str, int]:
    return dict(headrace.query("SELECT state, count(*) FROM headrace_rejects GROUP BY 1"))  # type: ignore[arg-type]


def in_table(headrace: Headrace) -> list[int]:
    return [k for (k,) in headrace.query("SELECT k FROM t ORDER BY k")]


def assert_all_somewhere(headrace: Headrace) -> None:
    """Each row is in the table or kept, none in both, none twice."""
    kept = [one.reject.row for one in kept_of(headrace)]
    assert sorted([*kept, *in_table(headrace)]) == list(range(ROWS))  # type: ignore[type-var]


def forbid_seven(headrace: Headrace) -> None:
    if headrace.url.startswith("sqlite"):
        headrace.query("CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.k = 7 BEGIN SELECT RAISE(ABORT, 'no room'); END")
    else:
        headrace.query("ALTER TABLE t ADD CONSTRAINT no CHECK (k <> 7)")


def allow_seven(headrace: Headrace) -> None:
    headrace.query("DROP TRIGGER no" if headrace.url.startswith("sqlite") else "ALTER TABLE t DROP CONSTRAINT no")


@pytest.mark.parametrize("way", WAYS)
def test_a_replay_that_fails_in_one_slice_leaves_the_others_rows_kept(rejected: Headrace, way: str) -> None:
    forbid_seven(rejected)
    outcome = replayed(rejected, **WAYS[way])
    assert len(outcome.errors) == 1
    assert_all_somewhere(rejected)
    assert outcome.counts.inserted == len(in_table(rejected))
    allow_seven(rejected)
    replayed(rejected, **WAYS[way])
    assert in_table(rejected) == list(range(ROWS))
    assert states(rejected) == {"replayed": ROWS}


SLOW = """
import pathlib, time
def slow(events):
    pathlib.Path("reached").touch()
    if 7 in events["k"].to_pylist():
        time.sleep(60)
    return events
"""


def test_a_replay_killed_before_its_commit_is_done_by_the_next(rejected: Headrace) -> None:
    (rejected.folder / "slow.py").write_text(SLOW)
    words = ["rejects", "replay", "--table", "t", "--set", "v=5"]
    environment = {
        **rejected.environment(),
        "ENABLE_PARALLEL_CHUNK_PROCESSING": "on",
        "PYTHONPATH": str(rejected.folder),
    }
    process = subprocess.Popen(rejected.command(*words, "--enrich", "slow:slow"), env=environment, cwd=rejected.folder)
    until = monotonic() + 120
    while not (rejected.folder / "reached").exists() and monotonic() < until:
        sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert in_table(rejected) == []
    assert_all_somewhere(rejected)
    assert f"{ROWS} replayed: {ROWS} inserted" in rejected.run(*words).stdout
    assert in_table(rejected) == list(range(ROWS))
    assert states(rejected) == {"replayed": ROWS}


@pytest.mark.parametrize("value", ["5", "worse"])
def test_a_replay_that_dies_before_any_statement_loses_no_row(rejected: Headrace, value: str) -> None:
    for statement in range(1, 60, 2):
        try:
            replayed(rejected, hook=crash_at(statement), value=value, mode="sequential")
        except Crash:
            assert_all_somewhere(rejected)
        else:
            break
    replayed(rejected, value=value, mode="sequential")
    assert_all_somewhere(rejected)
    again = [one for one in kept_of(rejected) if one.reject.replaces is not None]
    assert len(again) == (ROWS if value == "worse" else 0)
    assert [one.reject.line for one in again] == [one.reject.row + 2 for one in again if one.reject.row is not None]


@pytest.mark.parametrize("value", ["5", "worse"])
@pytest.mark.parametrize("way", ["sequential", "partitioned"])
def test_two_replays_at_once_settle_each_reject_once(rejected: Headrace, way: str, value: str) -> None:
    kept, start = kept_of(rejected), Barrier(2)

    def one(_: int) -> Any:
        start.wait()
        return replayed(rejected, kept, value=value, **WAYS[way])

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(one, range(2)))
    assert not any(outcome.errors for outcome in outcomes)
    assert_all_somewhere(rejected)
    assert sum(outcome.counts.read for outcome in outcomes) == ROWS
    assert sum(outcome.settled for outcome in outcomes) == ROWS
    assert sum(len(outcome.again) for outcome in outcomes) == (ROWS if value == "worse" else 0)
    (balance,) = rejected.query(
        "SELECT sum(read) - sum(inserted + duplicate_in_input + duplicate_in_store + rejected) FROM headrace_receipts"
    )
    assert balance == (0,)


def test_a_reject_that_is_settled_already_is_not_loaded_again(rejected: Headrace) -> None:
    kept = kept_of(rejected)
    assert len(replayed(rejected, kept, value="worse").again) == ROWS
    later = replayed(rejected, kept, value="5")
    assert (later.settled, later.counts.read, later.reports) == (ROWS, 0, [])
    with open_store(rejected.url) as store:
        store.rejects.discard([one.reject_id for one in kept_of(rejected)[:10]])
    last = replayed(rejected)
    assert last.counts.inserted == len(in_table(rejected)) == ROWS - 10


def test_rows_that_come_in_several_chunks_are_settled_with_their_own(headrace: Headrace) -> None:
    """Bytes beside text: each change of a column's type begins a chunk."""
    values = [b"\xff", b"\xfe", "text", "more", b"\xfd"]
    for number, value in enumerate(values):
        kind = pa.binary() if isinstance(value, bytes) else pa.string()
        rows = pa.table({"k": pa.array([number]), "n": ["x"], "v": pa.array([value], kind)})
        package.load(rows, to=headrace.url, table="t", id=["k"], types={"n": "integer", "v": "bytes"})
    with open_store(headrace.url) as store:
        rejects = store.rejects.find()
    assert len(rejects) == len(values)
    for statement in range(30, 400, 3):
        try:
            options = options_of({"to": headrace.url, "mode": "sequential"})
            with open_store(headrace.url, on_statement=crash_at(statement)) as store:
                replay(store, store.rejects.find(), options, changes={"n": "1"})
        except Crash:
            kept = len(kept_of(headrace))
            assert kept + len(in_table(headrace)) == len(values)
        else:
            break
    assert in_table(headrace) == list(range(len(values)))


FAILING = """
def failing(events):
    if any(k % 4 == 0 for k in events["k"].to_pylist()):
        raise ValueError("not these")
    return events
"""


@pytest.mark.parametrize("flag", ["off", "on"])
def test_a_row_that_a_function_rejects_again_stands_where_it_stood(
    rejected: Headrace, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setenv("ENABLE_PARALLEL_CHUNK_PROCESSING", flag)
    (rejected.folder / "sour.py").write_text(FAILING)
    before = {one.reject_id: one.reject for one in kept_of(rejected)}
    words = ("--set", "v=5", "--enrich", "sour:failing", "--on-error", "reject")
    rejected.run("rejects", "replay", *words, expect=3)
    again = kept_of(rejected)
    assert len(again) == ROWS // 4
    for one in again:
        old = before[one.reject.replaces or 0]
        assert (one.reject.source, one.reject.row, one.reject.line) == (old.source, old.row, old.line)
        assert one.reject.raw == old.raw
        assert "not these" in one.reject.reason


def test_a_replay_says_which_reject_each_has_become_and_why(rejected: Headrace) -> None:
    first, second = (one.reject_id for one in kept_of(rejected)[:2])
    done = rejected.run("rejects", "replay", first, second, "--set", "v=worse", expect=3)
    (new, other) = (one for one in kept_of(rejected) if one.reject.replaces is not None)
    assert new.reject.replaces == first
    assert f"now reject {new.reject_id} (was {first}), in.csv, line 2, column v: 'worse' is not" in done.stdout
    assert f"now reject {other.reject_id} (was {second})" in done.stdout
    once_more = rejected.json("rejects", "replay", new.reject_id, "--set", "v=worst", expect=3)
    (last,) = once_more["again"]
    assert (last["reject"]["replaces"], last["reject"]["line"]) == (new.reject_id, 2)
    shown = rejected.run("rejects", "show", last["reject_id"]).stdout
    assert shown.index(f"before  reject {new.reject_id}: 'worse'") < shown.index(f"before  reject {first}: 'oops'")
    assert "no rejects to replay" in rejected.run("rejects", "replay", "--table", "other").stdout


def test_a_change_of_a_column_that_no_row_has_changes_nothing(rejected: Headrace) -> None:
    refused = rejected.run("rejects", "replay", "--set", "vv=5", expect=2)
    assert "has no column 'vv'" in refused.stderr
    number = kept_of(rejected)[0].reject_id
    assert "has no column 'vv'" in rejected.run("rejects", "replay", number, "--raw", '{"k":1,"vv":5}', expect=2).stderr
    assert states(rejected) == {"kept": ROWS}
    assert rejected.query("SELECT * FROM t WHERE k < 0") == []


def test_rejects_of_several_tables_and_providers_go_to_their_own(headrace: Headrace) -> None:
    for name in ("a", "b"):
        (headrace.folder / f"{name}.csv").write_text("k,v\n1,oops\n2,oops\n")
        for provider in ("p", "q"):
            words = ("--table", name, "--provider", provider, "--id", "k", "--type", "v=integer")
            headrace.load(f"{name}.csv", *words, expect=3)
    headrace.query("ALTER TABLE b RENAME TO gone")
    headrace.query("CREATE TABLE b (k bigint)")
    failed = headrace.run("rejects", "replay", "--set", "v=5", expect=2)
    assert "4 replayed: 4 inserted" in failed.stdout
    assert headrace.query("SELECT provider, count(*) FROM a GROUP BY 1 ORDER BY 1") == [("p", 2), ("q", 2)]
    assert states(headrace) == {"kept": 4, "replayed": 4}
    headrace.query("DROP TABLE b")
    headrace.query("ALTER TABLE gone RENAME TO b")
    headrace.run("rejects", "replay", "--set", "v=5")
    assert headrace.query("SELECT provider, count(*) FROM b GROUP BY 1 ORDER BY 1") == [("p", 2), ("q", 2)]


def test_a_file_that_is_gone_is_not_missed(rejected: Headrace) -> None:
    Path(rejected.folder / "in.csv").unlink()
    number = kept_of(rejected)[3].reject_id
    rejected.run("rejects", "replay", number, "--raw", "3,8")
    assert rejected.query("SELECT k, v FROM t") == [(3, 8)]


SELECT = "SELECT k, strptime(day, '%d/%m/%Y') AS day, v * 2 AS v FROM source WHERE v >= 0"


def test_a_row_behind_a_select_is_mended_by_its_own_text(headrace: Headrace) -> None:
    """The table has a column of the same name in another type."""
    (headrace.folder / "in.csv").write_text("k,day,v\n007,01/02/2024,1\n008,03/02/2024,oops\n009,04/02/2024,also\n")
    kinds = ("--type", "k=string", "--type", "day=string", "--type", "v=integer")
    headrace.run("load", "in.csv", "--table", "t", "--id", "k", *kinds[:2], *kinds[4:], "--select", SELECT, expect=3)
    first, second = (one.reject_id for one in kept_of(headrace))
    headrace.run("rejects", "replay", first, "--set", "v=nothing", expect=3)
    again = kept_of(headrace)[-1]
    assert (again.reject.replaces, again.reject.line) == (first, 3)
    headrace.run("rejects", "replay", again.reject_id, "--raw", "008,05/02/2024,4")
    headrace.run("rejects", "replay", second, "--raw", '{"k": "009", "v": 7, "day": "04/02/2024"}')
    found = headrace.query("SELECT k, v FROM t ORDER BY k")
    assert found == [("007", 2), ("008", 8), ("009", 14)]


def test_rows_that_a_select_leaves_out_are_settled_and_said(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text("k,day,v\n1,01/02/2024,1\n2,03/02/2024,oops\n")
    headrace.run("load", "in.csv", "--table", "t", "--id", "k", "--type", "v=integer", "--select", SELECT, expect=3)
    done = headrace.run("rejects", "replay", "--set", "v=-1")
    assert "1 replayed: 0 inserted" in done.stdout
    assert "0 rows behind the select" in done.stdout
    assert states(headrace) == {"replayed": 1}
