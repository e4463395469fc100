"""A table of other providers' events: under another name every event would come in once more, and nobody says so."""

from __future__ import annotations

import json

import pytest
from support.polling import rounds
from support.program import Headrace

import headrace as library
from headrace.errors import UsageError

ROWS = "id,v\n" + "".join(f"{number},x{number}\n" for number in range(1, 31))


@pytest.fixture
def loaded(headrace: Headrace) -> Headrace:
    (headrace.folder / "in.csv").write_text(ROWS)
    headrace.load("in.csv", "--table", "ev", "--id", "id", "--provider", "usgs")
    return headrace


@pytest.mark.parametrize("command", ["load", "verify", "profile"])
def test_who_names_no_provider_is_told_whose_events_there_are(loaded: Headrace, command: str) -> None:
    refused = loaded.run(command, "in.csv", "--table", "ev", expect=2).stderr
    assert "the table holds no event of the provider default, but 30 of usgs" in refused
    assert "--provider usgs" in refused
    assert "--scope" in refused
    assert loaded.count("ev") == 30
    assert loaded.load("in.csv", "--table", "ev", "--provider", "usgs")["duplicate_in_store"] == 30


def test_verify_under_a_wrong_name_does_not_ask_to_load_again(loaded: Headrace) -> None:
    told = loaded.run("verify", "in.csv", "--table", "ev", "--provider", "usgss", expect=4).stdout
    assert "no event of the provider usgss, but 30 of usgs" in told
    assert "no event will be written twice" not in told
    found = json.loads(
        loaded.run("verify", "in.csv", "--table", "ev", "--provider", "usgss", "--output", "json", expect=4).stdout
    )
    assert (found["missing"], found["other_providers"]) == (30, {"usgs": 30})
    assert loaded.json("verify", "in.csv", "--table", "ev", "--provider", "usgs")["other_providers"] == {}


def test_another_provider_joins_a_table_when_it_is_named(loaded: Headrace) -> None:
    """Also the one that is called default."""
    for number, name in enumerate(("emsc", "default"), 2):
        assert loaded.load("in.csv", "--table", "ev", "--provider", name)["inserted"] == 30
        assert loaded.count("ev") == 30 * number
    # from then on it has events of its own
    assert loaded.load("in.csv", "--table", "ev")["duplicate_in_store"] == 30
    assert "VERIFIED" in loaded.run("verify", "in.csv", "--table", "ev").stdout


def test_where_all_providers_share_their_events_nobody_is_asked(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text(ROWS)
    headrace.load("in.csv", "--table", "ev", "--id", "id", "--scope", "global", "--provider", "usgs")
    assert headrace.load("in.csv", "--table", "ev")["duplicate_in_store"] == 30
    headrace.run("verify", "in.csv", "--table", "ev")


def test_a_table_that_was_emptied_belongs_to_nobody(loaded: Headrace) -> None:
    """The ledger still tells of the others' events: it is asked, and not believed."""
    loaded.query("DELETE FROM ev")
    assert loaded.load("in.csv", "--table", "ev")["inserted"] == 30


def test_an_engine_and_a_call_from_python_ask_alike(loaded: Headrace) -> None:
    rows = [{"id": 1, "v": "x1"}]
    with library.Engine(to=loaded.url, table="ev") as engine:
        with pytest.raises(UsageError, match="30 of usgs"):
            engine.ingest(rows)
        assert engine.ingest(rows, provider="usgs").duplicate_in_store == 1
        assert engine.ingest(rows, provider="default").inserted == 1
    assert library.load(rows, to=loaded.url, table="ev", provider="default").duplicate_in_store == 1


def test_a_story_is_told_under_the_provider_whose_event_it_is(loaded: Headrace) -> None:
    found = loaded.query("SELECT event_id FROM ev WHERE id = 7")[0][0]
    event = found.hex() if isinstance(found, bytes) else str(found)
    assert "stands in in.csv, row 6" in loaded.run("explain", event, "--table", "ev", "--in", "in.csv").stdout
    nowhere = loaded.run("explain", "00000000-0000-8000-8000-000000000000", "--table", "ev", expect=1).stdout
    assert "no event of the provider default, but 30 of usgs: name the provider with --provider" in nowhere


def test_a_reject_is_replayed_as_its_provider_s(loaded: Headrace) -> None:
    (loaded.folder / "bad.csv").write_text("id,v\nnone,x\n")
    loaded.load("bad.csv", "--table", "ev", "--provider", "default", expect=3)
    assert "1 inserted" in loaded.run("rejects", "replay", "--set", "id=31").stdout
    assert loaded.query("SELECT provider FROM ev WHERE id = 31") == [("default",)]


def test_a_provider_that_was_renamed_is_told_of_and_one_that_joins_is_not(
    headrace: Headrace, caplog: pytest.LogCaptureFixture
) -> None:
    def entry(name: str) -> str:
        return f'[providers.{name}]\npath = "in.csv"\ninterval = "1s"\ntable = "ev"\nid = ["id"]\n'

    (headrace.folder / "in.csv").write_text(ROWS)
    database = f'database = "{headrace.url}"\n'
    with rounds(headrace.folder, database + entry("usgs")) as go:
        assert go(60).counts.inserted == 30
    assert "renamed" not in caplog.text
    with rounds(headrace.folder, database + entry("usgs") + entry("emsc")) as go:
        assert go(600).counts.inserted == 30
    assert "renamed" not in caplog.text
    (headrace.folder / "headrace.toml").write_text(database + entry("quakes"))
    doctor = headrace.run("doctor", "--config", "headrace.toml").stdout
    assert "warning  provider quakes: the table holds no event of the provider quakes, but 30 of" in doctor
    with rounds(headrace.folder, database + entry("quakes")) as go:
        go(6000)
    assert "no event of the provider quakes" in caplog.text
    assert "renamed" in caplog.text
