"""`verify` finds every wrong row of a table and says where it comes from; its statements hold later. Tables are made
wrong by SQL alone, behind Headrace's back.
"""

from __future__ import annotations

import json
import random
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.program import Headrace, scaled

import headrace as package
from headrace.api import opened
from headrace.checking.attestation import compare, read_statement, write_statement
from headrace.checking.verify import verify
from headrace.checking.verify_result import Verification
from headrace.errors import UsageError
from headrace.loading.agreement import stored_contract
from headrace.options.load import options_of
from headrace.partitioning.identity import id_text
from headrace.storage import open_store

ROWS = 300
AWAY = 9_999  # a receipt that the ledger does not have


@dataclass
class Table:
    """A table `t` with the events of ``a.csv``, which repeats some, and of ``b.csv``; and an SQL client of its own."""

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

    def id(self, packed: bytes) -> object:
        return packed if self.sqlite else uuid.UUID(bytes=packed)

    def ids(self, where: str = "true") -> dict[int, bytes]:
        """Packed ID by `n`."""
        found = self.sql(f"SELECT n, event_id FROM t WHERE {where}")  # noqa: S608 - the test's own condition
        return {n: one if isinstance(one, bytes) else one.bytes for n, one in found}

    def receipt_of(self, n: int) -> int:
        return int(self.sql("SELECT headrace_receipt FROM t WHERE n = :n", n=n)[0][0])

    def load(self, *names: str, **named: Any) -> None:
        package.load(*(self.folder / name for name in names), to=self.url, table="t", id=["n"], chunk_rows=100, **named)

    def verify(self, *names: str, limit: int = 10) -> Verification:
        options = options_of({"to": self.url, "table": "t"})
        inputs = [self.folder / name for name in names or ("a.csv",)]
        with opened(options, inputs, existing=True) as (store, table, items, settled):
            return verify(store, items, table, settled, limit=limit)

    def take_the_key_away(self) -> None:
        """The table as it was, but without its unique key."""
        if not self.sqlite:
            self.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
            return
        ((made,),) = self.sql("SELECT sql FROM sqlite_master WHERE name = 't'")
        self.sql("ALTER TABLE t RENAME TO keyed")
        keyless = made.replace("PRIMARY KEY (event_id)", "CHECK (true)").replace("WITHOUT ROWID", "")
        assert keyless != made
        self.sql(keyless)
        self.sql("INSERT INTO t SELECT * FROM keyed")

    def add(self, packed: bytes, receipt: int, n: int = -1) -> None:
        self.sql(
            "INSERT INTO t (event_id, n, provider, headrace_receipt) VALUES (:id, :n, 'default', :receipt)",
            id=self.id(packed),
            n=n,
            receipt=receipt,
        )


@pytest.fixture
def table(store_url: str, tmp_path: Path) -> Iterator[Table]:
    # row 150 of a.csv stands on two lines, so that rows and lines differ
    lines = [f'{n},"two\nlines"' if n == 150 else f"{n},x" for n in range(ROWS)]
    (tmp_path / "a.csv").write_text("\n".join(["n,s", *lines, *lines[:20]]) + "\n")
    (tmp_path / "b.csv").write_text("n,s\n" + "".join(f"{n},y\n" for n in range(250, 400)))
    made = Table(store_url, tmp_path)
    made.load("a.csv")
    made.load("b.csv")
    yield made
    made.engine.dispose()


def line_of(n: int) -> int:
    return n + 2 + (n > 150)


def counts(found: Verification) -> tuple[int, int, int]:
    return found.missing, found.unexpected, found.duplicated


def test_a_right_table_is_verified_and_its_digests_agree(table: Table) -> None:
    for names, distinct, repeated in ((("a.csv",), 300, 20), (("b.csv",), 150, 0), (("a.csv", "b.csv"), 400, 70)):
        found = table.verify(*names)
        assert found.ok
        assert (found.expected, found.repeated, found.stored, found.ledger_differences) == (distinct, repeated, 400, [])
        assert found.input_digest == found.table_digest
        assert found.ledger_digest == found.receipted_digest
        assert (found.input_digest.whole.count, found.ledger_digest.whole.count) == (distinct, 400)
    numbers = [int.from_bytes(one, "big") for one in table.ids().values()]
    assert found.input_digest.whole.sum == sum(numbers) % 2**128
    assert len(found.to_text().splitlines()) <= 24


