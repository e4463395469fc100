"""What a round says of what it did, and the real USGS feeds with their revisions through ``headrace run``."""

from __future__ import annotations

import json
from pathlib import Path

from support.feeds import Answer, feeds_server
from support.needs import real_data
from support.polling import rounds
from support.program import Headrace

RULES = """
[[providers.p.alerts]]
name = "once"
where = "mag >= 6"
[[providers.p.alerts]]
name = "each"
where = "mag >= 6"
revisions = true
"""
PROVIDER = '[providers.p]\npath = "p.csv"\nid = ["id"]\nrevisions = "update"\nversion_column = "v"\ninterval = "1s"\n'
USGS = """
[providers.{name}]
url = "{url}/quakes.csv"
table = "{name}"
id = ["id"]
time = "time"
revisions = "{name}"
"""
REVISED = {"nc72915526": "2017-10-29 03:56:02", "nc72915556": "2017-10-29 04:00:03"}


def test_a_round_says_what_was_revised_and_how_many_alerts_that_raised(store_url: str, tmp_path: Path) -> None:
    def polled(rows: str) -> tuple[str, int, int]:
        (tmp_path / "p.csv").write_text(f"id,v,mag\n{rows}")
        told = go(60)
        return told.to_text(), json.loads(told.to_json())["alerts"], told.counts.revised

    with rounds(tmp_path, f'database = "{store_url}"\n{PROVIDER}{RULES}') as go:
        text, alerts, revised = polled("1,1,7.5\n2,1,1.5\n")
        assert ("2 alerts" in text, alerts, revised) == (True, 2, 0)
        # the first is revised and told of anew, the second only now by the rule that asks for it
        text, alerts, revised = polled("1,2,8\n2,2,6.5\n")
        assert ("2 revised; 2 alerts" in text, alerts, revised) == (True, 2, 2)
        text, alerts, revised = polled("2,2,6.5\n1,1,7.5\n1,2,8\n")
        assert ("alerts" in text, alerts, revised) == (False, 0, 1)
    found = Headrace(store_url, tmp_path).query("SELECT rule, revision, payload FROM headrace_alerts")
    told = sorted(
        (rule, bool(revision), json.loads(text)["id"], json.loads(text)["v"]) for rule, revision, text in found
    )
    assert told == [("each", False, 1, 1), ("each", True, 1, 2), ("each", True, 2, 2), ("once", False, 1, 1)]


def version_of(payload: str) -> tuple[int, int]:
    event = json.loads(payload)
    return event["id"], event["v"]


def test_a_round_says_what_to_do_about_a_failure(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,v,mag\n1,1,7\n")
    text = f'database = "{sqlite_url}"\n{PROVIDER}types = {{ mag = "string" }}\n{RULES}'
    with rounds(tmp_path, text) as go:
        line, cure = go().to_text().splitlines()
    assert "'mag >= 6' cannot be evaluated" in line
    assert cure.lstrip().startswith("→ a text is not a number: CAST")


def test_the_usgs_feeds_polled_one_after_the_other_are_revised(headrace: Headrace) -> None:
    data = real_data("usgs")
    with feeds_server() as feeds:
        text = "".join(USGS.format(name=name, url=feeds.url) for name in ("report", "update"))
        (headrace.folder / "headrace.toml").write_text(f'{text}version_column = "updated"\n')
        inserted = 0
        for name in ("all_week.csv", "all_month.csv"):
            feeds.answers["/quakes.csv"] = Answer((data / name).read_bytes())
            done = json.loads(headrace.run("run", "--force", "--output", "json").stdout)
            assert done["outcomes"] == {"loaded": 2}
            inserted += done["inserted"]
    assert (headrace.count("report"), headrace.count("update"), inserted) == (8998, 8998, 2 * 8998)
    some = tuple(REVISED)
    newest = headrace.query(f'SELECT id, updated FROM "update" WHERE id IN {some} ORDER BY id')  # noqa: S608
    assert {key: str(at)[:19] for key, at in newest} == REVISED
    kept = headrace.query("SELECT record, differs FROM headrace_rejects WHERE table_name = 'report'")
    differ = {json.loads(record)["id"]: set(json.loads(differs)) for record, differs in kept}
    assert {key for key, columns in differ.items() if columns == {"updated"}} == set(REVISED)
