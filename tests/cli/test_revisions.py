"""What a user can ask for about revisions, what is refused, and what becomes of the kept ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from support.program import Headrace

import headrace as package
from headrace.cli import rejects
from headrace.delivery.dispatcher import message
from headrace.errors import ConfigurationError, UsageError, WorkerError
from headrace.storage import open_store
from headrace.storage.rejects import StoredReject

FIRST = "id,updated,mag,place\n1,2024-01-01T00:00:00Z,1.5,here\n2,2024-01-01T00:00:00Z,2.5,there\n"
LATER = (
    "id,updated,mag,place\n"
    "2,2024-01-01T00:00:00Z,2.5,there\n"
    "1,2024-01-02T00:00:00Z,1.75,here\n"
    '2,2024-01-01T00:00:00Z,2.5,"over\nthere"\n'
    "2,2023-01-01T00:00:00Z,9.5,there\n"
)
UPDATE: Any = {"revisions": "update", "version_column": "updated"}
UPDATE_BY_V: Any = {"revisions": "update", "version_column": "v"}
TABLE = "SELECT id, mag, place FROM t ORDER BY id"


@pytest.fixture
def feeds(headrace: Headrace) -> Headrace:
    (headrace.folder / "first.csv").write_text(FIRST)
    (headrace.folder / "later.csv").write_text(LATER)
    load(headrace, "first.csv", id=["id"])
    return headrace


def load(headrace: Headrace, file: str, **named: Any) -> package.Report:
    return package.load(headrace.folder / file, to=headrace.url, table="t", mode="sequential", **named)


def kept(headrace: Headrace) -> list[StoredReject]:
    with open_store(headrace.url) as store:
        return store.rejects.find()


def again(headrace: Headrace, *numbers: int, changes: Sequence[str] = (), **named: Any) -> int:
    """``headrace rejects replay``, in this process."""
    told = {"to": headrace.url, "output": "json", "progress": "none", **named}
    return rejects.replay(numbers, None, changes, None, told)


def test_a_reported_revision_has_its_line_its_text_and_what_differs(feeds: Headrace) -> None:
    report = load(feeds, "later.csv", revisions="report")
    assert (report.revised, report.rejected, report.duplicate_in_store, report.exit_code) == (3, 0, 2, 0)
    assert "revised" in report.to_text()
    assert feeds.query(TABLE) == [(1, 1.5, "here"), (2, 2.5, "there")]
    magnitude, place, both = (one.reject for one in kept(feeds))
    assert [one.line for one in (magnitude, place, both)] == [3, 4, 6]
    assert {one.stage for one in (magnitude, place, both)} == {"revision"}
    assert json.loads(str(magnitude.differs))["mag"] == ["1.5", "1.75"]
    assert json.loads(str(place.differs)) == {"place": ["there", "over\nthere"]}
    assert (place.column, place.raw) == ("place", '2,2024-01-01T00:00:00Z,2.5,"over\nthere"')
    assert both.column is None
    assert "mag was '2.5', is '9.5'" in both.reason
    shown = feeds.run("rejects", "show", kept(feeds)[1].reject_id).stdout
    assert 'place: "there" → "over' in shown


def test_an_update_takes_the_newest_and_keeps_what_no_version_orders(feeds: Headrace) -> None:
    assert load(feeds, "later.csv", **UPDATE).revised == 3
    assert feeds.query(TABLE) == [(1, 1.75, "here"), (2, 2.5, "there")]
    (tie,) = kept(feeds)
    assert tie.reject.reason.startswith("revision of the same version: place was 'there'")
    feeds.run("verify", "first.csv", "later.csv", "--table", "t")
    assert load(feeds, "later.csv", **UPDATE).revised == 2


def test_a_revision_is_replayed_as_an_update_or_not_at_all(feeds: Headrace, capsys: pytest.CaptureFixture[str]) -> None:
    load(feeds, "later.csv", revisions="report")
    magnitude, place, old = (one.reject_id for one in kept(feeds))
    with pytest.raises(UsageError, match=f"reject {magnitude} is a revision") as refused:
        again(feeds, magnitude)
    assert "--revisions update" in str(refused.value.hint)
    assert again(feeds) == 0
    assert json.loads(capsys.readouterr().out)["revisions_left"] == 3
    again(feeds, magnitude, old, **UPDATE)
    assert feeds.query(TABLE) == [(1, 1.75, "here"), (2, 2.5, "there")]
    again(feeds, place, **UPDATE)
    (tie,) = kept(feeds)
    assert (tie.reject.line, tie.reject_id > place) == (4, True)
    again(feeds, tie.reject_id, changes=["updated=2024-01-03T00:00:00Z"], **UPDATE)
    assert feeds.query(TABLE) == [(1, 1.75, "here"), (2, 2.5, "over\nthere")]
    assert kept(feeds) == []


def test_what_cannot_be_meant_is_refused_and_changes_nothing(feeds: Headrace) -> None:
    def refused(file: str = "later.csv", table: str = "t", **named: Any) -> str:
        with pytest.raises(ConfigurationError) as error:
            package.load(feeds.folder / file, to=feeds.url, table=table, **named)
        return str(error.value)

    assert "name it with --version-column" in feeds.run("load", "x.csv", "--revisions", "update", expect=2).stderr
    assert "--revisions update" in refused(version_column="updated")
    assert "no column 'udpated'" in refused(revisions="update", version_column="udpated")
    assert "is an identity column" in refused(revisions="update", version_column="id")
    (feeds.folder / "flags.csv").write_text("id,good\n1,true\n")
    assert "of type bool" in refused("flags.csv", "flags", id=["id"], revisions="update", version_column="good")
    assert feeds.query_one_if_table("flags", "SELECT count(*) FROM flags") is None
    assert (feeds.count("t"), feeds.count("headrace_runs")) == (2, 1)
    assert "cannot be 'merge'" in refused(revisions="merge")


def test_an_engine_updates_from_batch_to_batch(store_url: str, headrace: Headrace) -> None:
    named: Any = {"to": store_url, "table": "t", "id": ["id"], "mode": "sequential"}
    with package.Engine(**named, revisions="update", version_column="v") as engine:
        reports = [engine.ingest([{"id": 1, "v": v, "x": f"x{v}"}]) for v in (2, 1, 3, 3)]
    assert [report.revised for report in reports] == [0, 1, 1, 0]
    assert [report.inserted for report in reports] == [1, 0, 0, 0]
    assert headrace.query("SELECT id, v, x FROM t") == [(1, 3, "x3")]


def test_the_newest_row_replaces_the_whole_row(store_url: str, headrace: Headrace) -> None:
    named: Any = {"to": store_url, "table": "t", "id": ["id"], "mode": "sequential"}
    wide, narrow = [{"id": 1, "v": 1, "x": "old", "y": "old"}], [{"id": 1, "v": 2, "x": "new"}]
    package.load(wide, **named, revisions="update", version_column="v")
    package.load(narrow, **named, revisions="update", version_column="v")
    assert headrace.query("SELECT x, y FROM t") == [("new", None)]
    # a column that an input does not have is no difference
    assert package.load([{"id": 1, "v": 2, "y": None}], **named, revisions="report").revised == 0
    assert package.load([{"id": 1, "v": 2}], **named, revisions="report").revised == 0


def test_a_newer_row_of_an_event_whose_first_was_rejected_takes_its_place(store_url: str, headrace: Headrace) -> None:
    def refuse_ones(events: pa.RecordBatch) -> pa.RecordBatch:
        if 1 in events["x"].to_pylist():
            raise ValueError("a one")
        return events.append_column("y", pa.array([x * 10 for x in events["x"].to_pylist()]))

    rows = [{"id": 1, "v": 1, "x": 1}, {"id": 2, "v": 1, "x": 2}, {"id": 1, "v": 2, "x": 3}, {"id": 2, "v": 2, "x": 4}]
    named: Any = {"to": store_url, "table": "t", "id": ["id"], "mode": "sequential", "enrich": refuse_ones}
    report = package.load(rows, **named, on_error="reject", revisions="update", version_column="v")
    assert (report.inserted, report.rejected, report.duplicate_in_input, report.revised) == (2, 1, 1, 1)
    # the revised row is enriched anew, and the row behind the rejected one is the event's first
    assert headrace.query("SELECT id, x, y FROM t ORDER BY id") == [(1, 3, 30), (2, 4, 40)]
    ((stage, reason),) = headrace.query("SELECT stage, reason FROM headrace_rejects")
    assert (stage, reason[-5:]) == ("prepare", "a one")
    with pytest.raises(WorkerError, match="a one"):
        package.load([{"id": 2, "v": 3, "x": 1}], **named, revisions="update", version_column="v")


def test_a_run_under_another_policy_is_another_run(feeds: Headrace) -> None:
    # the first run is not done, so that the same job would go on with it, and skip what has a receipt
    run = load(feeds, "later.csv").run_id
    feeds.query(f"UPDATE headrace_runs SET status = 'failed' WHERE run_id = '{run}'")  # noqa: S608 - our own
    report = load(feeds, "later.csv", **UPDATE)
    assert (report.resumed, report.revised) == (False, 3)
    assert load(feeds, "later.csv").resumed


def test_a_rule_that_asks_for_revisions_sees_enriched_rows_and_keeps_aside_those_it_fails_on(
    store_url: str, headrace: Headrace
) -> None:
    def add_y(events: pa.RecordBatch) -> pa.RecordBatch:
        return events.append_column("y", pa.array([x * 10 for x in events["x"].to_pylist()]))

    def strong(events: pa.RecordBatch) -> list[bool]:
        if 13 in events["x"].to_pylist():
            raise ValueError("a thirteen")
        return [y >= 50 for y in events["y"].to_pylist()]

    def load_rows(*rows: tuple[int, int, int]) -> package.Report:
        listed = [dict(zip(("id", "v", "x"), row, strict=True)) for row in rows]
        return package.load(listed, to=store_url, table="t", id=["id"], mode="sequential", **how, **UPDATE_BY_V)

    how: Any = {
        "enrich": add_y,
        "on_error": "reject",
        "alerts": [package.AlertRule("strong", function=strong, revisions=True)],
    }
    assert load_rows((1, 1, 1), (2, 1, 7)).alerts == 1
    report = load_rows((1, 2, 6), (2, 2, 13), (1, 3, 9), (2, 3, 2))
    # the third version of 1 takes over from the second at once: both are told of
    assert (report.alerts, report.revised, report.rejected) == (2, 4, 0)
    assert headrace.query("SELECT id, x, y FROM t ORDER BY id") == [(1, 9, 90), (2, 2, 20)]
    ((stage, reason),) = headrace.query("SELECT stage, reason FROM headrace_rejects")
    assert (stage, "a thirteen" in reason) == ("revision", True)
    raised = headrace.query("SELECT payload, revision FROM headrace_alerts ORDER BY alert_id")
    told = [(json.loads(text)["id"], json.loads(text)["y"], bool(revision)) for text, revision in raised]
    assert (told[0], sorted(told[1:])) == ((2, 70, False), [(1, 60, True), (1, 90, True)])
    assert load_rows((1, 2, 6), (1, 3, 9)).alerts == 0
    with open_store(store_url) as store:
        sent = [json.loads(message(one)) for one in store.outbox.find()]
    assert [one["revision"] for one in sent] == [False, True, True]
    assert len({one["key"] for one in sent}) == 3


def test_an_older_version_that_comes_late_is_not_told_of(sqlite_url: str, headrace: Headrace) -> None:
    rows = [{"id": 1, "v": v, "x": x} for v, x in ((2, 0), (4, 1), (3, 1), (4, 1), (5, 0), (1, 1))]
    rule = package.AlertRule("one", where="x = 1", revisions=True)
    package.load(rows, to=sqlite_url, table="t", id=["id"], mode="sequential", alerts=[rule], **UPDATE_BY_V)
    with open_store(sqlite_url) as store:
        assert [json.loads(one.payload)["v"] for one in store.outbox.find()] == [4]


def test_a_replayed_revision_is_told_of_where_a_rule_asks(feeds: Headrace) -> None:
    load(feeds, "later.csv", revisions="report")
    magnitude = kept(feeds)[0].reject_id
    named: Any = {"alert": ["any=true"], "alert_revisions": ["any"], **UPDATE}
    assert again(feeds, magnitude, **named) == 0
    ((payload,),) = feeds.query("SELECT payload FROM headrace_alerts")
    assert json.loads(payload)["mag"] == 1.75


def test_the_command_line_names_the_rules_that_ask(feeds: Headrace) -> None:
    words = ("later.csv", "--table", "t", "--revisions", "update", "--version-column", "updated")
    rules = ("--alert", "each=mag > 1", "--alert", "once=mag > 1", "--alert-revisions", "each")
    refused = feeds.run("load", *words, "--alert-revisions", "each", expect=2)
    assert "--alert-revisions each: there is no such rule" in refused.stderr
    assert feeds.load(*words, *rules)["alerts"] == 1
    assert feeds.query("SELECT rule FROM headrace_alerts") == [("each",)]
    assert "(a newer version)" in feeds.run("alerts", "list").stdout
