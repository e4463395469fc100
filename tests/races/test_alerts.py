"""Alerts are raised once each: by overlapping polls in several processes, by every strategy, killed and resumed."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.program import Headrace

import headrace as package
from headrace import AlertRule

RULE = ("--alert", "third=key % 3 = 0")


def write(folder: Path, name: str, keys: list[int]) -> Path:
    path = folder / f"{name}.csv"
    path.write_text("key,value\n" + "".join(f"{key},v{key}\n" for key in keys))
    return path


def raised(headrace: Headrace) -> list[tuple[Any, ...]]:
    """The event's key, as the payload says it, and the alert's."""
    return sorted(
        (int(payload.split(":")[1].split(",")[0]), key)
        for payload, key in headrace.query("SELECT payload, alert_key FROM headrace_alerts")
    )


def check_once(headrace: Headrace, keys: set[int]) -> None:
    found = raised(headrace)
    assert [key for key, _ in found] == sorted(key for key in keys if key % 3 == 0)
    assert len({alert for _, alert in found}) == len(found)
    orphans = "SELECT count(*) FROM headrace_alerts WHERE event_id NOT IN (SELECT event_id FROM t)"
    assert headrace.query(orphans) == [(0,)]
    by_receipt = "SELECT receipt_id, count(*) FROM headrace_alerts GROUP BY 1 ORDER BY 1"
    said = "SELECT receipt_id, alerts FROM headrace_receipts WHERE alerts > 0 ORDER BY 1"
    assert headrace.query(by_receipt) == headrace.query(said)


def test_overlapping_polls_in_several_processes_raise_each_alert_once(headrace: Headrace) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    polls = [chance.sample(range(900), 600) for _ in range(4)]
    options = ("--table", "t", "--id", "key", "--chunk-rows", 40, *RULE)
    headrace.load(write(headrace.folder, "first", [0]), *options)  # the table is there, and empty but for one
    started = [
        subprocess.Popen(
            headrace.command("load", write(headrace.folder, f"poll{number}", keys), *options),
            env=headrace.environment(),
            cwd=headrace.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, keys in enumerate(polls)
    ]
    for process in started:
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, f"seed {seed}: {error}"
    check_once(headrace, {0}.union(*polls))


@pytest.mark.parametrize("strategy", ["sequential", "partitioned", "upsert", "locked"])
def test_every_strategy_raises_what_a_plain_oracle_does(store_url: str, tmp_path: Path, strategy: Any) -> None:
    seed = random.randrange(10**6)
    keys = [random.Random(seed).randrange(150) for _ in range(300)]
    path = write(tmp_path, "events", keys)
    how: Any = {"mode": "sequential"} if strategy == "sequential" else {"mode": "parallel", "strategy": strategy}
    rules = [AlertRule("third", where="key % 3 = 0")]
    named: Any = {"to": store_url, "table": "t", "id": ["key"], "chunk_rows": 50, "workers": 2, "alerts": rules}
    report = package.load(path, **named, **how)
    assert report.alerts == len({key for key in keys if key % 3 == 0}), f"seed {seed}"
    check_once(Headrace(store_url, tmp_path), set(keys))
    assert package.load(path, **named, **how).alerts == 0


def test_the_books_of_a_resumed_run_count_the_alerts_of_the_whole_input(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "events", list(range(90)))
    named: Any = {"to": store_url, "table": "t", "id": ["key"], "chunk_rows": 10}
    failing = tmp_path / "fails"
    failing.touch()

    def third(events: Any) -> list[bool]:
        keys = events["key"].to_pylist()
        if failing.exists() and 55 in keys:
            raise ValueError("not yet")
        return [key % 3 == 0 for key in keys]

    rules = [AlertRule("third", function=third)]
    with pytest.raises(package.WorkerError, match=r"alert rule third: .*third raised ValueError: not yet"):
        package.load(path, **named, alerts=rules)
    failing.unlink()
    report = package.load(path, **named, alerts=rules)
    assert report.resumed
    assert (report.inserted, report.alerts) == (90, 30)
    check_once(Headrace(store_url, tmp_path), set(range(90)))


def test_rows_on_which_a_rule_fails_are_kept_as_rejects_if_so_told(headrace: Headrace) -> None:
    path = headrace.folder / "events.csv"
    path.write_text("key,value\n1,10\n2,oops\n3,30\n")
    options = ("--table", "t", "--id", "key", "--type", "value=string", "--alert", "big=CAST(value AS INTEGER) > 20")
    failed = headrace.run("load", path, *options, expect=1)
    assert "alert rule big raised ConversionException" in failed.stderr
    assert headrace.count("t") == 0
    report = headrace.load(path, *options, "--on-error", "reject", expect=3)
    assert (report["inserted"], report["rejected"], report["alerts"]) == (2, 1, 1)
    (reject,) = headrace.json("rejects", "list")["rejects"]
    assert (reject["reject"]["row"], "alert rule big" in reject["reject"]["reason"]) == (1, True)
    done = headrace.run("rejects", "replay", "--set", "value=77", "--alert", "big=CAST(value AS INTEGER) > 20")
    assert "1 inserted" in done.stdout
    assert headrace.query("SELECT count(*) FROM headrace_alerts") == [(2,)]


def test_a_wrong_rule_leaves_nothing_behind(headrace: Headrace) -> None:
    path = write(headrace.folder, "events", [1, 2])
    done = headrace.run("load", path, "--table", "t", "--alert", "a=ky > 1", expect=2)
    assert "columns key (integer), value (string), event_id (bytes), provider (string)" in done.stderr
    # not even tables of its own
    assert headrace.query_one_if_table("headrace_contracts", "SELECT 1") is None
    assert headrace.json("runs", "list") == {"runs": []}


def test_a_rule_sees_the_columns_of_an_enrichment(store_url: str, tmp_path: Path) -> None:
    path = write(tmp_path, "events", list(range(20)))
    named: Any = {
        "to": store_url,
        "table": "t",
        "id": ["key"],
        "chunk_rows": 5,
        "enrich": "support.alert_rules:add_parity",
    }
    report = package.load(path, **named, alerts=[AlertRule("odd", where="parity = 'odd'")])
    assert report.alerts == 5
    with pytest.raises(package.ConfigurationError, match='"party" not found'):
        package.load(write(tmp_path, "more", [99]), **named, alerts=[AlertRule("odd", where="party = 'odd'")])


def test_an_engine_raises_alerts_batch_after_batch(sqlite_url: str) -> None:
    rules = [AlertRule("third", where="key % 3 = 0")]
    with package.Engine(to=sqlite_url, table="t", id=["key"], alerts=rules) as engine:
        reports = [engine.ingest([{"key": key} for key in range(start, start + 9)]) for start in (0, 3, 6)]
    assert [report.alerts for report in reports] == [3, 1, 1]