def test_lost_events_are_found_and_addressed_with_source_row_and_line(table: Table) -> None:
    lost = {n: packed for n, packed in table.ids().items() if n in (3, 150, 151, 299)}
    table.sql("DELETE FROM t WHERE n IN (3, 150, 151, 299)")
    found = table.verify()
    assert counts(found) == (4, 0, 0)
    told = [(one.event_id, one.place.chunk.source, one.place.row, one.place.line) for one in found.missing_sample]
    assert told == [(id_text(lost[n]), str(table.folder / "a.csv"), n, line_of(n)) for n in sorted(lost)]
    assert found.input_digest.differing(found.table_digest)
    assert "row 3, line 5" in found.to_text()
    assert [one.inserted - one.held for one in found.ledger_differences] == [1, 2, 1]
    table.load("a.csv")
    repaired = table.verify()
    assert repaired.ok
    assert repaired.ledger_differences  # events that were lost and came again are told, and no fault


def test_duplicated_events_are_found_in_a_table_whose_key_is_gone(table: Table) -> None:
    table.take_the_key_away()
    assert table.verify().ok
    table.sql("INSERT INTO t SELECT * FROM t WHERE n IN (7, 350)")
    table.sql("INSERT INTO t SELECT * FROM t WHERE n = 7")
    found = table.verify()
    assert counts(found) == (0, 0, 4)  # one row of 350 too many, three of 7
    seven, other = sorted(found.duplicated_sample, key=lambda one: one.place is None)
    assert (seven.event_id, seven.place.row, seven.place.line) == (id_text(table.ids()[7]), 7, 9)
    assert seven.receipts == (table.receipt_of(7),) * 4
    assert (other.event_id, other.place) == (id_text(table.ids()[350]), None)
    assert "b.csv" in str(other)
    assert found.input_digest.differing(found.table_digest)


def test_foreign_rows_are_found_whatever_receipt_they_claim(table: Table) -> None:
    ours, theirs = table.receipt_of(120), table.receipt_of(399)
    strangers = [secrets.token_bytes(16) for _ in range(3)]
    for packed, receipt in zip(strangers, (ours, AWAY, theirs), strict=True):
        table.add(packed, receipt)
    found = table.verify()
    assert counts(found) == (0, 2, 0)
    by_receipt = {one.receipts: one for one in found.unexpected_sample}
    assert by_receipt[(ours,)].event_id == id_text(strangers[0])
    assert "a.csv, rows 100-199" in str(by_receipt[(ours,)])
    assert by_receipt[(AWAY,)].event_id == id_text(strangers[1])
    assert "not in the ledger" in str(by_receipt[(AWAY,)])
    # a row that claims a receipt of another input is no business of this input's, but the ledger names it
    assert {(one.receipt_id, one.event_id) for one in found.ledger_faults} == {
        (ours, id_text(strangers[0])),
        (theirs, id_text(strangers[2])),
    }
    table.sql("DELETE FROM t WHERE n = -1")
    assert table.verify().ok


def test_an_event_swapped_for_another_under_the_same_receipt_is_found_without_the_input(table: Table) -> None:
    receipt = table.receipt_of(390)
    table.sql("DELETE FROM t WHERE n = 390")
    table.add(secrets.token_bytes(16), receipt)
    found = table.verify("a.csv")
    assert counts(found) == (0, 0, 0)
    assert [(one.receipt_id, one.held - one.inserted) for one in found.ledger_faults] == [(receipt, 0)]
    assert not found.ok
    assert counts(table.verify("b.csv")) == (1, 1, 0)


def test_rows_of_programs_that_leave_no_receipt_are_not_of_concern(table: Table) -> None:
    binary = "BLOB" if table.sqlite else "uuid"
    table.sql(f"CREATE TABLE u (event_id {binary} PRIMARY KEY, provider TEXT, headrace_receipt BIGINT, n BIGINT)")
    package.load(table.folder / "b.csv", to=table.url, table="u", id=["n"], select="SELECT n FROM source")
    table.sql("INSERT INTO u (event_id, provider) VALUES (:id, 'default')", id=table.id(secrets.token_bytes(16)))
    options = options_of({"to": table.url, "table": "u", "select": "SELECT n FROM source"})
    with opened(options, [table.folder / "b.csv"], existing=True) as (store, name, items, settled):
        found = verify(store, items, name, settled)
        assert (found.ok, found.unreceipted, found.stored) == (True, 1, 151)
        table.sql("DELETE FROM u WHERE n = 300")
        (lost,) = verify(store, items, name, settled).missing_sample
    # after a select a row is no row of the file: its chunk is told
    assert (lost.place.row, str(lost.place)) == (None, f"{table.folder / 'b.csv'}, rows 0-149")


