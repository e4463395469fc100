"""Different meaning, different ID; same meaning, same ID: from a file to the ID, under each contract type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.evidence import keep_pairs
from support.program import scaled

from headrace.events.prepare import prepare
from headrace.partitioning.contract import Contract, LogicalType, arrow_type
from headrace.reading.inputs import ReadOptions, open_inputs

Ids = list[str | None]


def numbers_of(meanings: Sequence[Sequence[object]]) -> list[int]:
    return [number for number, spellings in enumerate(meanings) for _ in spellings]


def ids_of(item: object, kind: LogicalType, timezone: str = "UTC", provider: str = "p", *, time: bool = False) -> Ids:
    """The ID of each row's column ``v`` in input order, ``None`` for a reject."""
    options = ReadOptions(types={"v": kind}, timezone=timezone)
    (source,) = open_inputs([item], options, None)
    found: dict[int, str] = {}
    rows = 0
    for chunk in source.chunks(pa.schema([("v", arrow_type(kind))]), options):
        # a blank alone would be no identity at all
        whole = replace(chunk, batch=chunk.batch.append_column("one", pa.array([1] * chunk.batch.num_rows, pa.int64())))
        identity: tuple[tuple[str, LogicalType], ...] = (("v", kind), ("one", "integer"))
        prepared = prepare(whole, Contract(identity, time="v" if time else None, timezone=timezone), provider)
        rows += prepared.read
        assert prepared.rows is not None
        found |= dict(zip(prepared.rows.tolist(), (row.tobytes().hex() for row in prepared.ids), strict=True))
    return [found.get(row) for row in range(rows)]


def csv_ids(folder: Path, kind: LogicalType, cells: Sequence[str], timezone: str = "UTC", *, time: bool = False) -> Ids:
    path = folder / "x.csv"
    path.write_bytes(("v,w\n" + "".join(f"{cell},1\n" for cell in cells)).encode())
    return ids_of(path, kind, timezone, time=time)


def json_ids(folder: Path, kind: LogicalType, lines: Sequence[str]) -> Ids:
    path = folder / "x.jsonl"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return ids_of(path, kind)


# Each inner list is one meaning, spelled in several ways; two lists are two meanings.
CSV_MEANINGS: list[tuple[LogicalType, list[list[str]]]] = [
    (
        "float",
        [
            ["0", "-0", "0.0", "-0.0", "0e0", "-0.000"],
            ["1", "1.0", "1.", "1e0", "+1", "01", " 1 ", '"1"', '" 1.00"'],
            ["-1", "-1.0"],
            [".5", "0.5", "5e-1"],
            ["5e-324", "4.9406564584124654e-324"],
            ["0.1", "0.10000000000000000555", "1e-1"],
            ["0.10000000000000002"],
            ["9007199254740993", "9007199254740992"],  # one double
            ["", " "],
        ],
    ),
    (
        "integer",
        [
            ["0", "-0", "0.0", "-0.0"],
            ["1", "1.0", "1.", "+1", "1e0", " 1", '"1"'],
            ["100", "1e2", "1.0e2"],
            ["9007199254740993"],
            ["9007199254740992"],
            ["9223372036854775807"],
            ["-9223372036854775808"],
            ["", '" "'],
        ],
    ),
    (
        "decimal",
        [
            ["0", "-0", "0.00", ".0"],
            ["1", "1.0", "01", "1e0", "1.000000000000"],
            ["0.000000001", "1E-9", ".000000001"],
            ["12345678901234567890123456789.123456789"],
            ["12345678901234567890123456789.123456788"],
            ["-0.5", "-.50"],
            [""],
        ],
    ),
    (
        "string",
        [
            ["1", '"1"'],
            ["1.0"],
            ["01"],
            ["-0"],
            ["0"],
            ["\u00e9", "e\u0301"],  # NFC and NFD
            ["\u1e9b\u0323", "\u017f\u0323\u0307"],
            ["\uac00", "\u1100\u1161"],
            ["\ufb01"],  # compatibility forms stay apart: NFC is not NFKC
            ["fi"],
            ["\u212b", "\u00c5", "A\u030a"],  # the angstrom sign is the letter
            ["E"],
            ["e"],
            [""],
            ['""'],
            [" "],
            ["\ufeff1"],
            ["\u200b"],
            ["null"],
            ["\\N"],
            ["\\."],
            ['"a,b"'],
            ['"a""b"'],
            ['"a\nb"'],
            ['"a\r\nb"'],
            ['"a\tb"'],
            ["\U0001f600"],
        ],
    ),
    ("bool", [["true", "T", "yes", "Y", "1", '"1"', " TRUE "], ["false", "f", "no", "N", "0"], [""]]),
    (
        "date",
        [["0001-01-01"], ["1582-10-10"], ["1969-12-31", " 1969-12-31"], ["1970-01-01"], ["2024-02-29"], ["8000-12-31"]],
    ),
    (
        "timestamp",
        [
            ["0001-01-01", "0001-01-01T00:00:00Z", "0001-01-01 01:00:00+01:00"],
            ["1969-12-31T23:59:59.999999Z", "1970-01-01T00:59:59.999999+01"],
            ["1970-01-01", "1970-01-01T00:00:00+00:00", "1970-01-01 00:00 UTC", "1969-12-31T24:00:00Z"],
            ["1969-12-31T23:59:59.999Z"],
            ["2020-01-01T00:00:00.1Z", "2020-01-01 00:00:00.100000000+0000", "2020-01-01T05:45:00.1+05:45"],
            ["2020-01-01T00:00:00.100001Z"],
            ["8000-12-31T23:59:59.999999Z", "8001-01-01T00:59:59.999999+01:00"],
            [""],
        ],
    ),
    ("bytes", [["a", '"a"'], ["A"], ["\u00e9"], ["e\u0301"], ["1", '"1"'], ["1.0"], [""], ['""'], [" "]]),
]
REFUSED: list[tuple[LogicalType, list[str]]] = [
    ("float", ["nan", "inf", "-Infinity", "1e400", "0x1A", "1_000", "1d", "\u0661", "\uff11", "one"]),
    ("integer", ["007", "1.5", "9223372036854775808", "0x1A", "1_000", "\uff11", "1e-1", "true"]),
    ("decimal", ["0.0000000001", "1e-10", "123456789012345678901234567890", "nan"]),
    ("bool", ["2", "ja", "10", "1.0"]),
    ("date", ["1", "1.0", '"1"', "2022-02-29", "2022-2-1", "2022-01-01T00:00:00", "01/02/2022"]),
    (
        "timestamp",
        [
            "1",
            "1.0",
            '"1"',
            "2016-12-31T23:59:60Z",
            "2020-01-01T00:00:00.1234567Z",
            "2020-01-01T25:00Z",
            "20200101",
            "now",
        ],
    ),
]


