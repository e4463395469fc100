"""The contract, stored with the table: a run that differs is refused with both sides, and types stay pinned."""

from __future__ import annotations

import pytest
from support.program import Headrace

ROWS = "id,brightness,at\n1,313,2020-01-01T00:00:00Z\n2,314,2020-01-02T00:00:00Z\n"
FLOATS = "id,brightness,at\n1,313.0,2020-01-01T00:00:00Z\n2,314.0,2020-01-02T00:00:00Z\n3,305.41,2020-01-02T00:00:00Z\n"


@pytest.fixture
def loaded(headrace: Headrace) -> Headrace:
    (headrace.folder / "fires.csv").write_text(ROWS)
    headrace.load("fires.csv", "--id", "id,at", "--time", "at")
    return headrace


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        (["--id", "id"], ["id:integer", "at:timestamp"]),
        (["--id", "id,at,brightness"], ["brightness:integer"]),
        (["--time", "id"], ["at"]),
        (["--hash", "blake2b"], ["xxh3_128", "blake2b"]),
        (["--scope", "global"], ["provider", "global"]),
        (["--timezone", "Europe/Paris"], ["UTC", "Europe/Paris"]),
        (["--type", "id=string"], ["string", "integer"]),
    ],
)
def test_a_run_with_another_contract_is_refused_with_both_sides(
    loaded: Headrace, options: list[str], sides: list[str]
) -> None:
    refused = loaded.run("load", "fires.csv", *options, expect=2)
    for side in sides:
        assert side in refused.stderr
    assert "hint" in refused.stderr
    assert not refused.stdout
    assert loaded.count("headrace_runs") == 1
    assert loaded.count("fires") == 2


def test_identity_columns_may_be_named_one_by_one(loaded: Headrace) -> None:
    """The last one alone would be another contract."""
    assert loaded.load("fires.csv", "--id", "id", "--id", "at", "--time", "at")["duplicate_in_store"] == 2


def test_a_later_load_uses_the_stored_contract(loaded: Headrace) -> None:
    assert loaded.load("fires.csv")["duplicate_in_store"] == 2
    assert loaded.load("fires.csv", "--id", "id,at", "--time", "at")["duplicate_in_store"] == 2


def test_integers_and_floats_give_the_same_ids(headrace: Headrace) -> None:
    (headrace.folder / "floats.csv").write_text(FLOATS)
    (headrace.folder / "integers.csv").write_text(ROWS)
    assert headrace.load("floats.csv", "--table", "fires")["inserted"] == 3
    assert headrace.load("integers.csv", "--table", "fires")["duplicate_in_store"] == 2


def test_a_fraction_where_integers_are_pinned_is_a_reject_that_says_so(headrace: Headrace) -> None:
    (headrace.folder / "floats.csv").write_text(FLOATS)
    (headrace.folder / "integers.csv").write_text(ROWS)
    assert headrace.load("integers.csv", "--table", "fires")["inserted"] == 2
    report = headrace.load("floats.csv", "--table", "fires", expect=3)
    assert (report["duplicate_in_store"], report["rejected"]) == (2, 1)
    (reject,) = headrace.json("rejects", "list")["rejects"]
    assert reject["reject"]["column"] == "brightness"
    assert "305.41" in reject["reject"]["reason"]


def test_reserved_names_are_refused_with_a_cure_that_works(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text("event_id,v\n1,2\n")
    refused = headrace.run("load", "in.csv", expect=2)
    cure = refused.stderr.split("--select '")[1].split("'")[0]
    assert headrace.load("in.csv", "--select", cure)["inserted"] == 1


def test_a_new_column_is_added_and_a_missing_one_is_null(loaded: Headrace) -> None:
    (loaded.folder / "more.csv").write_text("id,at,frp\n9,2020-01-09T00:00:00Z,1.5\n")
    assert loaded.load("more.csv", "--table", "fires")["inserted"] == 1
    assert loaded.query("SELECT id, brightness, frp FROM fires ORDER BY id") == [
        (1, 313, None),
        (2, 314, None),
        (9, None, 1.5),
    ]
    (loaded.folder / "less.csv").write_text("id,brightness\n9,1\n")
    refused = loaded.run("load", "less.csv", "--table", "fires", expect=2).stderr
    assert "less.csv: the input lacks at, " in refused


def test_a_keyed_hash_needs_its_key(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    (headrace.folder / "in.csv").write_text(ROWS)
    monkeypatch.setenv("HEADRACE_HASH_KEY", "first")
    headrace.load("in.csv", "--hash", "blake2b")
    assert headrace.load("in.csv")["inserted"] == 0
    monkeypatch.setenv("HEADRACE_HASH_KEY", "second-canary")
    assert "canary" not in headrace.run("load", "in.csv", expect=2).stderr
    monkeypatch.delenv("HEADRACE_HASH_KEY")
    headrace.run("load", "in.csv", expect=2)


def test_the_same_key_of_two_providers_is_two_events_unless_the_scope_is_global(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text(ROWS)
    for table, scope, second in (("own", "provider", 2), ("shared", "global", 0)):
        headrace.load("in.csv", "--table", table, "--id", "id", "--scope", scope, "--provider", "a")
        report = headrace.load("in.csv", "--table", table, "--provider", "b")
        assert report["inserted"] == second, scope


def test_the_contract_pins_its_types_though_the_table_is_gone(loaded: Headrace) -> None:
    before = loaded.query("SELECT event_id FROM fires ORDER BY event_id")
    loaded.query("DROP TABLE fires")
    (loaded.folder / "text.csv").write_text(ROWS.replace("\n1,", "\n1.0,").replace("\n2,", "\n2e0,"))
    assert loaded.load("text.csv", "--table", "fires")["inserted"] == 2
    assert loaded.query("SELECT event_id FROM fires ORDER BY event_id") == before
