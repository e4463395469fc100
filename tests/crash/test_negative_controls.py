"""Negative controls: take a guarantee away from a copy of the program, and the suite must go red.

Each control is a small edit of a copy; a few tests of the suite then run against that copy in a process of their own.
The same tests are green against an unedited copy, so it is the edit that turns them red.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.evidence import unkept

import headrace.storage

TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Control:
    """One guarantee taken away: edits (file, text, replacement) of the package, and the test that must catch it."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    test: str


CONTROLS = [
    Control(
        "the unique key removed",
        (
            (
                "storage/sql/schema.py",
                "sa.Column(EVENT_ID, identifier, primary_key=True, nullable=False)",
                "sa.Column(EVENT_ID, identifier)",
            ),
            ("storage/sql/schema.py", "sqlite_with_rowid=False", "sqlite_with_rowid=True"),
            (
                "storage/sql/facts.py",
                "    if facts.keyless is not None:",
                "    if facts.keyless is None and not facts.columns:",
            ),
            ("storage/sqlite/slice_transaction.py", " ON CONFLICT({unique}) DO NOTHING", ""),
        ),
        "crash/test_stale_snapshot.py",
    ),
    Control(
        "the receipt committed apart from the rows",
        (
            (
                "storage/sql/commit.py",
                "    revised, alerts = UNREVISED, 0\n",
                "    transaction.connection.exec_driver_sql('COMMIT')\n"
                "    transaction.connection.exec_driver_sql('BEGIN')\n"
                "    revised, alerts = UNREVISED, 0\n",
            ),
        ),
        "crash/test_statements.py::test_rows_and_receipt_exist_together_at_every_moment",
    ),
    Control(
        "the alerts committed apart from the rows",
        (
            (
                "storage/sql/commit.py",
                "        alerts = raise_alerts(",
                "        transaction.connection.exec_driver_sql('COMMIT')\n"
                "        transaction.connection.exec_driver_sql('BEGIN')\n"
                "        alerts = raise_alerts(",
            ),
        ),
        "contract/test_outbox.py::test_alerts_exist_only_with_their_events_wherever_a_commit_stops",
    ),
    Control(
        "alerts raised for events that were there already",
        (
            (
                "storage/sql/outbox.py",
                "    return alerts.filter(pc.is_in(alerts.column(EVENT_ID), value_set=array_of_ids(inserted)))",
                "    return alerts",
            ),
        ),
        "contract/test_outbox.py::test_only_events_that_were_really_inserted_raise_alerts",
    ),
    Control(
        "an alert marked before it is sent",
        (
            (
                "delivery/dispatcher.py",
                "            self._unsettled = (lease, claimed, self._send(",
                "            done = [Attempt(one.alert_id, 'delivered', key=one.key) for one in claimed]\n"
                "            outbox.settle(lease, done)\n"
                "            self._unsettled = (lease, claimed, self._send(",
            ),
        ),
        "crash/test_delivery.py::test_killed_between_send_and_mark_every_alert_is_delivered",
    ),
    Control(
        "the snapshot assumed empty on error",
        (
            (
                "loading/known_ids.py",
                "        self._snapshot.extend(ids, None)",
                "        try:\n            self._snapshot.extend(ids, None)\n"
                "        except Exception:\n"
                "            return",
            ),
        ),
        "crash/test_statements.py::test_unreadable_existing_ids_stop_the_run",
    ),
    Control(
        "the comparison of verify asleep",
        (("checking/id_differences.py", "(times_stored == 0)]", "(times_stored < 0)]"),),
        "cli/test_proof.py::test_lost_events_are_found_and_addressed_with_source_row_and_line",
    ),
    Control(
        "the digest left out of the receipts",
        (("storage/sql/commit.py", '"inserted_digest": _inserted_digest(piece, written)', '"inserted_digest": None'),),
        "cli/test_proof.py::test_an_event_swapped_for_another_under_the_same_receipt_is_found_without_the_input",
    ),
    Control(
        "the partition left out of the receipt's key",
        (("storage/sql/schema.py", '"first_row", "partition")', '"first_row")'),),
        "equivalence/test_modes.py::test_each_strategy_loads_each_event_once",
    ),
    Control(
        "the newest does not take the row",
        (
            (
                "storage/sql/revise.py",
                "        taken = self._take_over(ranked, version, there) if count",
                "        taken = set() if count",
            ),
        ),
        "equivalence/test_revisions.py::test_killed_before_any_statement_and_resumed_the_revisions_are_the_same",
    ),
    Control(
        "every repeated row told of as a revision",
        (("storage/sql/revise.py", "ranked.c.version.is_not(None), newer)", "sa.true())"),),
        "cli/test_revisions.py::test_an_older_version_that_comes_late_is_not_told_of",
    ),
    Control(
        "another event takes the row of one with the same ID",
        (("storage/sql/revise.py", "        self._leave_out(strange)", "        strange = []"),),
        "equivalence/test_revisions.py::test_a_thousand_collisions_of_the_digest_are_not_lost_in_silence"
        "[sqlite-update-None]",
    ),
]


def run_suite(package: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run `tests` on SQLite against the package in the folder `package`, configured only by what is said here."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", "sqlite", "-c", os.devnull, "--import-mode=importlib"]
    places = ["--rootdir", str(TESTS), "--confcutdir", str(TESTS), "-o", f"pythonpath={TESTS}"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *(str(TESTS / test) for test in tests), *options, *places],
        env={**unkept(), "PYTHONPATH": str(package)},
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the installed package, alone in a folder that goes first on the path."""
    installed = Path(headrace.storage.__file__).parents[1]
    folder = tmp_path / "copy"
    shutil.copytree(installed, folder / "headrace", symlinks=False, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
def test_the_suite_is_green_on_an_unedited_copy(copy: Path) -> None:
    done = run_suite(copy, *sorted({control.test for control in CONTROLS}))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_the_suite_goes_red_with(control: Control, copy: Path) -> None:
    for file, text, replacement in control.edits:
        path = copy / "headrace" / file
        source = path.read_text()
        assert source.count(text) == 1, f"{file} no longer has {text!r}: bring the control up to date"
        path.write_text(source.replace(text, replacement))
    done = run_suite(copy, control.test)
    assert done.returncode == 1, f"{control.name}: the suite did not notice\n{done.stdout}{done.stderr}"
    assert "failed" in done.stdout
