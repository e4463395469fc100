"""`explain`: who brought an event, who repeated it, and why one is not in the table."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.program import Headrace

import headrace as package
from headrace.checking.explain import Explanation, explain
from headrace.options.load import LoadOptions, options_of
from headrace.partitioning.identity import id_text
from headrace.reading.inputs import Input, open_inputs
from headrace.storage import open_store

AT = "2024-05-01T00:00:{:02}Z"


class Desk:
    """A database, a folder of CSV files, and the questions about both."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)

    def write(self, name: str, rows: Sequence[int], mag: str = "1.5") -> Path:
        path = self.folder / name
        path.write_text("n,at,mag\n" + "".join(f"{n},{AT.format(n)},{mag}\n" for n in rows))
        return path

    def load(self, *paths: Path, **named: Any) -> package.Report:
        wanted = {"to": self.url, "table": "t", "id": ["n", "at"], "time": "at", "types": {"mag": "float"}, **named}
        return package.load(*paths, **wanted)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

    def id(self, n: int, table: str = "t") -> str:
        ((found,),) = self.sql(f"SELECT event_id FROM {table} WHERE n = {n}")  # noqa: S608 - the test's own
        return id_text(found) if isinstance(found, bytes) else str(found)

    def story(self, event_id: str, *inputs: Path, tables: Sequence[str] = ("t",)) -> Explanation:
        options = options_of({"to": self.url})

        def given(_: str) -> tuple[Sequence[Input], LoadOptions]:
            return open_inputs(list(inputs), options.read, None), options

        with open_store(self.url) as store:
            (told,) = explain(store, event_id, tables, options, given if inputs else None)
        return told


@pytest.fixture
def desk(store_url: str, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(store_url, tmp_path)
    yield made
    made.engine.dispose()


def steps(told: Explanation) -> list[tuple[str, int | None, list[str]]]:
    """The story's rows: file, line, and what each run did with it."""
    return [
        (Path(str(one["source"])).name, one["line"], [reading["what"] for reading in one["readings"]])
        for one in told.to_dict()["occurrences"]
    ]


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_the_story_names_who_brought_it_and_everyone_who_repeated_it(desk: Desk, mode: str) -> None:
    first, second, never = (
        desk.write("first.csv", [1, 2, 7, 3, 7]),
        desk.write("second.csv", [5, 7]),
        desk.write("never.csv", [7, 8]),
    )
    how = {} if mode == "sequential" else {"mode": "parallel", "workers": 2, "partitions": 2}
    desk.load(first, **how)
    desk.load(second, **how)
    desk.load(first, **how)
    told = desk.story(desk.id(7), first, second, never)
    assert steps(told) == [
        ("first.csv", 4, ["brought it", "repeated it"]),
        ("first.csv", 6, ["repeated it", "repeated it"]),
        ("second.csv", 3, ["repeated it"]),
        ("never.csv", 2, []),
    ]
    text = told.to_text()
    assert "no run has read this input" in text
    runs = desk.sql("SELECT run_id FROM headrace_runs")
    assert all(run[:8] in text for (run,) in runs)


def test_the_story_names_the_alerts_that_the_event_raised(desk: Desk) -> None:
    strong = package.AlertRule("even", where="n % 2 = 0")
    desk.load(desk.write("a.csv", range(10)), alerts=[strong])
    told = desk.story(desk.id(4))
    assert [(one.rule, one.state) for one in told.alerts] == [("even", "pending")]
    assert "by rule even at" in told.to_text()
    assert desk.story(desk.id(5)).alerts == []
    gone = desk.id(6)
    desk.sql("DELETE FROM t WHERE n = 6")
    assert [one.rule for one in desk.story(gone).alerts] == ["even"]


def test_without_the_inputs_it_names_the_receipts_whose_duplicates_may_include_it(desk: Desk) -> None:
    first, second, fresh = desk.write("a.csv", range(10)), desk.write("b.csv", [3, 50]), desk.write("c.csv", [51])
    for path in (first, second, fresh):
        desk.load(path)
    told = desk.story(desk.id(3))
    assert [one.receipt.address.source for one in told.suspects if one.receipt] == [str(second)]
    assert "may have been repeated by" in told.to_text()
    assert desk.story(desk.id(51)).suspects == []


def test_why_not_it_was_loaded_and_deleted_since(desk: Desk) -> None:
    path = desk.write("a.csv", range(10))
    desk.load(path)
    gone = desk.id(4)
    desk.sql("DELETE FROM t WHERE n = 4")
    told = desk.story(gone, path)
    assert any("deleted since" in one for one in told.why)
    assert "its event time would be 2024-05-01T00:00:04.000+00:00" in told.why
    assert any("no trace" in one for one in desk.story(gone).why)


def test_why_not_it_is_a_reject(desk: Desk) -> None:
    desk.load(desk.write("a.csv", range(10)))
    bad = desk.write("b.csv", [20, 21], mag="strong")
    report = desk.load(bad)
    assert report.rejected == 2
    # what its ID would be is told by a table of its own
    desk.load(desk.write("c.csv", [21]), table="u")
    told = desk.story(desk.id(21, "u"))
    (kept,) = told.rejects
    assert (kept.reject.line, kept.reject.column) == (3, "mag")
    assert any(f"kept as reject {kept.reject_id}" in one and "line 3" in one for one in told.why)
    assert "it is in the table u" in told.why


def test_why_not_its_input_was_never_loaded_or_not_to_the_end(desk: Desk) -> None:
    desk.load(desk.write("a.csv", range(10)))
    late = desk.write("late.csv", range(20, 60))
    desk.load(late, table="u")
    told = desk.story(desk.id(55, "u"), late)
    assert "its input was never loaded into this table" in told.why
    desk.load(late, chunk_rows=10)
    lost = desk.id(55)
    # as a run leaves it that was killed before its last chunk
    desk.sql("DELETE FROM t WHERE n >= 50")
    desk.sql("DELETE FROM headrace_receipts WHERE first_row = 30 AND table_name = 't'")
    of_the_run = "SELECT run_id FROM headrace_receipts WHERE first_row = 20"
    desk.sql(f"UPDATE headrace_runs SET status = 'interrupted' WHERE run_id IN ({of_the_run})")  # noqa: S608
    told = desk.story(lost, late)
    assert any("not loaded to the end" in one and "interrupted" in one for one in told.why)
    assert steps(told) == [("late.csv", 37, ["not reached"])]


def test_why_not_it_is_no_id_of_ours(desk: Desk) -> None:
    desk.load(desk.write("a.csv", range(3)))
    assert any("not an ID of Headrace" in one for one in desk.story(str(uuid.uuid4())).why)


def test_the_command_line_tells_the_story_and_fails_for_an_event_that_is_not_there(desk: Desk) -> None:
    path = desk.write("a.csv", range(3))
    desk.load(path)
    headrace = Headrace(desk.url, desk.folder)
    event = desk.id(2)
    told = headrace.json("explain", event, "--in", path)
    assert told["occurrences"][0]["line"] == 4
    desk.sql("DELETE FROM t WHERE n = 2")
    failed = headrace.run("explain", event, "--in", path, expect=1)
    assert "deleted since" in failed.stdout
    assert "no event" in failed.stderr
