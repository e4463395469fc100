"""Event tables: what goes in comes out, what cannot be reconciled is refused, and names are only names."""

from __future__ import annotations

import datetime as dt
import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from contract.pieces import (
    SCHEMA,
    TABLE,
    WAYS,
    batch,
    look,
    make,
    new_ids,
    open_run,
    piece,
    prepared,
    second_connection,
    stored_ids,
)

from headrace.errors import SchemaError, StoreError
from headrace.storage import open_store
from headrace.storage.records import Existing
from headrace.storage.store import Store

UTC = dt.UTC
DAY_ONE, LAST_MOMENT = dt.datetime(1, 1, 1, tzinfo=UTC), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
# column, canonical type, values: nulls and extremes of each
VALUES: list[tuple[str, pa.DataType, list[Any]]] = [
    ("flag", pa.bool_(), [True, False, None]),
    ("whole", pa.int64(), [-(2**63), 2**63 - 1, None]),
    ("real", pa.float64(), [1.7976931348623157e308, 5e-324, None]),
    ("moment", pa.timestamp("us", tz="UTC"), [DAY_ONE, LAST_MOMENT, None]),
    ("day", pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31), None]),
    ("exact", pa.decimal128(38, 4), [Decimal("-9" * 1 + "9" * 33 + ".9999"), Decimal("0.0001"), None]),
    ("money", pa.decimal128(38, 0), [Decimal(10) ** 37, Decimal(0), None]),
    ("text", pa.string(), ["", "naïve 🜁 \u202e ' \" \\ ; --", None]),
    ("bytes", pa.binary(), [b"", bytes(range(256)), None]),
]
EVERY_TYPE = pa.schema([(name, arrow) for name, arrow, _ in VALUES])


def test_every_type_comes_back_as_the_same_type(store: Store) -> None:
    assert store.tables.schema(TABLE) is None
    assert store.tables.create_or_widen(TABLE, EVERY_TYPE, time_index="moment") is True
    assert store.tables.create_or_widen(TABLE, EVERY_TYPE, time_index="moment") is False
    assert store.tables.schema(TABLE) == EVERY_TYPE


@pytest.mark.parametrize("existing", WAYS)
def test_every_value_comes_back_as_the_same_value(store_url: str, existing: Existing) -> None:
    events = batch(new_ids(3), {name: pa.array(values, arrow) for name, arrow, values in VALUES})
    with open_store(store_url) as store:
        prepared(store, schema=EVERY_TYPE)
        store.events.commit(piece(events, existing=existing))
    names = ", ".join(EVERY_TYPE.names)
    rows = look(store_url, f"SELECT {names} FROM {TABLE} ORDER BY event_id")  # noqa: S608 - names of this file
    for (name, arrow, values), stored in zip(VALUES, zip(*rows, strict=True), strict=True):
        assert [_as_python(value, arrow) for value in stored] == values, name


def _as_python(value: Any, arrow: pa.DataType) -> Any:
    """A value as another client reads it; SQLite's texts are parsed by Python, not by the code under test."""
    if isinstance(value, str) and pa.types.is_timestamp(arrow):
        return dt.datetime.fromisoformat(value).replace(tzinfo=UTC)
    if isinstance(value, str) and pa.types.is_date(arrow):
        return dt.date.fromisoformat(value)
    if isinstance(value, str) and pa.types.is_decimal(arrow):
        return Decimal(value)
    return bool(value) if pa.types.is_boolean(arrow) and value is not None else value


def test_postgresql_keeps_the_floats_that_are_not_numbers(postgres_url: str) -> None:
    events = batch(new_ids(4), {"x": pa.array([math.nan, math.inf, -math.inf, -0.0], pa.float64())})
    with open_store(postgres_url) as store:
        prepared(store, schema=pa.schema([("x", pa.float64())]))
        store.events.commit(piece(events))
    nan, *rest = [x for (x,) in look(postgres_url, f"SELECT x FROM {TABLE} ORDER BY event_id")]  # noqa: S608
    assert math.isnan(nan)
    assert rest[:2] == [math.inf, -math.inf]
    assert math.copysign(1.0, rest[2]) == -1.0