def partition_by_id(ids: Ids) -> list[list[int]]:
    groups: dict[str | None, list[int]] = {}
    for row, one in enumerate(ids):
        groups.setdefault(one, []).append(row)
    return sorted(groups.values())


def by_meaning(meanings: Sequence[Sequence[object]]) -> list[list[int]]:
    groups, at = [], 0
    for spellings in meanings:
        groups.append(list(range(at, at + len(spellings))))
        at += len(spellings)
    return groups


@pytest.mark.parametrize(("kind", "meanings"), CSV_MEANINGS, ids=[kind for kind, _ in CSV_MEANINGS])
def test_ids_differ_exactly_where_meanings_do(tmp_path: Path, kind: LogicalType, meanings: list[list[str]]) -> None:
    ids = csv_ids(tmp_path, kind, [cell for spellings in meanings for cell in spellings])
    keep_pairs(kind, "CSV", numbers_of(meanings), ids)
    assert None not in ids
    assert partition_by_id(ids) == by_meaning(meanings)


@pytest.mark.parametrize(("kind", "cells"), REFUSED, ids=[kind for kind, _ in REFUSED])
def test_what_has_no_exact_meaning_has_no_id(tmp_path: Path, kind: LogicalType, cells: list[str]) -> None:
    ids = csv_ids(tmp_path, kind, cells)
    keep_pairs(f"{kind}, no exact meaning", "CSV", [None] * len(cells), ids)
    assert ids == [None] * len(cells)


