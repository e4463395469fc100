"""A warm `Engine` and a world that changes between its calls: what an earlier call knew is asked for again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.program import Headrace

from headrace import Engine, load
from headrace.errors import HeadraceError
from headrace.loading import known_ids
from headrace.storage import open_store

DAY_US = 86_400_000_000


def batch(keys: range, *, layout: str = "hash") -> pa.Table:
    columns: dict[str, Any] = {"key": list(keys), "value": [f"v{key}" for key in keys]}
    if layout == "time":
        columns["at"] = pa.array([1_600_000_000_000_000 + key * DAY_US for key in keys], pa.timestamp("us", tz="UTC"))
    return pa.table(columns)


def engine_over(url: str, *, layout: str = "hash", **more: Any) -> Engine:
    time: dict[str, Any] = {"id": ["key", "at"], "time": "at"} if layout == "time" else {"id": ["key"]}
    return Engine(to=url, table="t", **time, **more)


def emptied(headrace: Headrace) -> None:
    headrace.query("DELETE FROM t")


def thinned(headrace: Headrace) -> None:
    headrace.query("DELETE FROM t WHERE key % 3 = 0")


def dropped(headrace: Headrace) -> None:
    headrace.query("DROP TABLE t")


def renumbered(headrace: Headrace) -> None:
    """Half of the rows under other event IDs: they are other events now."""
    flipped = "CAST(substr(event_id, 2) || substr(event_id, 1, 1) AS BLOB)"
    postgres = "encode(substring(uuid_send(event_id) FROM 2) || substring(uuid_send(event_id) FOR 1), 'hex')::uuid"
    other = flipped if headrace.url.startswith("sqlite") else postgres
    headrace.query(f"UPDATE t SET event_id = {other} WHERE key < 50")  # noqa: S608
    headrace.query("UPDATE t SET key = -1 - key WHERE key < 50")


def swapped(headrace: Headrace) -> None:
    headrace.query("ALTER TABLE t RENAME TO t_old")
    if headrace.url.startswith("sqlite"):
        ((text,),) = headrace.query("SELECT sql FROM sqlite_master WHERE name = 't_old'")
        headrace.query(re.sub(r'CREATE TABLE "?t_old"?', "CREATE TABLE t", text))
    else:
        headrace.query("CREATE TABLE t (LIKE t_old INCLUDING ALL)")


@pytest.mark.parametrize(
    ("layout", "way"), [("hash", {}), ("time", {"mode": "parallel", "workers": 2})], ids=["sequential", "parallel"]
)
@pytest.mark.parametrize("change", [emptied, thinned, dropped, renumbered, swapped])
def test_rows_that_went_away_between_two_calls_come_again(
    store_url: str, headrace: Headrace, change: Callable[[Headrace], None], layout: str, way: dict[str, Any]
) -> None:
    with engine_over(store_url, layout=layout, chunk_rows=40, **way) as engine:
        engine.ingest(batch(range(100), layout=layout))
        change(headrace)
        here = headrace.query("SELECT count(*) FROM t WHERE key >= 0")[0][0] if change is not dropped else 0
        again = engine.ingest(batch(range(120), layout=layout))
        assert (again.inserted, again.duplicate_in_store) == (120 - here, here)
        assert headrace.query("SELECT count(*), count(DISTINCT key) FROM t WHERE key >= 0") == [(120, 120)]
        assert engine.ingest(batch(range(120), layout=layout)).duplicate_in_store == 120


def test_what_an_engine_knows_costs_one_statement_a_chunk_and_none_where_nothing_is_left_out(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("headrace.engine.open_store", partial(open_store, on_statement=said.append))

    def statements(keys: range) -> int:
        said.clear()
        engine.ingest(batch(keys))
        return sum(not one.startswith("BEGIN") for one in said)

    with engine_over(store_url) as engine:
        engine.ingest(batch(range(4000)))
        engine.ingest(
            batch(range(4000))
        )  # the first duplicates are also compared with the table's rows, once in a while
        new, known_ones, both = (statements(keys) for keys in (range(4000, 4100), range(4000), range(4050, 4150)))
    assert known_ones <= new + 1
    assert both <= new + 1


def test_a_call_that_knows_most_of_its_batch_fetches_the_ids_anew(
    store_url: str, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_ids, "MOST_ASKED", 50)
    with engine_over(store_url, chunk_rows=40) as engine:
        engine.ingest(batch(range(400)))
        headrace.query("DELETE FROM t WHERE key < 350")
        report = engine.ingest(batch(range(400)))
        assert (report.inserted, report.duplicate_in_store) == (350, 50)
    assert headrace.count("t") == 400


def test_an_engine_between_two_tables_and_providers_believes_neither(store_url: str, headrace: Headrace) -> None:
    with engine_over(store_url) as engine:
        for table, provider in (("t", "one"), ("t", "two"), ("other", "one")):
            engine.ingest(batch(range(20)), table=table, provider=provider)
        headrace.query("DELETE FROM t WHERE provider = 'two'")
        headrace.query("DELETE FROM other")
        found = [engine.ingest(batch(range(20)), table=table, provider=provider).inserted
                 for table, provider in (("t", "one"), ("t", "two"), ("other", "one"))]  # fmt: skip
    assert found == [0, 20, 20]


def test_a_call_that_failed_leaves_nothing_to_believe(
    store_url: str, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    monkeypatch.setattr("headrace.engine.open_store", partial(open_store, on_statement=statements.append))
    with engine_over(store_url, on_error="fail", alerts=()) as engine:
        engine.ingest(batch(range(10)))
        with pytest.raises(HeadraceError):
            engine.ingest(pa.table({"other": [1]}))
        statements.clear()
        assert engine.ingest(batch(range(10))).duplicate_in_store == 10
        assert not any("wanted" in one or "headrace_number" in one for one in statements)  # fetched, not asked


def test_a_ledger_that_was_dropped_under_an_engine_is_made_anew_after_the_call_that_misses_it(
    store_url: str, headrace: Headrace
) -> None:
    with engine_over(store_url) as engine:
        engine.ingest(batch(range(10)))
        for table in ("contracts", "runs", "receipts", "rejects"):
            headrace.query(f"DROP TABLE headrace_{table}")
        with pytest.raises(HeadraceError):
            engine.ingest(batch(range(20)))
        assert engine.ingest(batch(range(20))).inserted == 10
    assert headrace.count("t") == 20


@pytest.mark.parametrize("way", [{}, {"mode": "parallel", "workers": 2}], ids=["sequential", "parallel"])
@pytest.mark.parametrize("what", ["removed", "replaced by an older copy", "replaced by an empty file"])
def test_an_sqlite_file_that_is_not_the_one_any_more_is_opened_anew(
    sqlite_url: str, tmp_path: Path, what: str, way: dict[str, Any]
) -> None:
    path, copy = Path(sqlite_url.removeprefix("sqlite:///")), tmp_path / "copy.db"
    with engine_over(sqlite_url, **way) as engine:
        engine.ingest(batch(range(5)))
        load(batch(range(5)), to=f"sqlite:///{copy}", table="t", id=["key"])
        engine.ingest(batch(range(10)))
        for end in ("-wal", "-shm", ""):
            Path(f"{path}{end}").unlink(missing_ok=True)
        if what == "replaced by an older copy":
            shutil.move(copy, path)
        elif what == "replaced by an empty file":
            path.touch()
        report = engine.ingest(batch(range(20)))
        assert report.inserted == (15 if "older" in what else 20)
        assert engine.ingest(batch(range(20))).duplicate_in_store == 20
    assert Headrace(sqlite_url, tmp_path).count("t") == 20
