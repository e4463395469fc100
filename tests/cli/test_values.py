"""`verify` compares values: every change behind Headrace's back is found and named, and nothing else is. Tables are
changed by SQL alone.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from support.program import Headrace, scaled

import headrace as package
from headrace.api import opened
from headrace.checking.value_findings import Values
from headrace.checking.verify import verify
from headrace.options.load import options_of

FAR, BC = 400_000_000_000_000_000, -70_000_000_000_000_000  # the years 14645 and 250 BC


@dataclass
class World:
    """A table `t` with the identity `k`, the folder of its inputs, and an SQL client of its own."""

    url: str
    folder: Path

    def __post_init__(self) -> None:
        self.engine = sa.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)

    @property
    def sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def write(self, name: str, content: str | pa.Table) -> Path:
        path = self.folder / name
        if isinstance(content, str):
            path.write_text(content)
        else:
            pq.write_table(content, path)
        return path

    def load(self, *names: str, **named: Any) -> package.Report:
        return package.load(*(self.folder / name for name in names), to=self.url, table="t", id=["k"], **named)

    def values(self, *names: str, limit: int = 10, **named: Any) -> Values:
        options = options_of({"to": self.url, "table": "t", **named})
        with opened(options, [self.folder / name for name in names], existing=True) as (store, table, items, settled):
            found = verify(store, items, table, settled, limit=limit, values=True)
        assert (found.missing, found.unexpected, found.duplicated) == (0, 0, 0)
        assert found.values is not None
        assert found.ok == (found.values.changed.events == 0)
        told = found.values
        assert told.agreed + told.changed.events + told.elsewhere.events + told.revised.events == found.expected
        return told


@pytest.fixture
def world(store_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(store_url, tmp_path)
    yield made
    made.engine.dispose()


def kinds(found: Values) -> tuple[int, int, int, int]:
    return found.agreed, found.changed.events, found.elsewhere.events, found.revised.events


def numbered(rows: int, value: str = "{k}.5") -> str:
    return "k,v,s\n" + "".join(f"{k},{value.format(k=k)},x{k}\n" for k in range(rows))


def test_a_value_set_in_every_row_is_found_and_named_with_file_line_column_and_both_values(world: World) -> None:
    path = world.write("a.csv", numbered(300))
    world.load("a.csv", chunk_rows=100)
    headrace = Headrace(world.url, world.folder)
    said = headrace.run("verify", path, "--table", "t").stdout
    assert said.startswith("VERIFIED, IDs and values: t")
    world.sql("UPDATE t SET v = 0")
    told = headrace.run("verify", path, "--table", "t", "--limit", 3, expect=4).stdout
    assert told.startswith("DIFFERENCE FOUND, IDs and values compared: t")
    assert f"from {path}, row 2, line 4; receipt" in told
    assert "v: input '2.5', table '0.0'" in told
    assert headrace.run("verify", path, "--table", "t", "--ids-only").stdout.startswith("VERIFIED, IDs only: t")
    values = headrace.json("verify", path, "--table", "t", "--limit", 3, expect=4)["values"]
    assert (values["agreed"], values["changed"]["events"], values["changed"]["columns"]) == (0, 300, {"v": 300})
    first = values["changed"]["sample"][0]
    assert (first["place"]["line"], first["columns"]) == (2, {"v": {"input": "0.5", "table": "0.0"}})
    assert len(values["changed"]["sample"]) == 3


EVERY_TYPE = pa.table(
    {
        "k": pa.array(range(8), pa.int64()),
        "flag": pa.array([True, False, None] * 2 + [True, True]),
        "n": pa.array([0, 2**63 - 1, -(2**63), None, 1, -1, 5, 7], pa.int64()),
        "x": pa.array([0.1 + 0.2, float("nan"), float("inf"), -0.0, None, 5e-324, 1e308, 0.3]),
        "at": pa.array([0, FAR, BC, None, 1, -1, 253_402_300_800_000_000, 5], pa.timestamp("us", tz="UTC")),
        "day": pa.array([0, 4_000_000, -1_000_000, None, 1, -1, 2_932_897, 11_248_737], pa.int32()).view(pa.date32()),
        "d": pa.array(
            ["0", "0.000000001", "-12345678901234567890.5", None, "1.50", "-1E+3", "99.9", "7"], pa.string()
        ).cast(pa.decimal128(38, 9)),
        "s": pa.array(["", "ä€𝄞", None, "a\nb", " x ", "null", "0", "long" * 5_000]),
        "b": pa.array([b"", b"\xff\xfe", None, b"\0", b"x", b"a" * 9_000, b"'", b"\\x"], pa.binary()),
    }
)


def test_no_value_of_any_type_is_a_difference_as_long_as_nobody_touches_it(world: World) -> None:
    world.write("a.parquet", EVERY_TYPE)
    assert world.load("a.parquet").inserted == 8
    assert kinds(world.values("a.parquet")) == (8, 0, 0, 0)


def test_the_least_change_of_a_value_of_any_type_is_a_difference(world: World) -> None:
    world.write("a.parquet", EVERY_TYPE)
    world.load("a.parquet")
    blob = "x'ff'" if world.sqlite else "'\\xff'"
    moment = "'1970-01-01 00:00:00.000002'" if world.sqlite else "'1970-01-01 00:00:00.000002+00'"
    changes = {
        "flag": (0, "false"),
        "n": (1, "9223372036854775806"),
        "x": (0, "0.3"),
        "at": (4, moment),
        "day": (0, "'1970-01-02'"),
        "d": (1, "'0.000000002'"),
        "s": (4, "' x'"),
        "b": (1, blob),
    }
    for column, (k, value) in changes.items():
        world.sql(f"UPDATE t SET {column} = {value.replace(':', chr(92) + ':')} WHERE k = {k}")  # noqa: S608
    found = world.values("a.parquet")
    assert found.changed.columns == dict.fromkeys(changes, 1)
    world.sql("UPDATE t SET n = NULL, s = NULL, x = NULL")
    assert world.values("a.parquet").changed.columns == {
        **dict.fromkeys(changes, 1),
        "n": 7,
        "s": 7,
        "x": 6 if world.sqlite else 7,  # SQLite has no NaN: it was null before
    }


def test_what_a_load_cannot_bring_is_a_difference_whatever_it_is(world: World) -> None:
    world.write("a.parquet", EVERY_TYPE)
    world.load("a.parquet")
    if world.sqlite:
        world.sql("UPDATE t SET n = 'many', flag = 2, x = 'big', at = 17, day = 'soon', s = 3, b = 'text' WHERE k = 0")
        world.sql("UPDATE t SET s = x'ff00', d = 1.5, n = 1.5 WHERE k = 1")
        found = world.values("a.parquet")
        assert found.changed.columns == {"flag": 1, "n": 2, "x": 1, "at": 1, "day": 1, "d": 1, "s": 2, "b": 1}
        assert found.changed.sample[0].columns["n"] == ("0", "many (no int64 value)")
        return
    world.sql("ALTER TABLE t ALTER COLUMN d TYPE numeric")
    world.sql("UPDATE t SET at = 'infinity', day = '-infinity', d = 'NaN' WHERE k = 0")
    world.sql("UPDATE t SET at = '200000-01-01', day = '200000-01-01', d = 0.0000000010001 WHERE k = 1")
    world.sql("UPDATE t SET at = '4713-01-01 BC', d = 1.5000 WHERE k = 4")
    found = world.values("a.parquet")
    assert found.changed.columns == {"at": 3, "day": 2, "d": 2}
    shown = {one.columns["at"] for one in found.changed.sample}
    assert ("1970-01-01T00:00:00+00:00", "infinity (no time that a load can contain)") in shown
    assert ("14645-06-30T15:06:40+00:00", "200000-01-01T00:00:00+00:00") in shown


OWN_TABLE = """CREATE TABLE t (event_id uuid PRIMARY KEY, k smallint, r real, n numeric(12,3), c character(5),
    v varchar(4), at timestamp(3), zoned timestamptz(0), added timestamptz DEFAULT now(),
    provider text, headrace_receipt bigint)"""


def test_columns_of_ones_own_types_are_compared_as_the_database_stores_them(postgres_url: str, tmp_path: Path) -> None:
    world = World(postgres_url, tmp_path)
    world.sql(OWN_TABLE)
    world.write(
        "a.csv",
        "k,r,n,c,v,at,zoned\n"
        "1,0.1,1.5,ab,x,2024-01-01T12:00:00.123456Z,2024-01-01T12:00:00.5Z\n"
        "2,16777217,-0.001,ab  ,ab ,1999-12-31T23:59:59.999500Z,1999-12-31T23:59:59.5Z\n"
        "3,,,,,,\n",
    )
    assert world.load("a.csv", types={"v": "string", "c": "string"}).rejected == 0
    assert kinds(world.values("a.csv")) == (3, 0, 0, 0)
    assert world.values("a.csv").left_out == ["added"]
    world.sql("UPDATE t SET added = '2000-01-01', c = 'ab   '")
    assert world.values("a.csv").changed.columns == {"c": 1}  # the third had none
    world.sql("UPDATE t SET c = NULL WHERE k = 3")
    world.sql("UPDATE t SET r = 0.10000001 WHERE k = 1")
    world.sql("UPDATE t SET at = at + interval '1 ms', n = n + 0.001 WHERE k = 2")
    assert world.values("a.csv").changed.columns == {"r": 1, "at": 1, "n": 1}


def test_domains_and_other_types_of_ones_own_are_compared_and_told_as_what_they_are_made_of(
    postgres_url: str, tmp_path: Path
) -> None:
    world = World(postgres_url, tmp_path)
    for name, base in (("short", "real"), ("code", "char(4)"), ("second", "timestamp(0)"), ("again", "second")):
        world.sql(f"CREATE DOMAIN {name} AS {base}")
    world.sql("CREATE TYPE mood AS ENUM ('good', 'bad')")
    world.sql(
        "CREATE TABLE t (event_id uuid PRIMARY KEY, k bigint, r short, c code, at again, m mood, "
        "provider text, headrace_receipt bigint)"
    )
    path = world.write("a.csv", "k,r,c,at,m\n1,0.1,ab,2024-01-01T12:00:00.6Z,good\n")
    world.load("a.csv")
    assert kinds(world.values("a.csv")) == (1, 0, 0, 0)
    ((event,),) = world.sql("SELECT CAST(event_id AS text) FROM t")
    headrace = Headrace(postgres_url, tmp_path)
    assert headrace.json("explain", event)["event"]["at"] == "2024-01-01T12:00:01+00:00"
    world.sql("UPDATE t SET at = '14645-01-01', m = 'bad'")
    assert world.values("a.csv").changed.columns == {"at": 1, "m": 1}
    assert headrace.json("explain", event, "--in", path)["event"]["at"] == "14645-01-01T00:00:00+00:00"


def test_rows_of_another_input_are_told_apart_from_changed_ones(world: World) -> None:
    world.write("a.csv", numbered(20))
    world.write("b.csv", "k,v,s\n" + "".join(f"{k},{k}.25,y{k}\n" for k in range(10, 30)))
    world.load("a.csv")
    world.load("b.csv")
    assert kinds(world.values("a.csv")) == (20, 0, 0, 0)
    found = world.values("b.csv")
    assert kinds(found) == (10, 0, 10, 0)
    assert found.elsewhere.columns == {"v": 10, "s": 10}
    assert kinds(world.values("b.csv", "a.csv")) == (30, 0, 0, 0)
    world.sql("UPDATE t SET v = 0 WHERE k IN (3, 12, 25)")
    assert kinds(world.values("a.csv")) == (18, 2, 0, 0)
    assert kinds(world.values("b.csv")) == (9, 1, 10, 0)
    assert kinds(world.values("b.csv", "a.csv")) == (27, 3, 0, 0)
    # a file that was moved away and named otherwise is another input; one that was touched is not
    (world.folder / "a.csv").touch()
    assert kinds(world.values("a.csv")) == (18, 2, 0, 0)


def test_a_row_of_another_program_is_not_taken_for_a_changed_one(world: World) -> None:
    world.write("a.csv", numbered(5))
    world.load("a.csv")
    world.sql("DELETE FROM t WHERE k = 2")
    world.load("a.csv")
    if not world.sqlite:
        world.sql("ALTER TABLE t ALTER COLUMN headrace_receipt DROP NOT NULL")
        world.sql("UPDATE t SET v = 7, headrace_receipt = NULL WHERE k = 3")
        assert kinds(world.values("a.csv")) == (4, 0, 1, 0)
    world.sql("UPDATE t SET v = 7, headrace_receipt = 9999 WHERE k = 3")  # nobody brought that
    assert kinds(world.values("a.csv")) == (4, 1, 0, 0)


def test_revisions_that_were_applied_are_told_apart_from_changed_rows(world: World) -> None:
    world.write("a.csv", "k,v,rev\n" + "".join(f"{k},a,1\n" for k in range(10)))
    world.write("b.csv", "k,v,rev\n3,b,2\n3,c,3\n4,b,1\n4,bb,1\n5,b,0\n11,b,1\n11,c,2\n11,d,2\n")
    world.load("a.csv", revisions="update", version_column="rev")
    world.load("b.csv", revisions="update", version_column="rev")
    assert dict(world.sql("SELECT k, v FROM t WHERE k IN (3, 4, 5, 11)")) == {3: "c", 4: "a", 5: "a", 11: "c"}
    assert kinds(world.values("a.csv")) == (9, 0, 0, 1)
    found = world.values("b.csv")
    assert kinds(found) == (2, 0, 1, 1)  # of 4 the table had as new a row before, of 5 a newer one
    assert kinds(world.values("a.csv", "b.csv")) == (11, 0, 0, 0)
    world.sql("UPDATE t SET v = 'x' WHERE k IN (3, 7)")
    assert kinds(world.values("a.csv")) == (8, 1, 0, 1)
    assert kinds(world.values("a.csv", "b.csv")) == (9, 2, 0, 0)
    world.sql("UPDATE t SET v = 'b', rev = 2 WHERE k = 3")  # an older version, put back
    assert kinds(world.values("b.csv")) == (1, 1, 1, 1)


def test_of_several_rows_of_an_event_the_one_that_won_counts_and_no_other(world: World) -> None:
    world.write("a.csv", "k,v\n1,a\n2,a\n1,b\n2,b\n")
    world.load("a.csv")
    assert kinds(world.values("a.csv")) == (2, 0, 0, 0)
    world.sql("UPDATE t SET v = 'b' WHERE k = 1")
    assert kinds(world.values("a.csv")) == (1, 1, 0, 0)
    assert world.values("a.csv").changed.sample[0].place.line == 2
    assert kinds(world.values("a.csv", version_column="v", revisions="update")) == (1, 1, 0, 0)
    world.write("b.csv", "k,v\n1,b\n9,b\n")
    world.load("b.csv")  # the table's row is no better for it
    assert kinds(world.values("a.csv")) == (1, 1, 0, 0)


def test_the_order_in_which_inputs_are_named_is_not_that_in_which_they_were_loaded(world: World) -> None:
    world.write("a.csv", "k,v\n1,a\n2,a\n2,aa\n")
    world.write("b.csv", "k,v\n1,b\n2,b\n3,b\n")
    for mode in ("sequential", "parallel"):
        world.load("b.csv", "a.csv", mode=mode, workers=2)
        for names in (["a.csv", "b.csv"], ["b.csv", "a.csv"], ["b.csv"]):
            assert kinds(world.values(*names)) == (3, 0, 0, 0)
        world.sql("UPDATE t SET v = 'aa' WHERE k = 2")
        for names in (["a.csv", "b.csv"], ["b.csv", "a.csv"], ["b.csv"]):
            assert kinds(world.values(*names)) == (2, 1, 0, 0)
        if mode == "sequential":
            world.sql("UPDATE t SET v = 'a' WHERE k = 2")  # as the other input has it
            for names in (["a.csv", "b.csv"], ["b.csv", "a.csv"]):
                assert kinds(world.values(*names)) == (2, 1, 0, 0)
        world.sql("DELETE FROM t")


def test_where_the_first_to_commit_wins_any_of_its_rows_counts(world: World) -> None:
    world.write("a.csv", "k,v\n" + "1,a\n" * 50 + "1,b\n" * 50)
    world.load("a.csv", mode="parallel", strategy="upsert", workers=2, chunk_rows=50)
    world.sql("UPDATE t SET v = 'b'")
    assert kinds(world.values("a.csv")) == (1, 0, 0, 0)
    world.sql("UPDATE t SET v = 'c'")
    assert kinds(world.values("a.csv")) == (0, 1, 0, 0)


def test_columns_that_the_input_does_not_have_are_none_of_its_business(world: World) -> None:
    world.write("a.csv", "k,v\n1,a\n2,b\n")
    world.write("b.csv", "k,w\n3,a\n2,b\n")
    world.load("a.csv", enrich=_add_length)
    world.load("b.csv")
    world.sql("ALTER TABLE t ADD COLUMN note text")
    world.sql("UPDATE t SET note = 'mine', w = 'z' WHERE k = 1")
    world.sql("UPDATE t SET length = 99 WHERE k = 2")
    found = world.values("a.csv")
    assert kinds(found) == (2, 0, 0, 0)
    assert set(found.left_out) == {"note", "w", "length"}
    found = world.values("a.csv", "b.csv")
    assert (kinds(found), found.left_out) == ((3, 0, 0, 0), ["length", "note"])


def _add_length(events: pa.RecordBatch) -> pa.RecordBatch:
    import pyarrow.compute as pc  # noqa: PLC0415 - as a user's module would

    return events.append_column("length", pc.utf8_length(events.column("v")))


def test_a_reject_that_was_mended_by_hand_is_no_change(world: World) -> None:
    world.write("a.csv", "k,v\n1,1\n2,oops\n3,3\n")
    world.load("a.csv", types={"v": "integer"})
    headrace = Headrace(world.url, world.folder)
    headrace.run("rejects", "replay", "--set", "v=5")
    assert kinds(world.values("a.csv")) == (2, 0, 0, 0)
    world.write("a.csv", "k,v\n1,1\n2,7\n3,3\n")
    assert kinds(world.values("a.csv")) == (2, 0, 1, 0)


def test_more_kinds_of_rows_than_prints_are_kept_for_are_compared_all_the_same(world: World) -> None:
    names = []
    for n in range(20):
        names.append(f"{n}.csv")
        world.write(names[-1], f"k,c{n}\n{n},{n}\n")
    world.load(*names)
    assert kinds(world.values(*names)) == (20, 0, 0, 0)
    world.sql("UPDATE t SET c7 = 1")
    assert kinds(world.values(*names)) == (19, 1, 0, 0)


def test_a_column_that_was_dropped_is_a_difference(world: World) -> None:
    path = world.write("a.csv", numbered(5))
    world.load("a.csv")
    world.sql("ALTER TABLE t DROP COLUMN s")
    said = Headrace(world.url, world.folder).run("verify", path, "--table", "t", expect=4).stdout
    assert "the table has no column s, which the input has" in said
    # a select says what of the input is to be there
    chosen = world.values("a.csv", select="SELECT k, v FROM source")
    assert (kinds(chosen), chosen.lacking) == ((5, 0, 0, 0), [])
    world.sql("UPDATE t SET v = 0 WHERE k = 3")
    (found,) = world.values("a.csv", select="SELECT k, v FROM source").changed.sample
    assert (found.place.row, found.columns) == (None, {"v": ("3.5", "0.0")})


def test_values_that_come_up_late_in_json_are_compared(world: World) -> None:
    first = world.write("a.jsonl", '{"k": 1, "late": "x"}\n')
    world.load(first.name)
    rows = [f'{{"k": {k}}}' for k in range(2, 250_000)]
    world.write("b.jsonl", "\n".join([*rows, '{"k": 250000, "late": "y"}']) + "\n")
    assert world.load("b.jsonl").rejected == 0
    world.sql("UPDATE t SET late = 'z' WHERE k = 250000")
    (found,) = world.values("b.jsonl").changed.sample
    assert found.columns == {"late": ("y", "z")}


@pytest.mark.parametrize("suspects", [0, 4_000_000])
def test_more_suspects_than_there_is_room_for_are_looked_at_in_turns(
    world: World, monkeypatch: pytest.MonkeyPatch, suspects: int
) -> None:
    monkeypatch.setattr("headrace.checking.suspects.MOST_BYTES", 4_096)
    monkeypatch.setattr("headrace.checking.row_values.MOST_SUSPECTS", suspects)
    world.write("a.csv", numbered(300))
    world.load("a.csv")
    world.sql("UPDATE t SET v = 0 WHERE k >= 100")
    found = world.values("a.csv", limit=2)
    assert (kinds(found), found.changed.columns) == ((100, 200, 0, 0), {"v": 200})
    assert [one.place.row for one in found.changed.sample] == [100, 101]


def test_any_mixture_of_changes_is_counted_exactly(world: World) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    columns = {"x": pa.float64(), "n": pa.int64(), "s": pa.string(), "at": pa.timestamp("us", tz="UTC")}
    rows = 400
    made: dict[str, pa.Array] = {"k": pa.array(range(rows), pa.int64())}
    for name, kind in columns.items():
        given = [None if chance.random() < 0.1 else chance.randrange(1000) for _ in range(rows)]
        made[name] = pa.array(given, pa.int64()).cast(pa.int64() if name == "at" else kind).cast(kind)
    world.write("a.parquet", pa.table(made))
    world.load("a.parquet", chunk_rows=64)
    moment = "'1970-01-01 00:00:07.000000'" if world.sqlite else "'1970-01-01 00:00:07+00'"
    new = {"x": "-0.5", "n": "-1", "s": "'changed'", "at": moment.replace(":", "\\:")}
    for _ in range(scaled(20, least=3)):
        expected: dict[str, int] = {}
        touched: set[int] = set()
        world.sql("CREATE TABLE aside AS SELECT * FROM t")
        for name, value in new.items():
            chosen = chance.sample(range(rows), chance.randrange(9))
            if chosen:
                listed = ", ".join(map(str, chosen))
                world.sql(f"UPDATE t SET {name} = {value} WHERE k IN ({listed})")  # noqa: S608 - the test's own
                expected[name] = len(chosen)
                touched |= set(chosen)
        found = world.values("a.parquet", limit=1000)
        assert (found.changed.columns, found.changed.events) == (expected, len(touched))
        assert [one.place.row for one in found.changed.sample] == sorted(touched)
        world.sql("DELETE FROM t")
        world.sql("INSERT INTO t SELECT * FROM aside")
        world.sql("DROP TABLE aside")


def test_a_statement_of_a_verification_has_the_values_in_it(world: World) -> None:
    path = world.write("a.csv", numbered(5))
    world.load("a.csv")
    world.sql("UPDATE t SET v = 9 WHERE k = 1")
    Headrace(world.url, world.folder).run("verify", path, "--table", "t", "--receipt", "r.json", expect=4)
    stated = json.loads((world.folder / "r.json").read_text())
    assert (stated["ok"], stated["compared"], stated["values"]["changed"]["columns"]) == (
        False,
        "IDs and values",
        {"v": 1},
    )