def test_any_mixture_of_wrong_rows_is_counted_exactly(table: Table) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    right = table.ids("n < 300")
    table.take_the_key_away()
    for _ in range(scaled(30, least=3)):
        lost = set(chance.sample(sorted(right), chance.randrange(8)))
        doubled = set(chance.sample(sorted(set(right) - lost), chance.randrange(8)))
        strange = [chance.randbytes(16) for _ in range(chance.randrange(5))]
        receipts = [chance.choice([table.receipt_of(n) for n in (50, 150, 250)] + [AWAY]) for _ in strange]
        table.sql("CREATE TABLE aside AS SELECT * FROM t")
        for n in lost:
            table.sql("DELETE FROM t WHERE n = :n", n=n)
        for n in doubled:
            table.sql("INSERT INTO t SELECT * FROM t WHERE n = :n", n=n)
        for packed, receipt in zip(strange, receipts, strict=True):
            table.add(packed, receipt)
        found = table.verify(limit=1000)
        assert counts(found) == (len(lost), len(strange), len(doubled))
        assert found.ok == (not lost and not strange and not doubled)
        assert [one.place.row for one in found.missing_sample] == sorted(lost)
        assert sorted(one.place.row for one in found.duplicated_sample) == sorted(doubled)
        assert {one.event_id for one in found.unexpected_sample} == set(map(id_text, strange))
        table.sql("DELETE FROM t")
        table.sql("INSERT INTO t SELECT * FROM aside")
        table.sql("DROP TABLE aside")


# Statements -----------------------------------------------------------------------------------------------------


def stated(table: Table, path: Path, *names: str) -> None:
    found = table.verify(*names)
    with open_store(table.url) as store:
        write_statement(path, found, stored_contract(store, "t"), store.url)


def compared(table: Table, path: Path, *names: str) -> Any:
    with open_store(table.url) as store:
        return compare(store, read_statement(path), table.verify(*names) if names else None)


def test_a_statement_holds_as_long_as_what_it_states_does(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    stated(table, path, "a.csv")
    assert compared(table, path).ok
    assert compared(table, path, "a.csv").ok
    (tmp_path / "c.csv").write_text("n,s\n1000,later\n3,again\n")
    table.load("c.csv")
    assert compared(table, path).ok  # what came later changes nothing
    assert not compared(table, path, "b.csv").ok  # another input is not the one that was stated
    (gone,) = table.ids("n = 30").values()
    table.sql("DELETE FROM t WHERE n = 30")
    told = compared(table, path)
    assert not told.ok
    assert [check.stated - check.found for check in told.checks] == [1]
    assert [one.event_id for one in told.differences] == [id_text(gone)]  # named without any input
    assert [check.stated - check.found for check in compared(table, path, "a.csv").checks] == [1, 0, 1]
    table.load("a.csv")
    assert not compared(table, path).ok
    assert [bool(check.differing) for check in compared(table, path, "a.csv").checks] == [True, False, False]


def test_a_row_slipped_in_under_a_receipt_of_then_breaks_the_statement(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    stated(table, path)
    stranger = secrets.token_bytes(16)
    table.add(stranger, table.receipt_of(399))
    told = compared(table, path)
    assert not told.ok
    assert [one.event_id for one in told.differences] == [id_text(stranger)]


def test_a_statement_that_was_changed_is_refused(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    stated(table, path)
    content = json.loads(path.read_text())
    without_password = sa.make_url(table.url)._replace(password=None)
    assert sa.make_url(content["database"]) == without_password
    for change in ({"expected": 299}, {"ok": False}, {"receipts": []}, {"format": "headrace verification 2"}):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(UsageError):
            read_statement(path)
    path.write_text("{}")
    with pytest.raises(UsageError):
        read_statement(path)
    path.write_text(json.dumps(content))
    assert read_statement(path).ok


def test_the_command_line_writes_a_receipt_and_checks_it(table: Table) -> None:
    headrace = Headrace(table.url, table.folder)
    said = headrace.json("verify", table.folder / "a.csv", "--table", "t", "--receipt", "r.json")
    assert said["ok"]
    assert sum(part["count"] for part in said["digests"]["input"]) == 300
    assert headrace.json("verify", "--against", "r.json")["ok"]
    table.sql("DELETE FROM t WHERE n = 30")
    told = headrace.run("verify", "--against", "r.json", expect=4).stdout
    assert "DIFFERENCE FOUND" in told
    assert "stated 400, found 399" in told
    headrace.run("verify", expect=2)
