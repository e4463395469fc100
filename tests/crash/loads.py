"""Loads whose workers come to harm, and what must have become of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support import processes
from support.program import Headrace

__all__ = [
    "KEYS",
    "LARGE",
    "OPTIONS",
    "ROWS",
    "check_whole",
    "finish",
    "forget",
    "start",
    "wait_for_receipts",
    "write",
]

KEYS = 300
ROWS = 400
OPTIONS: Any = {"table": "t", "id": ["key"], "types": {"key": "integer"}, "chunk_rows": 20}
# a chunk whose outcome is larger than a pipe: who is killed while sending it leaves half of it there
LARGE: Any = {**OPTIONS, "chunk_rows": 12_000}


def write(path: Path, rows: int, keys: int) -> Path:
    path.write_text("\n".join(["key,value", *(f"{n % keys},value {n}" for n in range(rows))]) + "\n")
    return path


def check_whole(headrace: Headrace, rows: int = ROWS, keys: int = KEYS) -> None:
    """The table against a dict; and what its one run has counted, told by the ledger."""
    oracle: dict[int, str] = {}
    for number in range(rows):
        oracle.setdefault(number % keys, f"value {number}")
    assert dict(headrace.query("SELECT key, value FROM t")) == oracle
    assert headrace.count("t") == keys
    counted = headrace.query('SELECT sum("read"), sum(inserted), sum(duplicate_in_input) FROM headrace_receipts')
    assert [tuple(map(int, row)) for row in counted] == [(rows, keys, rows - keys)]


def forget(headrace: Headrace) -> None:
    for table in ("t", "headrace_receipts", "headrace_runs", "headrace_contracts"):
        headrace.query(f"DROP TABLE IF EXISTS {table}")


def start(
    headrace: Headrace, events: Path, *words: str, enrich: str = "take_time", prefix: str = "", seconds: float = 1.0
) -> subprocess.Popen[str]:
    """A load that takes `seconds` for each slice, in a process group of its own.

    Long enough that it is not over before it is struck, also where the test is kept waiting.
    """
    options = f"--table t --id key --type key=integer --chunk-rows 20 --workers 2 --enrich support.processes:{enrich}"
    command = headrace.command("load", events, *options.split(), "--output", "json", *words)
    if prefix:
        command = [sys.executable, processes.__file__, *command[3:]]
    environment = {"SEMAPHORES": prefix, "SECONDS": str(seconds), "PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.Popen(
        command,
        env={**headrace.environment(), **environment},
        cwd=headrace.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(headrace: Headrace, events: Path, *words: str) -> dict[str, Any]:
    """The same load once more, to its end."""
    process = start(headrace, events, *words, seconds=0)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    report: dict[str, Any] = json.loads(stdout)
    assert (report["read"], report["inserted"], report["duplicate_in_input"]) == (ROWS, KEYS, ROWS - KEYS)
    return report


def wait_for_receipts(headrace: Headrace, receipts: int) -> None:
    deadline = time.monotonic() + 120
    while (headrace.query_one_if_table("headrace_receipts", "SELECT count(*) FROM headrace_receipts") or 0) < receipts:
        assert time.monotonic() < deadline, "no slice was committed within two minutes"
        time.sleep(0.02)
