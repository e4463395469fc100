"""Sources with names of any length: a receipt's key is bounded, no two share one, the whole name is shown."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from support.program import Headrace

import headrace as library
from headrace.storage.sql.ledger_rows import LONGEST_KEY, bounded

LONG = "\u6c34".join(secrets.token_hex(100) for _ in range(16))  # no database can press it small


@pytest.mark.parametrize("length", [LONGEST_KEY - 1, LONGEST_KEY, LONGEST_KEY + 1, 3_000])
def test_no_source_shares_the_key_of_another(length: int) -> None:
    name = LONG[:length]
    others = {name, f"{name}2", f"{name}3", bounded(f"{name}2"), bounded(bounded(f"{name}2")), f"{name}2"[1:]}
    assert len({bounded(one) for one in others}) == len(others)
    assert all(len(bounded(one).encode()) < 2_000 for one in others)


def deep(folder: Path) -> Path:
    made = folder.joinpath(*(secrets.token_hex(100) for _ in range(15)))
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_files_far_down_are_loaded_resumed_and_shown(headrace: Headrace, tmp_path: Path, mode: str) -> None:
    folder = deep(tmp_path)
    for name in ("a", "b"):
        (folder / f"{name}.csv").write_text(f"k\n{name}1\n{name}2\n")
    words = ("--table", "ev", "--mode", mode, "--workers", 2)
    assert headrace.load(folder, *words)["inserted"] == 4
    assert headrace.load(folder, *words)["duplicate_in_store"] == 4
    (event,) = headrace.query("SELECT event_id FROM ev WHERE k = 'b2'")[0]
    event_id = event.hex() if isinstance(event, bytes) else str(event)
    found = headrace.run("explain", event_id)
    assert str(folder / "b.csv") in found.stdout or mode == "parallel"


def test_a_stopped_load_of_a_long_name_is_resumed_by_its_receipts(headrace: Headrace, tmp_path: Path) -> None:
    file = deep(tmp_path) / "a.csv"
    file.write_text("k\n" + "".join(f"{n}\n" for n in range(3_000)))

    def load() -> library.Report:
        return library.load(str(file), to=headrace.url, table="ev", id=["k"], chunk_rows=500)

    load()
    headrace.query("UPDATE headrace_runs SET status = 'failed'")
    again = load()
    assert (again.inserted, again.chunks_skipped) == (3_000, again.chunks), "each receipt was found"