def test_sqlite_keeps_infinity_but_no_nan_and_no_sign_of_zero(sqlite_url: str) -> None:
    events = batch(new_ids(4), {"x": pa.array([math.nan, math.inf, -math.inf, -0.0], pa.float64())})
    with open_store(sqlite_url) as store:
        prepared(store, schema=pa.schema([("x", pa.float64())]))
        store.events.commit(piece(events))
    found = [x for (x,) in look(sqlite_url, f"SELECT x FROM {TABLE} ORDER BY event_id")]  # noqa: S608
    assert found == [None, math.inf, -math.inf, 0.0]


def test_a_dictionary_column_is_written_as_its_values(store_url: str) -> None:
    coded = pa.array(["a", "b", "a"]).dictionary_encode()
    with open_store(store_url) as store:
        prepared(store, schema=pa.schema([("s", pa.string())]))
        store.events.commit(piece(batch(new_ids(3), {"s": coded})))
    assert look(store_url, f"SELECT s FROM {TABLE} ORDER BY event_id") == [("a",), ("b",), ("a",)]  # noqa: S608


def test_columns_that_the_table_lacks_are_added_and_take_values(store_url: str) -> None:
    wider = SCHEMA.append(pa.field("added", pa.decimal128(38, 2)))
    with open_store(store_url) as store, open_store(store_url) as other:
        prepared(store)
        other.events.commit(piece(new_ids(1), first_row=50))  # this one has met the narrow table
        assert store.tables.create_or_widen(TABLE, wider, time_index=None) is False
        assert store.tables.schema(TABLE) == wider
        data = {**dict(zip(SCHEMA.names, batch(new_ids(1)).columns, strict=False)), "added": _cents("1.50")}
        other.events.commit(piece(batch(new_ids(1, seed=2), data), first_row=60))
        assert store.tables.create_or_widen(TABLE, pa.schema([("n", pa.int64())]), time_index=None) is False
    assert [x for (x,) in look(store_url, f"SELECT added FROM {TABLE} WHERE added IS NOT NULL")] in (  # noqa: S608
        [Decimal("1.50")],
        ["1.50"],
    )


def _cents(text: str) -> pa.Array:
    return pa.array([Decimal(text)], pa.decimal128(38, 2))


def test_a_type_that_clashes_names_column_both_types_and_a_way_out(store: Store) -> None:
    prepared(store)
    with pytest.raises(SchemaError) as raised:
        store.tables.create_or_widen(TABLE, pa.schema([("n", pa.string())]), time_index=None)
    message = str(raised.value)
    assert all(word in message for word in ("column n", "string", "integer", "--type n=integer")), message


