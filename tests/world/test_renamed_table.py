"""A table that was renamed away leaves its name to a new one, whatever its indexes are called."""

from __future__ import annotations

import pytest
from support.program import Headrace

ROWS = "k,at\n1,2024-01-01T00:00:00Z\n2,2024-01-02T00:00:00Z\n"


@pytest.mark.parametrize("times", [1, 3])
def test_a_table_is_made_again_where_the_old_one_was_put_aside(headrace: Headrace, times: int) -> None:
    (headrace.folder / "f.csv").write_text(ROWS)
    words = ("f.csv", "--table", "ev", "--id", "k", "--time", "at", "--no-resume")
    assert headrace.load(*words)["inserted"] == 2
    for number in range(times):
        headrace.query(f"ALTER TABLE ev RENAME TO ev_{number}")
        assert headrace.load(*words)["inserted"] == 2
    assert headrace.count("ev") == 2


def test_the_index_of_another_table_is_no_obstacle(headrace: Headrace) -> None:
    (headrace.folder / "f.csv").write_text(ROWS)
    headrace.query("CREATE TABLE other (at TEXT)")
    headrace.query("CREATE INDEX ix_ev_at ON other (at)")
    assert headrace.load("f.csv", "--table", "ev", "--id", "k", "--time", "at")["inserted"] == 2


def test_a_long_name_that_is_taken_is_shortened(headrace: Headrace) -> None:
    table, column = "t" * 40, "c" * 40
    (headrace.folder / "f.csv").write_text(ROWS.replace("at\n", f"{column}\n"))
    words = ("f.csv", "--table", table, "--id", "k", "--time", column, "--no-resume")
    headrace.load(*words)
    headrace.query(f"ALTER TABLE {table} RENAME TO aside")
    assert headrace.load(*words)["inserted"] == 2
