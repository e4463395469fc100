"""What cannot be loaded is kept, with where and why, and the rest is loaded; replayed, it keeps its identity."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.program import Headrace

BAD_CSV = (
    b"id,lat,at,note\n"
    b"1,1.5,2020-01-01T00:00:00Z,fine\n"
    b"2,nan,2020-01-01T00:00:00Z,nan in the identity\n"
    b"3,2.5,,no time\n"
    b"4,x,2020-01-01T00:00:00Z,no number\n"
    b"5,1.5,2020-01-01T00:00:00Z\n"
    b"6,1.5,2020-01-01T00:00:00Z,one,more\n"
    b"7,1.5,2020-01-01T00:00:00Z,nul\x00here\n"
    b"8,1.5,2020-01-01T00:00:00Z,\xff\xfe\n"
    b'9,1.5,2020-01-01T00:00:00Z,"two\nlines"\n'
    b'10,bad,2020-01-01T00:00:00Z,"after, two lines"\n'
    b"11,1.5,2020-01-01T00:00:00Z,last\n"
)
OPTIONS = ("--id", "id,lat,at", "--time", "at", "--type", "lat=float", "--type", "at=timestamp", "--type", "id=integer")
# line, column, a part of the reason, the raw text's beginning
KEPT_CSV = [
    (3, "lat", "NaN", "2,nan"),
    (4, "at", "no event time", "3,2.5"),
    (5, "lat", "'x' is not a number", "4,x"),
    (6, None, "4 fields", "5,1.5"),
    (7, None, "4 fields", "6,1.5"),
    (8, "note", "NUL", "7,1.5"),
    (9, None, "UTF-8", "8,1.5"),
    (12, "lat", "'bad' is not a number", "10,bad"),
]
BAD_LINES = (
    b'{"id":1,"lat":1.5,"at":"2020-01-01T00:00:00Z"}\n{"id":2,"lat":\n[1]\n\n'
    b'{"id":3,"lat":"x","at":"2020-01-01T00:00:00Z"}\n{"id":4,"lat":2.5,"at":null}\n'
    b'{"id":5,"lat":2.5,"at":"2020-01-01T00:00:01Z"}\n{"id":6,"lat":2.5,"at":"2020-\xff"}\n'
)
KEPT_LINES = [
    (2, None, "not a JSON object", '{"id":2'),
    (3, None, "not a JSON object", "[1]"),
    (5, "lat", "'x' is not a number", '{"id":3'),
    (6, "at", "no event time", '{"id":4'),
    (8, None, "UTF-8", '{"id":6'),
]


def kept(headrace: Headrace) -> list[dict[str, object]]:
    found = headrace.json("rejects", "list")["rejects"]
    return sorted((one["reject"] | {"reject_id": one["reject_id"]} for one in found), key=lambda one: one["line"])


@pytest.mark.parametrize(
    ("name", "content", "read", "expected"),
    [("bad.csv", BAD_CSV, 11, KEPT_CSV), ("bad.jsonl", BAD_LINES, 7, KEPT_LINES)],
)
def test_exactly_the_bad_rows_are_kept_with_line_column_reason_and_text(
    headrace: Headrace, name: str, content: bytes, read: int, expected: list[tuple[int, str | None, str, str]]
) -> None:
    (headrace.folder / name).write_bytes(content)
    report = headrace.load(name, *OPTIONS, expect=3)
    assert (report["read"], report["rejected"], report["inserted"]) == (read, len(expected), read - len(expected))
    found = kept(headrace)
    assert [(one["line"], one["column"]) for one in found] == [(line, column) for line, column, _, _ in expected]
    for one, (_, _, reason, raw) in zip(found, expected, strict=True):
        assert one["source"] == name
        assert reason in str(one["reason"])
        assert str(one["raw"]).startswith(raw)
    assert headrace.load(name, *OPTIONS, expect=3)["inserted"] == 0


def test_a_replayed_row_keeps_its_identity(headrace: Headrace) -> None:
    good = BAD_CSV.replace(b"4,x,", b"4,7.25,").replace(
        b"5,1.5,2020-01-01T00:00:00Z\n", b"5,1.5,2020-01-01T00:00:00Z,mended\n"
    )
    (headrace.folder / "bad.csv").write_bytes(BAD_CSV)
    (headrace.folder / "good.csv").write_bytes(good)
    headrace.load("bad.csv", *OPTIONS, expect=3)
    cast, split = (one["reject_id"] for one in kept(headrace)[2:4])
    headrace.run("rejects", "replay", cast, "--set", "lat=7.25")
    headrace.run("rejects", "replay", split, "--raw", "5,1.5,2020-01-01T00:00:00Z,mended")
    headrace.load("good.csv", "--table", "good", *OPTIONS, expect=3)
    same = "SELECT event_id, id, lat, note FROM {} ORDER BY id"
    assert headrace.query(same.format("bad")) == headrace.query(same.format("good"))
    assert [one["line"] for one in kept(headrace) if one["source"] == "bad.csv"] == [3, 4, 7, 8, 9, 12]


def test_a_replay_that_fails_again_is_kept_again_with_its_address(headrace: Headrace) -> None:
    (headrace.folder / "bad.csv").write_bytes(BAD_CSV)
    headrace.load("bad.csv", *OPTIONS, expect=3)
    before = kept(headrace)
    headrace.run("rejects", "replay", before[-1]["reject_id"], "--set", "lat=worse", expect=3)
    after = kept(headrace)
    assert len(after) == len(before)
    assert (after[-1]["line"], after[-1]["raw"]) == (before[-1]["line"], before[-1]["raw"])
    assert "worse" in str(after[-1]["reason"])
    assert after[-1]["reject_id"] != before[-1]["reject_id"]


def test_replay_splits_a_line_by_its_files_columns_not_the_tables(headrace: Headrace) -> None:
    (headrace.folder / "first.csv").write_text("a,b\n1,2\n")
    (headrace.folder / "second.csv").write_text("b,a\n20,10\n21\n")
    headrace.load("first.csv", "--table", "t", "--id", "a")
    headrace.load("second.csv", "--table", "t", expect=3)
    (reject,) = kept(headrace)
    headrace.run("rejects", "replay", reject["reject_id"], "--raw", "21,11")
    assert headrace.query("SELECT a, b FROM t ORDER BY a") == [(1, 2), (10, 20), (11, 21)]
    headrace.run("rejects", "replay", reject["reject_id"], expect=2)


def test_rejects_of_a_select_are_replayed_through_the_select(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text("n,v\n1,5\n2,oops\n3,7\n")
    select = "SELECT n, v * 10 AS tenfold FROM source"
    headrace.load("in.csv", "--table", "t", "--id", "n", "--type", "v=integer", "--select", select, expect=3)
    (reject,) = kept(headrace)
    assert (reject["line"], reject["column"]) == (3, "v")
    headrace.run("rejects", "replay", reject["reject_id"], "--set", "v=6")
    assert headrace.query("SELECT n, tenfold FROM t ORDER BY n") == [(1, 50), (2, 60), (3, 70)]


def test_replayed_bytes_are_the_bytes_they_were(headrace: Headrace) -> None:
    held = [b"text", b"\xff\x00\xfe", None, b"\x00", "é".encode("latin-1")]
    bad = pa.table({"b": pa.array(held, pa.binary()), "v": [float("nan")] * 5, "n": ["x"] * 5})
    pq.write_table(bad.drop_columns("n"), headrace.folder / "identity.parquet")
    pq.write_table(bad.drop_columns("v"), headrace.folder / "typed.parquet")
    for name, kind, change in (("identity", "v=float", "v=1"), ("typed", "n=integer", "n=1")):
        headrace.load(f"{name}.parquet", "--type", kind, "--type", "b=bytes", expect=3)
        headrace.run("rejects", "replay", "--set", change)
    for query in ("SELECT b FROM identity", "SELECT b FROM typed"):
        assert sorted((row[0] for row in headrace.query(query)), key=repr) == sorted(held, key=repr)


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.date32()])
def test_a_year_that_no_database_holds_costs_its_row_alone(headrace: Headrace, kind: pa.DataType) -> None:
    day = 86_400_000_000 if kind == pa.timestamp("us") else 1
    days = [-2_440_551, -2_440_550, 0, 11_248_737, 11_248_738, 100_000_000, 2**31 - 1 if day == 1 else 106_751_990]
    at = pa.array([number * day for number in days], pa.int64()).cast(pa.int32() if day == 1 else pa.int64())
    pq.write_table(pa.table({"n": days, "at": at.cast(kind)}), headrace.folder / "far.parquet")
    report = headrace.load("far.parquet", "--id", "n", expect=3)
    assert (report["inserted"], report["rejected"]) == (3, 4)
    assert headrace.query("SELECT n FROM far WHERE n IN (-2440550, 0, 11248737) ORDER BY n") == [
        (n,) for n in days[1:4]
    ]
    rejects = headrace.json("rejects", "list")["rejects"]
    assert {one["reject"]["reason"][:40] for one in rejects} == {"the year is outside -4712 to 32767, whic"}


def test_discarded_rejects_stay_on_record(headrace: Headrace) -> None:
    (headrace.folder / "bad.csv").write_bytes(BAD_CSV)
    run = headrace.load("bad.csv", *OPTIONS, expect=3)["run_id"]
    headrace.run("rejects", "discard", expect=2)
    first = kept(headrace)[0]["reject_id"]
    assert "1 rejects" in headrace.run("rejects", "discard", first).stdout
    assert "7 rejects" in headrace.run("rejects", "discard", "--run", run[:8]).stdout
    assert kept(headrace) == []
    assert len(headrace.json("rejects", "list", "--all")["rejects"]) == 8
    assert "bad.csv, line" in headrace.run("rejects", "show", first).stdout


def test_a_truncated_file_is_an_error_and_leaves_nothing_without_a_receipt(headrace: Headrace, tmp_path: Path) -> None:
    import gzip  # noqa: PLC0415 - this test alone needs it

    rows = "\n".join(f"{n},{n * n}" for n in range(50_000))
    packed = gzip.compress(f"n,square\n{rows}\n".encode())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    failed = headrace.run("load", "cut.csv.gz", "--table", "t", "--chunk-rows", "5000", expect=1)
    assert "cut.csv.gz" in failed.stderr
    assert "hint" in failed.stderr
    in_table = headrace.query_one_if_table("t", "SELECT count(*) FROM t") or 0
    said = headrace.query_one_if_table("headrace_receipts", "SELECT sum(inserted) FROM headrace_receipts") or 0
    assert in_table == said
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + b"\0" * 100)
    assert "cut.parquet" in headrace.run("load", "cut.parquet", expect=1).stderr


HOW_TO = "SELECT *, strptime(day || ' ' || hhmm, '%d/%m/%Y %H%M') AS moment FROM source WHERE mag > 1"


def test_a_row_on_which_the_select_fails_is_a_reject_with_its_line_and_text(headrace: Headrace) -> None:
    rows = [f"{n},{n % 28 + 1:02}/05/2024,{n % 24:02}30,{n % 5}" for n in range(300)]
    for n, bad in ((7, "2024-05-01"), (8, "31/02/2024"), (299, "x")):
        rows[n] = f"{n},{bad},1200,3"
    (headrace.folder / "in.csv").write_text("n,day,hhmm,mag\n" + "\n".join(rows) + "\n")
    words = ("--table", "t", "--id", "n", "--type", "hhmm=string", "--select", HOW_TO)
    report = headrace.load("in.csv", *words, "--chunk-rows", "50", expect=3)
    assert (report["rejected"], report["inserted"]) == (3, sum(n % 5 > 1 for n in range(300) if n not in (7, 8, 299)))
    found = kept(headrace)
    assert [(one["line"], one["raw"]) for one in found] == [
        (9, "7,2024-05-01,1200,3"),
        (10, "8,31/02/2024,1200,3"),
        (301, "299,x,1200,3"),
    ]
    assert all("the select fails on it" in str(one["reason"]) for one in found)
    headrace.run("rejects", "replay", found[0]["reject_id"], "--raw", "7,01/05/2024,1200,3")
    headrace.run("rejects", "replay", found[1]["reject_id"], "--set", "day=01/03/2024")
    assert headrace.query("SELECT count(*) FROM t WHERE n IN (7, 8)") == [(2,)]
    assert headrace.load("in.csv", *words, "--chunk-rows", "7", expect=3)["inserted"] == 0


def test_a_select_that_is_wrong_ends_the_load_at_once(headrace: Headrace) -> None:
    (headrace.folder / "in.csv").write_text("n,v\n" + "".join(f"{n},x\n" for n in range(1000)))
    for select in (
        "SELECT nothing FROM source",
        "SELECT n, strptime('x', '%d') AS d FROM source",
        "SELECT n FORM source",
    ):
        failed = headrace.run("load", "in.csv", "--table", "t", "--select", select, expect=2)
        assert "the select fails" in failed.stderr


def test_every_row_may_fail_and_an_aggregate_sees_the_others(headrace: Headrace) -> None:
    (headrace.folder / "all.csv").write_text("n,v\n1,x\n2,y\n")
    cast = "SELECT n, CAST(v AS INTEGER) AS v FROM source"
    report = headrace.load("all.csv", "--table", "a", "--id", "n", "--select", cast, expect=3)
    assert (report["read"], report["rejected"]) == (2, 2)
    (headrace.folder / "some.csv").write_text("n,v\n1,1\n1,2\n1,x\n2,5\n")
    grouped = "SELECT n, sum(CAST(v AS INTEGER))::BIGINT AS total FROM source GROUP BY n"
    report = headrace.load("some.csv", "--table", "b", "--id", "n", "--type", "v=string", "--select", grouped, expect=3)
    assert headrace.query("SELECT n, total FROM b ORDER BY n") == [(1, 3), (2, 5)]
    assert [one["line"] for one in kept(headrace) if one["source"] == "some.csv"] == [4]
