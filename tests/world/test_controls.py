"""Negative controls of the world: five faults put back into a copy of the package, which histories must find.

Each is an edit of a copy. By default a short history that shows the fault is played against two of the copies, and is
green on the unedited package; in ``make test-all`` each of the five copies plays the histories of 500 seeds as well,
until one breaks a rule.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.evidence import Record, keep, unkept
from world.history import History
from world.world import Setup

import headrace.storage

TESTS = Path(__file__).resolve().parents[1]
SEED = int(os.environ.get("HEADRACE_TEST_SEED", "20260101"))
WHOLE = os.environ.get("HEADRACE_TEST_SCALE") == "full"
MOST = 500


pytestmark = pytest.mark.timeout(7200 if WHOLE else 300)


@dataclass(frozen=True)
class Fault:
    """What is put back, by which edits (file, text, replacement), on which store it shows, and by which acts."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    store: str
    acts: tuple[dict[str, Any], ...]


WAY = {
    "provider": "p",
    "policy": "ignore",
    "window": "all",
    "typed": False,
    "named": False,
    "alerts": True,
    "enrich": False,
}
LOAD = {"do": "load", "files": ["f0.csv"], **WAY, "mode": "sequential", "chunk_rows": 3, "resume": True, "prove": False}
BATCH = {"do": "batch", **WAY, "mode": "sequential", "pick": 1, "count": 14, "repeat": False}
FAULTS = [
    Fault(
        "1: identity columns are encoded by the table's types of the moment",
        (
            (
                "loading/contract_drift.py",
                "    for name, kind, found in drifts(contract, present):\n        raise",
                "    for name, kind, found in ():\n        raise",
            ),
            (
                "loading/contract_drift.py",
                "        if name not in types or logical_type(types[name]) != kind:",
                "        if name not in types:",
            ),
            (
                "events/prepare.py",
                '    if found != kind:\n        raise SchemaError(\n            f"the input has the column as',
                '    if not found:\n        raise SchemaError(\n            f"the input has the column as',
            ),
            # the second line of defence: the table's rows tell by which contract their IDs were made
            ("loading/same_ids.py", "            if brought:\n", "            if brought and not stored:\n"),
        ),
        "postgresql",
        ({**LOAD, "named": True, "typed": True}, {"do": "alter identity type", "column": "k", "kind": "text"}, LOAD),
    ),
    Fault(
        "3: receipts hide what is gone",
        (
            (
                "loading/skipped_slices.py",
                "            absent = ids[~there[start : start + len(ids)]]\n",
                "            absent = ids[:0]\n",
            ),
        ),
        "sqlite",
        (
            {**LOAD, "at": {"kind": "statement", "number": 45, "what": "stop"}},
            {"do": "truncate"},
            LOAD,
        ),
    ),
    Fault(
        "4: types that were read once are believed",
        (
            (
                "storage/postgres/catalogue.py",
                "        if table not in self.facts or self._looks.get(table) != (look, acting):",
                "        if table not in self.facts or len(self._looks[table][0][1]) != len(look[1]):",
            ),
        ),
        "postgresql",
        (BATCH, {"do": "alter payload type", "column": "v", "kind": "double precision"}, {**BATCH, "pick": 2}),
    ),
    Fault(
        "8: a warm engine believes in what it has written",
        (("loading/session.py", "begin_again(in_doubt=not self._one_command)", "begin_again(in_doubt=False)"),),
        "sqlite",
        (BATCH, {"do": "truncate"}, {**BATCH, "repeat": True}),
    ),
    Fault(
        "9: rows that a trigger swallows are counted",
        (
            (
                "storage/postgres/slice_transaction.py",
                "        if taken != rows.num_rows:\n",
                "        if taken > rows.num_rows:\n",
            ),
            (
                "storage/postgres/slice_transaction.py",
                "        if found:\n            ids = ",
                "        if found and not sent:\n            ids = ",
            ),
        ),
        "postgresql",
        ({**LOAD, "provider": "q"}, {"do": "trigger", "kind": "swallow"}, LOAD),
    ),
]


def chosen() -> list[Fault]:
    """All of them in the whole suite, two otherwise, by the seed."""
    return FAULTS if WHOLE else random.Random(SEED).sample(FAULTS, 2)


def simulate(package: Path, server: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Play histories against the package in the folder `package`."""
    return subprocess.run(
        [sys.executable, "-m", "world.simulate", *words, "--server", server],
        env={**unkept(), "PYTHONPATH": os.pathsep.join([str(package), str(TESTS)])},
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
        timeout=7000,
    )


def planted(fault: Fault, folder: Path) -> Path:
    """A copy of the installed package with the fault put back."""
    installed = Path(headrace.storage.__file__).parents[1]
    shutil.copytree(installed, folder / "headrace", symlinks=False, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in fault.edits:
        path = folder / "headrace" / file
        source = path.read_text()
        assert source.count(old) == 1, f"{file} no longer has {old!r} once: bring the fault up to date"
        path.write_text(source.replace(old, new))
    return folder


@pytest.mark.parametrize("fault", chosen(), ids=lambda fault: fault.name)
def test_a_fault_that_was_put_back_is_found(fault: Fault, tmp_path: Path, postgres_server: str) -> None:
    history = History(0, fault.store, Setup(("k",), None), 1, fault.acts).to_json()
    unedited = simulate(Path(headrace.storage.__file__).parents[2], postgres_server, "--history", history)
    assert unedited.returncode == 0, unedited.stdout + unedited.stderr
    copy = planted(fault, tmp_path / "copy")
    done = simulate(copy, postgres_server, "--history", history)
    found = done.returncode == 1 and "✗" in done.stdout
    keep(
        Record(
            f"planted fault {fault.name}", "in the source", f"{fault.store}, one history", 1, 0, 0, int(not found), 0, 0
        )
    )
    assert found, f"{fault.name}: the history did not notice\n{done.stdout}{done.stderr}"
    if WHOLE:
        done = simulate(copy, postgres_server, "--store", fault.store, "--seeds", f"1:{MOST + 1}", "--most", "1")
        found = done.returncode == 1 and "✗" in done.stdout
        keep(
            Record(
                f"planted fault {fault.name}", "in the source", f"{fault.store}, seeds", 1, 0, 0, int(not found), 1, 0
            )
        )
        assert found, f"{fault.name}: no history of {MOST} seeds noticed\n{done.stdout}{done.stderr}"