JSON_MEANINGS: list[tuple[LogicalType, list[list[str]]]] = [
    (
        "string",
        [
            ['{"v":1}', '{"v":"1"}', '{"\\u0076":1}', '{ "v" : 1, "v" : 2 }'],  # of two equal keys the first counts
            ['{"v":2}', '{"v":2,"v":1}'],
            ['{"v":"\\u00e9"}', '{"v":"\u00e9"}', '{"v":"e\\u0301"}', '{"v":"e\u0301"}'],
            ['{"v":null}', "{}", '{"w":1}', '{"V":"x"}'],
            ['{"v":""}'],
            ['{"v":" "}'],
            ['{"v":"null"}'],
            ['{"v":"a\\/b"}', '{"v":"a/b"}'],
            ['{"v":"\\ud83d\\ude00"}', '{"v":"\U0001f600"}'],
            ['{"v":true}', '{"v":"true"}'],
            ['{"v":{"a":1}}', '{"v":{"a": 1}}'],
            ['{"v":{"a":"1"}}'],
            ['{"v":[]}'],
            ['{"v":{}}'],
        ],
    ),
    (
        "integer",
        [
            ['{"v":1}', '{"v":1.0}', '{"v":"1"}', '{"v":1e0}', '{"v":"1.0"}'],
            ['{"v":-0}', '{"v":0}', '{"v":-0.0}'],
            ['{"v":9007199254740993}', '{"v":"9007199254740993"}'],
            ['{"v":9007199254740992}'],
            ['{"v":null}', "{}", '{"v":""}'],
        ],
    ),
    ("float", [['{"v":1}', '{"v":1.0}', '{"v":"1"}', '{"v":10e-1}'], ['{"v":-0.0}', '{"v":0}'], ['{"v":0.1}']]),
    ("decimal", [['{"v":0.1}', '{"v":"0.10"}', '{"v":1e-1}'], ['{"v":"12345678901234567890.5"}'], ['{"v":0}']]),
    ("bool", [['{"v":true}', '{"v":1}', '{"v":"1"}', '{"v":"yes"}'], ['{"v":false}', '{"v":0}'], ['{"v":""}', "{}"]]),
    ("bytes", [['{"v":1}', '{"v":"1"}'], ['{"v":1.0}', '{"v":"1.0"}'], ['{"v":null}', "{}"], ['{"v":""}']]),
    ("date", [['{"v":"1969-12-31"}'], ['{"v":"0001-01-01"}'], ['{"v":null}', "{}", '{"v":""}']]),
    ("timestamp", [['{"v":"1969-12-31T23:59:59.999999Z"}'], ['{"v":null}', "{}", '{"v":""}']]),
]
JSON_REFUSED: list[tuple[LogicalType, list[str]]] = [
    ("string", ['{"v":"\\ud800"}', '{"v":"\\udc00\\ud800"}', '{"v":"\\u0000"}', '{"v":"a}', "[1]", '"v"']),
    ("integer", ['{"v":9223372036854775808}', '{"v":1.5}', '{"v":"007"}', '{"v":[1]}', '{"v":true}']),
    ("bool", ['{"v":1.0}', '{"v":2}', '{"v":[true]}']),
    ("date", ['{"v":1}', '{"v":1.0}', '{"v":"1"}']),
    ("timestamp", ['{"v":1}', '{"v":1.0}', '{"v":"1"}', '{"v":true}']),
]


@pytest.mark.parametrize(("kind", "meanings"), JSON_MEANINGS, ids=[kind for kind, _ in JSON_MEANINGS])
def test_ids_of_json_differ_exactly_where_meanings_do(
    tmp_path: Path, kind: LogicalType, meanings: list[list[str]]
) -> None:
    ids = json_ids(tmp_path, kind, [line for spellings in meanings for line in spellings])
    keep_pairs(kind, "JSON lines", numbers_of(meanings), ids)
    assert None not in ids
    assert partition_by_id(ids) == by_meaning(meanings)


@pytest.mark.parametrize(("kind", "lines"), JSON_REFUSED, ids=[kind for kind, _ in JSON_REFUSED])
def test_json_without_an_exact_meaning_has_no_id(tmp_path: Path, kind: LogicalType, lines: list[str]) -> None:
    ids = json_ids(tmp_path, kind, lines)
    keep_pairs(f"{kind}, no exact meaning", "JSON lines", [None] * len(lines), ids)
    assert ids == [None] * len(lines)


def test_lone_surrogates_and_invalid_utf8_cost_their_row_alone(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"".join(at.to_bytes(4, "little") for at in (0, 1, 4, 5)))
    raw = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xed\xa0\x80b")])
    pq.write_table(pa.table({"v": raw}), tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_bytes(b"v,w\na,1\n\xed\xa0\x80,1\nb,1\n")
    dicts = [{"v": "a"}, {"v": "\ud800"}, {"v": "b"}]
    ways = [
        ids_of(item, "string") for item in (dicts, pa.table({"v": raw}), tmp_path / "x.parquet", tmp_path / "x.csv")
    ]
    everywhere = [one for ids in ways for one in ids]
    keep_pairs("lone surrogates", "dicts, Arrow, Parquet, CSV", ["a", None, "b"] * len(ways), everywhere)
    assert [one is None for one in ways[0]] == [False, True, False]
    assert ways == [ways[0]] * len(ways)


def test_a_value_means_the_same_whatever_brings_it(tmp_path: Path) -> None:
    moment = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    paris = moment.astimezone(ZoneInfo("Europe/Paris"))
    ways: list[tuple[LogicalType, str, list[object]]] = [
        ("timestamp", moment.isoformat(), [moment, paris, moment.replace(tzinfo=None)]),
        ("integer", "313", [313, 313.0, "313", Decimal("313.00"), " 3.13e2"]),
        ("float", "0", [0, -0.0, 0.0, "-0", Decimal("0E+3")]),
        ("decimal", "0.5", [0.5, "0.50", Decimal("0.500"), ".5"]),
        ("string", "e\u0301", ["\u00e9", "e\u0301"]),
        ("bool", "true", [True, 1, "yes"]),
    ]
    for kind, text, values in ways:
        ids = csv_ids(tmp_path, kind, [text])
        for value in values:
            ids += ids_of([{"v": value}], kind)
            pq.write_table(pa.table({"v": [value]}), tmp_path / "x.parquet")
            ids += ids_of(tmp_path / "x.parquet", kind)
        keep_pairs(kind, "CSV, dicts and Parquet", [text] * len(ids), ids)
        assert None not in ids
        assert set(ids) == {ids[0]}, (kind, ids)


def test_a_provider_is_the_same_in_nfc_and_nfd_and_no_other() -> None:
    rows = [{"v": "x"}]
    ids = [ids_of(rows, "string", provider=name)[0] for name in ("caf\u00e9", "cafe\u0301", "cafe")]
    keep_pairs("provider", "dicts", ["é", "é", "e"], ids)
    assert ids[0] == ids[1]
    assert ids[2] != ids[0]


MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(7999, 12, 31))