HOSTILE = [
    'say "hi"; DROP TABLE headrace_runs; --',
    "it's 100%s %(x)s :y ?",
    "select",
    "Größe µ 表",
    "back\\slash",
    "dot.ted",
    "n" * 60,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_names(store_url: str, name: str) -> None:
    schema = pa.schema([(name, pa.int64()), ("t", pa.timestamp("us", tz="UTC"))])
    ids = new_ids(3)
    times = pa.array([0, 1, 2], pa.timestamp("us", tz="UTC"))
    with open_store(store_url) as store:
        prepared(store, schema=schema, table=name)
        events = batch(ids, {name: pa.array([1, 2, 3], pa.int64()), "t": times})
        store.events.commit(piece(events, table=name))
        store.events.commit(piece(events, table=name, existing="conflict", first_row=9))
        wider = schema.append(pa.field(name[:30] + " too", pa.string()))
        store.tables.create_or_widen(name, wider, time_index=None)
        assert store.tables.schema(name) == wider
        assert len(b"".join(store.events.fetch_ids(name))) == 48
        assert sum(len(block.ids) for block in store.events.holdings(name)) == 48
        found = store.origin(name, ids[0])
        assert found is not None
        assert found.row[name] == 1
        store.ledger.pin_contract(name, "{}")
        assert store.ledger.tables() == [name]


@pytest.mark.parametrize("table", ["t" * 64, "é" * 32])
def test_postgresql_never_cuts_a_table_name(postgres_url: str, table: str) -> None:
    with open_store(postgres_url) as store, pytest.raises(SchemaError, match="64 bytes"):
        store.tables.create_or_widen(table, SCHEMA, time_index=None)


def test_postgresql_never_cuts_a_column_name(postgres_url: str) -> None:
    with open_store(postgres_url) as store, pytest.raises(SchemaError, match="64 bytes") as raised:
        store.tables.create_or_widen(TABLE, pa.schema([("c" * 64, pa.int64())]), time_index=None)
    assert "c" * 64 in str(raised.value)


# Tables that are the user's own ------------------------------------------------------------------------------------


def test_a_table_without_a_unique_key_is_refused_with_the_statement_that_cures_it(store_url: str) -> None:
    make(store_url, "CREATE TABLE mine (n bigint)")
    with open_store(store_url) as store:
        with pytest.raises(SchemaError) as raised:
            store.tables.schema("mine")
        if store_url.startswith("postgresql"):
            cure = str(raised.value.hint).split(";")[0]
            assert cure.startswith("ALTER TABLE"), raised.value
            make(store_url, cure)
            assert store.tables.schema("mine") == pa.schema([("n", pa.int64())])


@pytest.mark.parametrize("key", ["", ", UNIQUE (event_id, n)"])
def test_a_key_that_is_not_on_the_event_id_alone_is_no_authority(store_url: str, key: str) -> None:
    kind = "uuid" if store_url.startswith("postgresql") else "blob"
    make(store_url, f"CREATE TABLE mine (n bigint, event_id {kind}, provider text, headrace_receipt bigint{key})")
    with open_store(store_url) as store, pytest.raises(SchemaError, match="unique key on event_id"):
        store.tables.schema("mine")


def test_a_partial_unique_index_is_no_authority(store_url: str) -> None:
    kind = "uuid" if store_url.startswith("postgresql") else "blob"
    make(
        store_url,
        f"CREATE TABLE mine (n bigint, event_id {kind}, provider text, headrace_receipt bigint)",
        "CREATE UNIQUE INDEX partial_key ON mine (event_id) WHERE n > 0",
    )
    with open_store(store_url) as store, pytest.raises(SchemaError, match="unique key on event_id"):
        store.tables.schema("mine")


NARROW = """
    CREATE TABLE events (
        i2 smallint, i4 integer, f4 real, amount numeric(9, 2),
        v varchar(9), c char(3), ts timestamp, ts0 timestamptz(0),
        event_id uuid PRIMARY KEY, provider varchar(20), headrace_receipt bigint, note text DEFAULT 'x'
    )"""
NARROW_VALUES: dict[str, pa.Array] = {
    "i2": pa.array([-32768, 32767], pa.int64()),
    "i4": pa.array([-(2**31), None], pa.int64()),
    "f4": pa.array([1.5, None], pa.float64()),
    "v": pa.array(["ninechars", ""]),
    "c": pa.array(["abc", None]),
    "ts": pa.array([0, None], pa.timestamp("us", tz="UTC")),
    "ts0": pa.array([1_000_000, None], pa.timestamp("us", tz="UTC")),
    "amount": pa.array([Decimal("-1234567.89"), None], pa.decimal128(38, 2)),
}


@pytest.mark.parametrize("existing", WAYS)
def test_the_users_narrower_types_are_met_exactly(postgres_url: str, existing: Existing) -> None:
    make(postgres_url, NARROW)
    with open_store(postgres_url) as store:
        store.ledger.prepare()
        open_run(store)
        store.events.commit(piece(batch(new_ids(2), NARROW_VALUES), existing=existing))
    rows = look(postgres_url, "SELECT i2, i4, f4, v, c, ts::text, amount, note FROM events ORDER BY event_id")
    assert rows == [
        (-32768, -(2**31), 1.5, "ninechars", "abc", "1970-01-01 00:00:00", Decimal("-1234567.89"), "x"),
        (32767, None, None, "", None, None, None, "x"),
    ]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("i2", pa.array([32768], pa.int64())),
        ("i4", pa.array([-(2**31) - 1], pa.int64())),
        ("f4", pa.array([1e39], pa.float64())),
        ("v", pa.array(["ten chars!"])),
        ("amount", pa.array([Decimal("12345678.00")], pa.decimal128(38, 2))),
    ],
)
def test_a_value_out_of_the_columns_range_is_refused_by_name(postgres_url: str, column: str, value: pa.Array) -> None:
    make(postgres_url, NARROW)
    with open_store(postgres_url) as store:
        store.ledger.prepare()
        open_run(store)
        with pytest.raises((SchemaError, StoreError), match=f"column {column}"):
            store.events.commit(piece(batch(new_ids(1), {column: value})))
    assert stored_ids(postgres_url) == []


