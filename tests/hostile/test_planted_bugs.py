"""Planted bugs, twelve and one, each a small edit of a copy of the package: a named test catches each of them.

The table below says by which. The named tests are green on the unedited package, where the suite itself runs them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.evidence import Record, keep, unkept

import headrace.storage

TESTS = Path(__file__).resolve().parents[1]
SEED = int(os.environ.get("HEADRACE_TEST_SEED", "20260101"))


@dataclass(frozen=True)
class Bug:
    """An edit (`file`: `old` becomes `new`) and the `test` that must go red, of its cases those that `only` names."""

    name: str
    file: str
    old: str
    new: str
    test: str
    only: str = ""


BUGS = [
    Bug(
        "unsorted upsert",
        "storage/postgres/slice_transaction.py",
        '"WITH inserted AS (INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY event_id "',
        '"WITH inserted AS (INSERT INTO {} ({}) SELECT {} FROM {} "',
        "races/test_exclusion.py::test_the_safe_path_inserts_in_the_order_of_the_ids",
    ),
    Bug(
        "receipt before rows",
        "storage/sql/commit.py",
        "    written = transaction.write_events(",
        "    transaction.connection.exec_driver_sql('COMMIT')\n    transaction.connection.exec_driver_sql('BEGIN')\n"
        "    written = transaction.write_events(",
        "crash/test_statements.py::test_killed_before_any_statement_run_again_done",
        "sqlite",
    ),
    Bug(
        "alert outside the transaction",
        "storage/sql/commit.py",
        "        alerts = raise_alerts(transaction, written.inserted, revised.newer, receipt_id)\n",
        "        with transaction._database.engine.begin() as apart:\n"
        "            around = (transaction.watch, transaction._database, transaction._catalogue)\n"
        "            other = type(transaction)(apart, piece, *around)\n"
        "            alerts = raise_alerts(other, written.inserted, revised.newer, receipt_id)\n",
        "contract/test_outbox.py::test_alerts_exist_only_with_their_events_wherever_a_commit_stops",
        "postgresql and snapshot",
    ),
    Bug(
        "rejects outside the transaction",
        "storage/sql/commit.py",
        "        keep_rejects(transaction, revised.kept, receipt_id, dialect.now())\n",
        "        with transaction._database.engine.begin() as apart:\n"
        "            around = (transaction.watch, transaction._database, transaction._catalogue)\n"
        "            other = type(transaction)(apart, piece, *around)\n"
        "            keep_rejects(other, revised.kept, receipt_id, dialect.now())\n",
        "contract/test_transaction.py::test_a_commit_stopped_before_any_of_its_statements_leaves_nothing",
        "postgresql and snapshot",
    ),
    Bug(
        "window off by one",
        "storage/sqlite/events.py",
        "below = sa.true() if low is None else column >= low",
        "below = sa.true() if low is None else column > low",
        "contract/test_ids.py::test_a_range_of_time_includes_its_low_end_and_nulls",
        "sqlite",
    ),
    Bug(
        "a swallowed broken pool",
        "loading/commits.py",
        "                committed = task.result()\n",
        "                try:\n                    committed = task.result()\n"
        "                except HeadraceError:\n                    continue\n",
        "crash/test_worker_failure.py::test_the_users_exception_comes_back_with_its_traceback_and_addresses",
        "parallel",
    ),
    Bug(
        "lock per chunk instead of per partition",
        "loading/slicing.py",
        "lock_keys(agreement.table, partition, shape.partitions) if locked",
        "lock_keys(repr(batch.address), partition, shape.partitions) if locked",
        "races/test_exclusion.py::test_a_loader_waits_for_whoever_holds_its_partition_and_for_nobody_else",
    ),
    Bug(
        "last occurrence wins",
        "partitioning/dedup.py",
        "first[among[1:][again]] = False",
        "first[among[:-1][again]] = False",
        "unit/partitioning/test_dedup.py::test_the_first_occurrence_of_each_id_is_kept_and_no_other",
    ),
    Bug(
        "inserted counted without asking the database",
        "storage/sql/commit.py",
        "    inserted = offered if written.inserted is None else len(written.inserted) // 16\n",
        "    inserted = offered\n",
        "contract/test_authority.py::test_exactly_the_absent_events_go_in",
        "sqlite",
    ),
    Bug(
        "text hashed as it comes, not in NFC",
        "partitioning/encoding.py",
        'else unicodedata.normalize("NFC", text) for text',
        "else text for text",
        "unit/events/test_canonical_forms.py::test_ids_differ_exactly_where_meanings_do",
        "string",
    ),
    Bug(
        "a receipt taken for another content's",
        "storage/sql/commit.py",
        "    if receipt.digest != piece.digest:",
        "    if receipt.digest == '':",
        "contract/test_transaction.py::test_a_receipt_of_another_content_is_refused",
        "sqlite",
    ),
    Bug(
        "a record that is too long is skipped in silence",
        "reading/csv_records.py",
        "                self._refuse(self._first + self._fed + len(self._gaps), record)\n",
        "",
        "unit/reading/test_csv_records.py::test_a_record_that_is_too_long_costs_itself_alone",
    ),
    Bug(
        "a newer release's tables written to",
        "storage/sql/migrations.py",
        "    if version > SCHEMA_VERSION:",
        "    if version > SCHEMA_VERSION + 1:",
        "contract/test_upgrades.py::test_a_newer_releases_database_is_refused_with_instructions",
        "sqlite",
    ),
]


def chosen() -> list[Bug]:
    """All of them in the whole suite, two otherwise, by the seed."""
    if os.environ.get("HEADRACE_TEST_SCALE") == "full":
        return BUGS
    return random.Random(SEED).sample(BUGS, 2)


def run_suite(package: Path, bug: Bug) -> subprocess.CompletedProcess[str]:
    """Run the bug's test against the package in the folder `package`, with no configuration but what is said here."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-c", os.devnull, "--import-mode=importlib"]
    places = ["--rootdir", str(TESTS), "--confcutdir", str(TESTS), "-o", f"pythonpath={TESTS}"]
    only = ["-k", bug.only] if bug.only else []
    return subprocess.run(
        [sys.executable, "-m", "pytest", str(TESTS / bug.test), *options, *places, *only],
        env={**unkept(), "PYTHONPATH": os.pathsep.join([str(package), str(TESTS)])},
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_there_are_twelve_and_each_names_a_test_that_exists() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 12
    for bug in BUGS:
        file, _, test = bug.test.partition("::")
        assert f"def {test}(" in (TESTS / file).read_text(), bug.test


@pytest.mark.parametrize("bug", chosen(), ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug, tmp_path: Path) -> None:
    print("seed", SEED)
    installed = Path(headrace.storage.__file__).parents[1]
    folder = tmp_path / "copy"
    shutil.copytree(installed, folder / "headrace", symlinks=False, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "headrace" / bug.file
    source = path.read_text()
    assert source.count(bug.old) == 1, f"{bug.file} no longer has {bug.old!r} once: bring the bug up to date"
    planted = source.replace(bug.old, bug.new)
    compile(planted, bug.file, "exec")  # a bug, not a module that cannot be imported
    path.write_text(planted)
    done = run_suite(folder, bug)
    caught = done.returncode == 1 and "failed" in done.stdout
    keep(Record(f"planted bug: {bug.name}", "in the source", bug.test, 1, 0, 0, int(not caught), SEED, 0))
    assert caught, f"{bug.name}: {bug.test} did not notice\n{done.stdout}{done.stderr}"