def test_an_instant_has_one_id_in_every_offset(tmp_path: Path) -> None:
    instants: list[datetime] = []
    ids: Ids = []

    @settings(max_examples=scaled(60, default=15))
    @given(st.lists(st.tuples(MOMENTS, st.integers(-14 * 60, 14 * 60)), min_size=1, max_size=12))
    def check(moments: list[tuple[datetime, int]]) -> None:
        aware = [(moment.replace(tzinfo=UTC), minutes) for moment, minutes in moments]
        offsets = [moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat() for moment, minutes in aware]
        here = csv_ids(tmp_path, "timestamp", [moment.isoformat() for moment, _ in aware], time=True)
        there = csv_ids(tmp_path, "timestamp", offsets, time=True)
        instants.extend([moment for moment, _ in moments] * 2)
        ids.extend(here + there)
        assert there == here
        assert len(set(here)) == len({moment for moment, _ in aware})
        assert None not in here

    try:
        check()
    finally:
        keep_pairs("instants in random offsets", "CSV", instants, ids)


# Zones whose rules have stood for long; clocks set back and forward by an hour, by half an hour, by a whole day
ZONES = {
    "Europe/Berlin": [(1996, 3, 31), (1996, 10, 27), (2021, 3, 28), (2021, 10, 31)],
    "America/New_York": [(2006, 4, 2), (2006, 10, 29), (2021, 3, 14), (2021, 11, 7)],
    "Australia/Lord_Howe": [(2019, 10, 6), (2020, 4, 5)],
    "America/St_Johns": [(2015, 3, 8), (2015, 11, 1)],
    "Asia/Kathmandu": [(2000, 1, 1)],
    "Pacific/Apia": [(2011, 12, 30), (2011, 12, 31)],
}


@pytest.mark.parametrize("zone", ZONES)
def test_local_times_are_the_instants_of_the_time_zone_database(tmp_path: Path, zone: str) -> None:
    """A time that comes twice is the earlier one, a time that never was is refused: as `zoneinfo` has it."""
    local = ZoneInfo(zone)
    naive = [
        datetime(*day) + timedelta(minutes=15 * step, microseconds=1) for day in ZONES[zone] for step in range(-96, 192)
    ]
    instants = [moment.replace(tzinfo=local, fold=0).astimezone(UTC) for moment in naive]
    real = [
        instant.astimezone(local).replace(tzinfo=None) == moment
        for instant, moment in zip(instants, naive, strict=True)
    ]
    ids = csv_ids(tmp_path, "timestamp", [moment.isoformat() for moment in naive], zone, time=True)
    same = csv_ids(tmp_path, "timestamp", [instant.isoformat() for instant in instants], zone, time=True)
    meanings = [instant if is_real else None for instant, is_real in zip(instants, real, strict=True)]
    keep_pairs(f"local times, {zone}", "CSV", meanings + instants, ids + same)
    assert ids == [one if is_real else None for one, is_real in zip(same, real, strict=True)]
    assert len({one for one in ids if one}) == len({moment for moment, one in zip(naive, ids, strict=True) if one})


def test_the_order_of_keys_and_the_place_of_a_duplicate_say_nothing(tmp_path: Path) -> None:
    values = ["", "x", 'a"b', "a,b", "a\nb", "\u2028", "\\", "\t"]
    lines = [json.dumps({"v": value, "w": 1}) for value in values] + [json.dumps({"w": 1, "v": v}) for v in values]
    ids = json_ids(tmp_path, "string", lines)
    keep_pairs("order of members", "JSON lines", values * 2, ids)
    assert ids[: len(values)] == ids[len(values) :]
    assert len(set(ids)) == len(values)
    (tmp_path / "x.json").write_text(json.dumps([{"v": value} for value in values]))
    assert ids_of(tmp_path / "x.json", "string") == ids[: len(values)]
