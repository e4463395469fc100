"""Logs as JSON: each record says what it is about, slow things are warned of, and much is sampled."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from pathlib import Path

import pytest
from support.observers import lines_of, load_all
from support.program import Headrace

from headrace.observability.log_format import JsonLines, RecordFilter
from headrace.observability.narrator import Narrator, Thresholds
from headrace.observability.observers import observing


@pytest.mark.slow
def test_json_logs_say_run_provider_chunk_and_partition(store_url: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("key\n" + "\n".join(map(str, range(2_000))) + "\n")
    words = ["load", path, "--id", "key", "--provider", "p", "--mode", "parallel", "--workers", 1, "--partitions", 2]
    logs = ["--log-format", "json", "--log-level", "info", "--slow-chunk", "1d", "--output", "json"]
    done = Headrace(store_url, tmp_path).run(*words, "--chunk-rows", 500, *logs)
    report = json.loads(done.stdout)
    records = lines_of(done.stderr)
    assert len(records) == len(done.stderr.splitlines())
    assert {(one["run"], one["provider"], one["table"]) for one in records} == {(report["run_id"], "p", "t")}
    committed = [one for one in records if one["message"].startswith("committed ")]
    assert sum(one["inserted"] for one in committed) == 2_000
    assert {one["partition"] for one in committed} == {0, 1}
    assert all("t.csv, rows " in one["chunk"] for one in committed)
    assert [one["level"] for one in records] == ["info"] * len(records)
    assert records[-1]["stages"] == report["stages"]


def test_what_a_worker_logs_says_its_run_provider_chunk_and_partition(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "import logging\n"
        "def enrich(batch):\n"
        "    logging.getLogger('headrace.user').warning('hello', extra={'rows': batch.num_rows})\n"
        "    return batch\n"
    )
    (tmp_path / "t.csv").write_text("key\n1\n2\n")
    how = ["--mode", "parallel", "--workers", 1, "--partitions", 1, "--enrich", "chatty:enrich", "--output", "json"]
    done = Headrace(sqlite_url, tmp_path).run("load", "t.csv", "--provider", "p", *how, "--log-format", "json")
    (said,) = [one for one in lines_of(done.stderr) if "hello" in one["message"]]
    assert (said["run"], said["provider"]) == (json.loads(done.stdout)["run_id"], "p")
    assert (said["chunk"], said["partition"], said["rows"]) == ("t.csv, rows 0-1", 0, 2)
    assert said["worker"] > 0


def test_slow_things_are_warned_of_and_quick_ones_are_not(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    limits = {name: {name: 1e-9} for name in ("provider", "chunk", "query")}
    said: dict[str, str] = {}
    for name, limit in {**limits, "none": {}, "far": {"provider": 9e9, "chunk": 9e9, "query": 9e9}}.items():
        caplog.clear()
        with observing(Narrator(Thresholds(**limit))), caplog.at_level("WARNING", "headrace.run"):
            load_all(postgres_url, "sequential", table=name)
            load_all(postgres_url, "sequential", table=name)  # the table is there: there is a snapshot to fetch
        said[name] = caplog.text
    assert "slow provider: p took" in said["provider"]
    assert "slow stage: prepare took" in said["chunk"]
    assert "slow stage: wait" not in said["chunk"]
    assert re.search("slow statement: (copy|conflict) took", said["query"])
    assert "slow statement: snapshot took" in said["query"]
    assert "statement" not in said["chunk"]
    assert said["none"] == said["far"] == ""


def test_at_high_volume_records_are_sampled_and_none_is_lost_from_the_count() -> None:
    """Negative control: without the sampling all of them come out."""
    counts = {}
    for most in (5, 10**9):
        told: list[logging.LogRecord] = []
        logger = logging.Logger("volume")
        handler = logging.Handler()
        handler.emit = told.append  # type: ignore[method-assign]
        handler.addFilter(RecordFilter(most))
        logger.addHandler(handler)
        until = time.monotonic() + 1.2
        sent = 0
        while time.monotonic() < until or sent < 100:
            logger.info("slice")
            sent += 1
            time.sleep(0.002)
        logger.warning("warnings come out")
        infos = [one for one in told if one.levelname == "INFO"]
        left_out = sum(getattr(one, "left_out", 0) for one in infos)
        assert told[-1].levelname == "WARNING"
        assert len(infos) + left_out <= sent
        counts[most] = (len(infos), left_out, sent)
    assert counts[5][0] < counts[5][2] / 2
    assert counts[5][1] > 0
    assert counts[10**9][0] == counts[10**9][2]


def test_a_record_with_anything_in_it_is_one_line_of_json() -> None:
    record = logging.makeLogRecord({"msg": "two\nlines %s", "args": (object,), "levelname": "INFO", "odd": {1, 2}})
    try:
        json.loads("what\nwent wrong")
    except ValueError:
        record.exc_info = sys.exc_info()
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "JSONDecodeError" in json.loads(text)["traceback"]


# The command line -----------------------------------------------------------------------------------------------
