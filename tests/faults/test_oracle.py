"""Negative controls of the fault tests' own instruments: the oracle sees each kind of damage, the nursery an orphan."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.evidence import BEGIN, END, Record, write_page
from support.nursery import Nursery
from support.oracle import OPTIONS, Found, Oracle
from support.program import Headrace

DAMAGE = {
    "nothing": ([], Found(0, 0, 0)),
    "an event deleted": (["DELETE FROM t WHERE key = {key}"], Found(1, 0, 0)),
    "an event twice": (
        [
            "CREATE TABLE s AS SELECT * FROM t UNION ALL SELECT * FROM t WHERE key = {key}",
            "DROP TABLE t",
            "ALTER TABLE s RENAME TO t",
        ],
        Found(0, 1, 0),
    ),
    "another value": (["UPDATE t SET value = 'another' WHERE key = {key}"], Found(0, 0, 1)),
    "an event that nobody sent": (["UPDATE t SET key = 1000000 WHERE key = {key}"], Found(1, 0, 1)),
    "an alert lost": (["DELETE FROM headrace_alerts WHERE alert_id = 1"], Found(1, 0, 0)),
    "an alert of another event": (
        ["""UPDATE headrace_alerts SET payload = '{{"key": 999999}}' WHERE alert_id = 1"""],
        Found(1, 0, 1),
    ),
    "a reject lost": (["DELETE FROM headrace_rejects"], Found(1, 0, 0)),
    "a reject of another row": (["UPDATE headrace_rejects SET row_number = 7"], Found(1, 0, 1)),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Oracle]:
    """A file with everything that the oracle expects."""
    folder = tmp_path_factory.mktemp("loaded")
    oracle = Oracle(folder / "events.csv", 60, seed=1)
    Headrace(f"sqlite:///{folder / 'h.db'}", folder).load(oracle.path, *OPTIONS, "--chunk-rows", "10", expect=3)
    return folder / "h.db", oracle


@pytest.fixture
def headrace(loaded: tuple[Path, Oracle], tmp_path: Path) -> Headrace:
    shutil.copy(loaded[0], tmp_path / "h.db")
    return Headrace(f"sqlite:///{tmp_path / 'h.db'}", tmp_path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_oracle_sees(headrace: Headrace, loaded: tuple[Path, Oracle], damage: str) -> None:
    oracle = loaded[1]
    (key, _), *_ = oracle.first
    statements, expected = DAMAGE[damage]
    for statement in statements:
        headrace.query(statement.format(key=key))
    assert oracle.look(headrace, first_wins=True) == expected


def test_the_ledger_of_a_load_that_lost_a_receipt_does_not_pass(
    headrace: Headrace, loaded: tuple[Path, Oracle]
) -> None:
    loaded[1].check_ledger(headrace)
    headrace.query("DELETE FROM headrace_receipts WHERE first_row = 10")
    with pytest.raises(AssertionError):
        loaded[1].check_ledger(headrace)


def test_the_nursery_sees_a_process_that_outlives_its_coordinator(tmp_path: Path) -> None:
    stays = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    (tmp_path / "leaves.py").write_text(f"{stays}\ndef enrich(events): return events\n")
    (tmp_path / "e.csv").write_text("key\n1\n")
    environment = {
        "HEADRACE_DATABASE_URL": f"sqlite:///{tmp_path / 'h.db'}",
        "HEADRACE_FAULT_HITS": str(tmp_path / "hits"),
    }
    with Nursery() as nursery:
        ended = nursery.run(["load", "e.csv", "--enrich", "leaves:enrich"], environment, tmp_path, within=1.0)
    assert (ended.code, len(ended.orphans)) == (0, 1), ended.stderr


def test_the_page_holds_what_was_recorded_and_nothing_else(tmp_path: Path) -> None:
    record = Record("fault", "moment", "sqlite, sequential", 3, 0, 1, 0, seed=7, rows=1000, longest=1.26, memory=1100)
    other = replace(record, longest=None, memory=30)
    (tmp_path / "evidence").write_text("\n".join(json.dumps(vars(one)) for one in (record, other)))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(tmp_path / "evidence", page)
    text = page.read_text()
    assert "| fault | moment | sqlite, sequential | 1,000 | 6 | 0 | 2 | 0 | 1.3 | 1,100 | 7 |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
