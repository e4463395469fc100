"""Without ``--id`` the whole row is the identity. A row that grows is refused: nothing of it is lost as a duplicate."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.polling import rounds
from support.program import Headrace

import headrace as library
from headrace.errors import ContractError
from headrace.partitioning.contract import Contract
from headrace.reading import sampled_blocks


@pytest.fixture
def files(headrace: Headrace) -> Headrace:
    (headrace.folder / "1.csv").write_text("a\nx\n")
    (headrace.folder / "2.csv").write_text("a,b\nx,1\nx,2\n")
    return headrace


def test_a_row_that_has_grown_is_refused_with_its_columns_and_what_to_do(files: Headrace) -> None:
    files.load("1.csv", "--table", "t")
    refused = files.run("load", "2.csv", "--table", "t", expect=2).stderr
    for said in ("2.csv", "grown by b", "--id", "--table", "--select"):
        assert said in refused
    assert files.query("SELECT a FROM t") == [("x",)]
    assert "grown by b" in files.run("verify", "1.csv", "2.csv", "--table", "t", "--ids-only", expect=2).stderr
    # the columns that it had, by name or by choice, are what they were
    assert files.load("2.csv", "--table", "t", "--select", "SELECT a FROM source")["inserted"] == 0
    assert files.load("2.csv", "--table", "t", "--id", "a")["inserted"] == 0
    assert files.load("2.csv", "--table", "other")["inserted"] == 2


def test_any_order_of_inputs_ends_in_a_refusal_that_leaves_what_is_there(files: Headrace) -> None:
    for number, order in enumerate([["1.csv"], ["2.csv"]]):
        first, second = order[0], "2.csv" if order[0] == "1.csv" else "1.csv"
        table = f"t{number}"
        inserted = files.load(first, "--table", table)["inserted"]
        for _ in range(2):
            files.run("load", second, "--table", table, expect=2)
        assert files.count(table) == inserted == files.load(first, "--table", table)["duplicate_in_store"]
        refused = files.run("load", first, second, "--table", f"both{number}", expect=2)
        assert "1.csv: the input lacks b" in refused.stderr
        assert "--id" in refused.stderr


def test_the_ninth_file_may_bring_no_column_to_a_whole_row(files: Headrace) -> None:
    """Eight files are looked into when a load begins; the next is looked into when its turn comes."""
    for number in range(8):
        (files.folder / f"n{number}.csv").write_text(f"a\nx{number}\n")
    (files.folder / "n9.csv").write_text("a,b\nx,1\nx,2\n")
    refused = files.run("load", "n*.csv", "--table", "t", expect=2)
    assert "n9.csv: the row has grown by b" in refused.stderr
    assert files.count("t") == 8


@pytest.mark.parametrize("options", [[], ["--id", "a,b"], ["--id", "a,b", "--mode", "parallel", "--workers", "2"]])
def test_the_ninth_file_may_not_lack_a_column_of_the_identity(files: Headrace, options: list[str]) -> None:
    """Its rows would get the ID of a null, and be one event more at each turn."""
    for number in range(8):
        (files.folder / f"n{number}.csv").write_text(f"a,b\nx,{number}\n")
    (files.folder / "n9.csv").write_text("a\nx\n")
    refused = files.run("load", "n*.csv", "--table", "t", *options, expect=2)
    assert "n9.csv: the input lacks b" in refused.stderr
    assert files.query("SELECT count(*) FROM t WHERE b IS NULL") == [(0,)]


def test_columns_in_another_order_are_the_same_row(files: Headrace) -> None:
    (files.folder / "turned.csv").write_text("b,a\n1,x\n2,x\n3,x\n")
    files.load("2.csv", "--table", "t")
    report = files.load("turned.csv", "--table", "t")
    assert (report["inserted"], report["duplicate_in_store"]) == (1, 2)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "dicts"])
def test_every_form_of_input_is_refused_alike(files: Headrace, form: str) -> None:
    narrow, wide = [{"a": "x"}], [{"a": "x", "b": 1}, {"a": "x", "b": 2}]
    if form == "dicts":
        with library.Engine(to=files.url, table="t") as engine:
            assert engine.ingest(narrow).inserted == 1
            with pytest.raises(ContractError, match="grown by b"):
                engine.ingest(wide)
            assert engine.ingest(narrow).duplicate_in_store == 1
        return
    written = [write(files.folder, f"{name}.{form}", content) for name, content in (("1", narrow), ("2", wide))]
    files.load(written[0], "--table", "t")
    assert "grown by b" in files.run("load", written[1], "--table", "t", expect=2).stderr


def write(folder: Path, name: str, content: list[dict[str, object]]) -> str:
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(content), folder / name)
    else:
        (folder / name).write_text("".join(json.dumps(one) + "\n" for one in content))
    return name


def test_a_late_member_is_a_reject_that_no_replay_makes_a_duplicate(
    files: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_blocks, "_SAMPLE_ROWS", 10)
    monkeypatch.setattr(sampled_blocks, "_SAMPLE_BYTES", 1 << 20)
    texts = [f"{number} {'x' * (64 << 10)}" for number in range(160)]
    lines = [{"a": text} for text in texts] + [{"a": texts[7], "b": 1}]
    report = library.load(files.folder / write(files.folder, "late.jsonl", lines), to=files.url, table="t")
    assert (report.inserted, report.rejected) == (160, 1)
    refused = files.run("rejects", "replay", expect=2)
    assert "grown by b" in refused.stderr
    assert len(files.json("rejects", "list")["rejects"]) == 1
    # without the member it is a row like the others
    assert "1 duplicate" in files.run("rejects", "replay", "--set", "b=").stdout


def test_columns_of_an_enrichment_are_no_part_of_the_row(files: Headrace) -> None:
    options = {"to": files.url, "table": "t", "enrich": "support.user_functions:with_length"}
    library.load([{"a": "x"}], **options)
    report = library.load([{"a": "x"}, {"a": "yy"}], **options)
    assert (report.inserted, report.duplicate_in_store) == (1, 1)
    with pytest.raises(ContractError, match="grown by length"):
        library.load([{"a": "x", "length": 1}], to=files.url, table="t")


def test_a_poll_that_has_grown_fails_and_says_so(files: Headrace) -> None:
    provider = '[providers.p]\npath = "feed.csv"\ninterval = "1s"\ntable = "t"\n'
    (files.folder / "feed.csv").write_text("a\nx\n")
    with rounds(files.folder, f'database = "{files.url}"\n{provider}') as go:
        assert go(60).counts.inserted == 1
        (files.folder / "feed.csv").write_text("a,b\nx,1\nx,2\n")
        (poll,) = go(60).polls
    assert poll.outcome == "failed"
    assert "grown by b" in (poll.error or "")


def test_a_contract_of_an_older_release_is_a_whole_row_where_the_table_has_no_other_column(files: Headrace) -> None:
    files.load("1.csv", "--table", "t")
    (text,) = files.query("SELECT contract FROM headrace_contracts")[0]
    older = {name: value for name, value in json.loads(text).items() if name != "whole_row"}
    assert Contract.from_json(json.dumps(older)).whole_row is None
    files.query(f"UPDATE headrace_contracts SET contract = '{json.dumps(older)}'")  # noqa: S608 - a text made here
    assert "grown by b" in files.run("load", "2.csv", "--table", "t", expect=2).stderr
    # whoever named the column then says it again
    assert files.load("2.csv", "--table", "t", "--id", "a")["duplicate_in_store"] == 1
    assert files.load("1.csv", "--table", "t")["duplicate_in_store"] == 1


def test_who_names_the_identity_may_add_columns(files: Headrace) -> None:
    files.load("1.csv", "--table", "t", "--id", "a")
    assert json.loads(files.query("SELECT contract FROM headrace_contracts")[0][0])["whole_row"] is False
    report = files.load("2.csv", "--table", "t")
    assert (report["inserted"], report["duplicate_in_store"], report["duplicate_in_input"]) == (0, 1, 1)