@pytest.mark.parametrize("constraint", ["NOT NULL", "CHECK (n > 1)", "UNIQUE"])
@pytest.mark.parametrize("existing", WAYS)
def test_another_constraint_of_the_table_is_never_passed_over(
    store_url: str, existing: Existing, constraint: str
) -> None:
    kind = "uuid" if store_url.startswith("postgresql") else "blob"
    key = f"event_id {kind} PRIMARY KEY, provider text, headrace_receipt bigint"
    make(store_url, f"CREATE TABLE events (n bigint {constraint}, {key})")
    values = {"NOT NULL": [2, None], "CHECK (n > 1)": [2, 1], "UNIQUE": [2, 2]}[constraint]
    with open_store(store_url) as store:
        store.ledger.prepare()
        open_run(store)
        with pytest.raises(StoreError) as raised:
            store.events.commit(piece(batch(new_ids(2), {"n": pa.array(values, pa.int64())}), existing=existing))
    assert not raised.value.retryable
    assert constraint.split(maxsplit=1)[0].lower() in str(raised.value).lower().replace("not-null", "not null")
    assert stored_ids(store_url) == []


def test_processes_that_prepare_at_once_agree(store_url: str) -> None:
    def prepare(number: int) -> bool:
        with open_store(store_url) as store:
            store.ledger.prepare()
            own = pa.schema([*SCHEMA, (f"c{number % 3}", pa.int64())])
            return store.tables.create_or_widen(TABLE, own, time_index="t")

    with ThreadPoolExecutor(6) as pool:
        created = list(pool.map(prepare, range(6)))
    assert sorted(created) == [False] * 5 + [True]
    with open_store(store_url) as store:
        held = store.tables.schema(TABLE)
    assert held is not None
    assert set(held.names) == {"n", "t", "s", "c0", "c1", "c2"}


def test_tables_live_in_the_schema_that_the_search_path_names(postgres_url: str) -> None:
    make(postgres_url, "CREATE SCHEMA mine")
    with open_store(postgres_url + "&options=-csearch_path%3Dmine") as store:
        prepared(store).events.commit(piece(new_ids(2)))
        assert store.tables.schema(TABLE) == SCHEMA
    assert look(postgres_url, "SELECT count(*) FROM mine.events") == [(2,)]
    with open_store(postgres_url) as elsewhere:
        assert elsewhere.tables.schema(TABLE) is None


def test_the_time_index_is_there(store_url: str) -> None:
    with open_store(store_url) as store:
        store.tables.create_or_widen(TABLE, SCHEMA, time_index="t")
    with second_connection(store_url) as connection:
        indexed = [index["column_names"] for index in sa.inspect(connection).get_indexes(TABLE)]
    assert ["t"] in indexed


def test_names_that_sqlite_takes_for_one_are_refused_with_both_shown(sqlite_url: str) -> None:
    """A contract is found by its table's name: under another spelling the same table would have had a second one."""
    with open_store(sqlite_url) as store:
        with pytest.raises(SchemaError, match=r"'Key' and 'key' are one column") as caught:
            store.tables.create_or_widen(
                "Fires", pa.schema([("Key", pa.int64()), ("key", pa.int64())]), time_index=None
            )
        assert caught.value.hint is not None
        assert "--select" in caught.value.hint
        store.tables.create_or_widen(
            "Fires", pa.schema([("Key", pa.int64()), ("É", pa.int64()), ("é", pa.int64())]), time_index=None
        )
        with pytest.raises(SchemaError, match=r"'Key' and 'KEY' are one column"):
            store.tables.create_or_widen("Fires", pa.schema([("KEY", pa.int64())]), time_index=None)
        with pytest.raises(SchemaError, match=r"'event_id' and 'Event_ID' are one column"):
            store.tables.create_or_widen("Fires", pa.schema([("Event_ID", pa.int64())]), time_index=None)
        with pytest.raises(SchemaError, match=r"has this table as 'Fires'") as caught:
            store.tables.schema("fires")
        assert caught.value.hint is not None
        assert "--table Fires" in caught.value.hint


def test_names_that_postgresql_tells_apart_are_two(postgres_url: str) -> None:
    with open_store(postgres_url) as store:
        schema = pa.schema([("Key", pa.int64()), ("key", pa.string())])
        for table in ("Fires", "fires"):
            store.tables.create_or_widen(table, schema, time_index=None)
            assert store.tables.schema(table) == schema
