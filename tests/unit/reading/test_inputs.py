"""What the source layer promises: every row arrives typed or as a reject, in order, with its place in the input."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigurationError, InputError, SchemaError
from headrace.reading.chunk import Chunk
from headrace.reading.inputs import Input, ReadOptions, open_inputs
from headrace.storage.rejects import Reject

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12)


def only(item: object, options: ReadOptions | None = None) -> Input:
    (opened,) = open_inputs([item], options or ReadOptions(), None)
    return opened


def read(
    item: object, options: ReadOptions | None = None, schema: pa.Schema | None = None
) -> tuple[pa.Table, list[Reject], list[Chunk]]:
    options = options or ReadOptions()
    source = only(item, options)
    schema = schema or source.infer(options)
    chunks = list(source.chunks(schema, options))
    table = pa.Table.from_batches([chunk.batch for chunk in chunks], schema)
    return table, [reject for chunk in chunks for reject in chunk.rejects], chunks


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def strings(*names: str) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=30),
    chunk_rows=st.integers(1, 40),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_rows_and_lines_are_those_of_the_csv_module(
    tmp_path: Path, rows: list[tuple[str, str, str]], chunk_rows: int, quoting: int, end: str
) -> None:
    if quoting == csv.QUOTE_MINIMAL:  # the csv module leaves a lone CR unquoted, and then it ends the record
        rows = [(a.replace("\r", ""), b.replace("\r", ""), c.replace("\r", "")) for a, b, c in rows]
    written = io.StringIO()
    writer = csv.writer(written, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]  # an int of the enum
    writer.writerows([("a", "b", "c"), *rows])
    path = file(tmp_path, "x.csv", written.getvalue())
    options = ReadOptions(chunk_rows=chunk_rows)
    source = only(path, options)
    chunks = list(source.chunks(strings("a", "b", "c"), options))
    got = [tuple(value or "" for value in row.values()) for chunk in chunks for row in chunk.batch.to_pylist()]
    assert got == rows
    assert [reject for chunk in chunks for reject in chunk.rejects] == []
    numbers = [int(row) for chunk in chunks if chunk.rows is not None for row in chunk.rows]
    assert numbers == list(range(len(rows)))
    reader = csv.reader(io.StringIO(written.getvalue(), newline=""))
    starts = [1, *(reader.line_num + 1 for _ in reader)]
    places = source.locate(numbers)
    assert {row: line for row, (line, _) in places.items()} == {row: starts[row + 1] for row in numbers}
    assert all(next(csv.reader([raw], strict=True)) == list(rows[row]) for row, (_, raw) in places.items() if raw)


def test_csv_records_with_a_wrong_number_of_fields_are_rejects_in_their_place(tmp_path: Path) -> None:
    path = file(tmp_path, "x.csv", 'a,b\n1,2\n\n3\n4,"x\ny"\n5,6,7\n8,9\n10\n')
    table, rejects, chunks = read(path, ReadOptions(chunk_rows=2))
    assert table.column("a").to_pylist() == [1, 4, 8]
    assert [(r.row, r.line, r.raw, r.record) for r in rejects] == [
        (1, 4, "3", None),
        (3, 7, "5,6,7", None),
        (5, 9, "10", None),
    ]
    assert [(c.address.first_row, c.address.rows, c.batch.num_rows, len(c.rejects)) for c in chunks] == [
        (0, 2, 1, 1),
        (2, 2, 1, 1),
        (4, 2, 1, 1),
    ]
    assert [row for c in chunks if c.rows is not None for row in c.rows.tolist()] == [0, 2, 4]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(widths=st.lists(st.integers(1, 4), min_size=1, max_size=60), chunk_rows=st.integers(1, 20))
def test_every_csv_record_arrives_once_whatever_its_width(tmp_path: Path, widths: list[int], chunk_rows: int) -> None:
    lines = [",".join(f"r{number}" for _ in range(width)) for number, width in enumerate(widths)]
    path = file(tmp_path, "x.csv", "a,b\n" + "\n".join(lines) + "\n")
    table, rejects, chunks = read(path, ReadOptions(chunk_rows=chunk_rows), strings("a", "b"))
    good = {f"r{number}" for number, width in enumerate(widths) if width == 2}
    assert set(table.column("a").to_pylist()) == good
    assert {r.row: (r.line, r.raw) for r in rejects} == {
        number: (number + 2, lines[number]) for number, width in enumerate(widths) if width != 2
    }
    assert sum(chunk.address.rows for chunk in chunks) == len(widths)


@pytest.mark.parametrize("mark", ["", "\ufeff", "\ufeff\ufeff", "\ufeff\ufeff\ufeff"])
@pytest.mark.parametrize("end", ["\n", ",x\n"])
def test_a_byte_order_mark_beside_the_first_is_text_and_costs_no_record(tmp_path: Path, mark: str, end: str) -> None:
    """Two readers each took one away: of a first line with nothing else there then was a record less."""
    path = file(tmp_path, "x.csv", mark + "a" + end + "".join(f"{number}{end}" for number in range(9)))
    bare = file(tmp_path, "y.csv", mark + end + "".join(f"{number}{end}" for number in range(9)))
    for written, name in ((path, "a"), (bare, "")):
        header = mark.removeprefix("\ufeff") + name
        if not header and end == "\n":
            continue  # an empty line is no record
        table, rejects, chunks = read(written, ReadOptions(chunk_rows=4))
        assert rejects == []
        assert table.column_names[0] == (header or "column0")
        assert table.column(0).to_pylist() == list(range(9))
        assert [(chunk.address.first_row, chunk.address.rows) for chunk in chunks] == [(0, 4), (4, 4), (8, 1)]


def test_a_byte_order_mark_behind_a_long_record_is_its_cell_s_text(tmp_path: Path) -> None:
    """What follows a record longer than a block is read by a reader that begins there."""
    rows = [*((str(number), "x" * 100_000) for number in range(30)), ("\ufeff", "z"), ("3", "w")]
    lines = ["a,b", *map(",".join, rows)]
    lines.insert(31, "y" * (9 << 20))
    _, rejects, chunks = read(file(tmp_path, "x.csv", "\n".join(lines) + "\n"), ReadOptions(), strings("a", "b"))
    got = [(row["a"], row["b"][:1]) for chunk in chunks for row in chunk.batch.to_pylist()]
    assert got == [(a, b[:1]) for a, b in rows]
    assert [reject.row for reject in rejects] == [30]


def test_bytes_that_are_no_utf8_cost_their_row_alone(tmp_path: Path) -> None:
    path = file(tmp_path, "x.csv", b"a,b\n1,ok\n2,\xff\xfe!\n3,\xc3\xa9\n\xff\n4,ok\n")
    table, rejects, _ = read(path)
    assert table.to_pylist() == [{"a": 1, "b": "ok"}, {"a": 3, "b": "é"}, {"a": 4, "b": "ok"}]
    assert [(r.row, r.line, r.raw) for r in rejects] == [(1, 3, "2,\\xff\\xfe!"), (3, 5, "\\xff")]
    path = file(tmp_path, "x.jsonl", b'{"a":1}\n\n{"a":"\xff"}\nnot json\n[1]\n{"a":2}\r\n')
    table, rejects, _ = read(path)
    assert table.to_pylist() == [{"a": 1}, {"a": 2}]
    assert [(r.row, r.line, r.raw) for r in rejects] == [(1, 3, '{"a":"\\xff"}'), (2, 4, "not json"), (3, 5, "[1]")]


def test_a_quote_that_never_closes_is_a_reject_and_not_a_value(tmp_path: Path) -> None:
    path = file(tmp_path, "x.csv", 'a,b\n1,2\n3,"x\n4,5\n6,7\n')
    table, rejects, _ = read(path)
    assert table.num_rows == 1
    assert [(r.row, r.line, r.raw) for r in rejects] == [(1, 3, '3,"x\n4,5\n6,7')]


def test_a_bad_value_becomes_a_reject_with_line_column_reason_and_record(tmp_path: Path) -> None:
    path = file(tmp_path, "x.csv", 'a,b\n"x\ny",1\nz,305.41\nw,2\n')
    table, (reject,), _ = read(path, schema=pa.schema([("a", pa.string()), ("b", pa.int64())]))
    assert table.to_pylist() == [{"a": "x\ny", "b": 1}, {"a": "w", "b": 2}]
    assert (reject.row, reject.line, reject.column, reject.raw) == (1, 4, "b", "z,305.41")
    assert "fraction" in reject.reason
    assert json.loads(reject.record or "") == {"a": "z", "b": "305.41"}


def test_an_empty_cell_is_null_and_a_quoted_empty_one_is_empty_text(tmp_path: Path) -> None:
    table, _, _ = read(file(tmp_path, "x.csv", 'a,b,c\nx,,""\ny,"",""\n'))
    assert table.to_pylist() == [{"a": "x", "b": None, "c": ""}, {"a": "y", "b": "", "c": ""}]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("a,b\nx,y\n", ["a", "b"]),
        ("\ufeffa,b\r\nx,y\r\n", ["a", "b"]),
        ("a;b\n1,5;2\n", ["a", "b"]),
        ("a\tb\n1\t2\n", ["a", "b"]),
        ("a,,a\nx,y,z\n", ["a", "column1", "a_1"]),
        ("1,x\n2,y\n", ["column0", "column1"]),
        ("only\nx\n", ["only"]),
        ('"cost $","a ""b""",é\n1,2,3\n', ["cost $", 'a "b"', "é"]),
        ("a,A\n1,2\n", ["a", "A"]),
    ],
)
def test_csv_columns(tmp_path: Path, content: str, columns: list[str]) -> None:
    source = only(file(tmp_path, "x.csv", content))
    assert source.columns() == columns
    (chunk,) = source.chunks(source.infer(ReadOptions()), ReadOptions())
    assert chunk.batch.schema.names == columns
    assert chunk.batch.num_rows == content.count("\n") - (columns[0] != "column0")


def test_csv_types_are_inferred_from_text_and_leading_zeros_mean_text(tmp_path: Path) -> None:
    content = (
        "i,f,z,t,d,b,s,n,big,flag,tel,fax,plus\n"
        "1,1.5,0056,2022-04-09T00:18:00Z,2022-04-09,true,x,,12345678901234567890,T,+491701234567,1.5,+5\n"
        "-2,3,0101,2022-04-09 00:18:00+02:00,2022-04-10,False,1,,1,F,+4930123456,+4930123456,-3\n"
    )
    schema = only(file(tmp_path, "x.csv", content)).infer(ReadOptions())
    assert dict(zip(schema.names, schema.types, strict=True)) == {
        "i": pa.int64(),
        "f": pa.float64(),
        "z": pa.string(),
        "t": pa.timestamp("us", tz="UTC"),
        "d": pa.date32(),
        "b": pa.bool_(),
        "s": pa.string(),
        "n": pa.string(),
        "big": pa.string(),
        "flag": pa.string(),
        "tel": pa.string(),
        "fax": pa.string(),
        "plus": pa.int64(),
    }


def test_json_types_are_those_of_json_and_strings_are_dates_at_most(tmp_path: Path) -> None:
    lines = (
        '{"i":1,"f":1,"s":"1","t":"2022-04-09T00:18:00Z","o":{"x":[1]},"b":true,"n":null}\n'
        '{"f":2.5,"i":-3,"é /~\\"":"q"}\n'
    )
    table, rejects, _ = read(file(tmp_path, "x.jsonl", lines))
    assert rejects == []
    assert [str(kind) for kind in table.schema.types] == [
        "int64",
        "double",
        "string",
        "timestamp[us, tz=UTC]",
        "string",
        "bool",
        "string",
        "string",
    ]
    assert table.column("o").to_pylist() == ['{"x":[1]}', None]
    assert table.column('é /~"').to_pylist() == [None, "q"]


def test_a_column_that_the_sample_does_not_show_is_read_all_the_same(tmp_path: Path) -> None:
    path = file(tmp_path, "x.jsonl", '{"a":1}\n{"a":2}\n')
    table, _, _ = read(path, schema=pa.schema([("late", pa.int64()), ("a", pa.int64())]))
    assert table.to_pylist() == [{"late": None, "a": 1}, {"late": None, "a": 2}]


LATE = [{"a": 0, "b": "x"}] * 6 + [{"a": 1, "b": "x", "late": n} for n in (1, 2)] + [{"a": 2, "b": None, "late": None}]


@pytest.mark.parametrize("kind", ["jsonl", "geojson", "dicts"])
@pytest.mark.parametrize(
    ("select", "refused"),
    [
        (None, 2),
        ("SELECT * FROM source", 2),
        ("SELECT a, source AS every FROM source", 2),
        ("SELECT a, b FROM source", 0),
    ],
)
def test_a_column_that_comes_up_behind_the_sample_costs_its_rows_and_not_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, select: str | None, refused: int
) -> None:
    monkeypatch.setattr("headrace.reading.sampled_blocks._SAMPLE_ROWS", 3)
    monkeypatch.setattr("headrace.reading.sampled_blocks._SAMPLE_BYTES", 0)
    monkeypatch.setattr("headrace.reading.json_reader._BLOCK", 40)
    monkeypatch.setattr("headrace.reading.json_reader._PIECE_ROWS", 3)
    monkeypatch.setattr("headrace.reading.dicts._BATCH_ROWS", 3)
    features = [{"type": "Feature", "geometry": None, "properties": row} for row in LATE]
    given: object = {
        "jsonl": lambda: file(tmp_path, "x.jsonl", "".join(json.dumps(row) + "\n" for row in LATE)),
        "geojson": lambda: file(tmp_path, "x.geojson", json.dumps({"features": features})),
        "dicts": lambda: LATE,
    }[kind]()
    table, rejects, _ = read(given, ReadOptions(select=select))
    assert table.num_rows == len(LATE) - refused
    assert [(one.row, one.column) for one in rejects] == [(6, "late"), (7, "late")][:refused]
    assert [json.loads(one.record or "")["late"] for one in rejects] == ["1", "2"][:refused]
    known = pa.schema([("a", pa.int64()), ("late", pa.int64())])
    if select is None:  # a table that has the column gets its values
        table, rejects, _ = read(given, schema=known)
        assert (rejects, table.column("late").to_pylist()) == ([], [None] * 6 + [1, 2, None])


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["x.json", "x.dat"])
def test_json_arrays_and_geojson_are_read_element_by_element(tmp_path: Path, indent: int | None, name: str) -> None:
    rows = [{"a": number, "b": "x\n" * (number % 3)} for number in range(50)]
    table, _, _ = read(file(tmp_path, name, json.dumps(rows, indent=indent)), ReadOptions(chunk_rows=7))
    assert table.to_pylist() == rows
    features = [
        {
            "type": "Feature",
            "id": f"id{row['a']}",
            "properties": row,
            "geometry": {"type": "Point", "coordinates": [1, 2]},
        }
        for row in rows
    ]
    path = file(tmp_path, name, json.dumps({"features": features, "type": "FeatureCollection"}, indent=indent))
    table, _, _ = read(path)
    assert table.select(["a", "b"]).to_pylist() == rows
    assert table.column("id").to_pylist()[3] == "id3"
    assert json.loads(table.column("geometry").to_pylist()[0]) == {"type": "Point", "coordinates": [1, 2]}


def test_what_is_no_feature_is_refused_and_not_loaded_as_its_geometry(tmp_path: Path) -> None:
    point = {"type": "Point", "coordinates": [1, 2]}
    good = [{"type": "Feature", "geometry": point}, {"geometry": point, "properties": {"a": 1}}, {"properties": None}]
    bad = [{"geometry": point, "attributes": {"a": 2}}, {"type": "Feature", "id": 7, "properties": [3]}, {"a": 4}, 5]
    table, rejects, _ = read(file(tmp_path, "x.geojson", json.dumps({"features": [*good, *bad]})))
    assert table.column("a").to_pylist() == [None, 1, None]
    assert [one.row for one in rejects] == [3, 4, 5, 6]
    assert [one.reason.split(":")[0] for one in rejects] == ["this is not a GeoJSON feature"] * 3 + [
        "this is not a JSON object"
    ]
    with pytest.raises(InputError, match="holds no GeoJSON features"):
        read(file(tmp_path, "other.json", json.dumps({"features": bad[:1] * 3})))


def test_a_control_character_in_a_key_beside_the_features_harms_nothing(tmp_path: Path) -> None:
    text = '{"type":"FeatureCollection","na\nme":1,"features":[{"properties":{"a":1}}]}'  # found by the fuzzer
    assert read(file(tmp_path, "x.geojson", text))[0].to_pylist() == [{"a": 1}]


@pytest.mark.parametrize("content", ['[{"a":1},{"a":2}', '[{"a":1},}', '[{"a":1}] x', '{"features":[{"a":1}', "[1,"])
def test_a_malformed_json_document_ends_in_an_error_that_names_the_line(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"x\.geojson, line 1" if "features" in content else r"x\.json, line 1"):
        read(file(tmp_path, "x.geojson" if "features" in content else "x.json", content))


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_a_truncated_gzip_file_is_an_error_and_not_a_shorter_file(tmp_path: Path, keep: float) -> None:
    whole = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * 7919) for n in range(300_000)))
    path = file(tmp_path, "x.csv.gz", whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match=r"x\.csv\.gz"):
        read(path)
    table, _, _ = read(file(tmp_path, "y.csv.gz", whole))
    assert table.num_rows == 300_000


def test_a_truncated_parquet_file_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(1000)}), tmp_path / "x.parquet")
    path = file(tmp_path, "y.parquet", (tmp_path / "x.parquet").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"y\.parquet"):
        read(path)
    assert read(tmp_path / "x.parquet")[0].num_rows == 1000


def test_nul_reaches_the_batch(tmp_path: Path) -> None:
    assert read(file(tmp_path, "x.csv", b"a,b\n1,x\x00y\n"))[0].column("b").to_pylist() == ["x\x00y"]
    assert read(file(tmp_path, "x.jsonl", b'{"b":"x\\u0000y"}\n'))[0].column("b").to_pylist() == ["x\x00y"]


@pytest.mark.parametrize(
    "limit", [{"chunk_rows": 1000}, {"chunk_bytes": 20_000}, {"chunk_rows": 777, "chunk_bytes": 9_000}]
)
def test_chunks_have_the_same_borders_every_time_and_cover_the_input(tmp_path: Path, limit: dict[str, int]) -> None:
    content = "a,b\n" + "".join(f"{n},{'x' * (n % 50)}{'' if n % 97 else ',extra'}\n" for n in range(20_000))
    path = file(tmp_path, "x.csv", content)
    runs = [[c.address for c in read(path, ReadOptions(**limit, threads=threads))[2]] for threads in (1, 2)]  # type: ignore[arg-type]  # the limits are ints
    assert runs[0] == runs[1]
    assert len(runs[0]) > 5
    ends = np.cumsum([address.rows for address in runs[0]])
    assert [address.first_row for address in runs[0]] == [0, *ends[:-1].tolist()]
    assert ends[-1] == 20_000


def test_select_is_applied_to_every_chunk_and_its_result_is_cast(tmp_path: Path) -> None:
    path = file(tmp_path, "x.csv", "a,b\n" + "".join(f"{n},{n}.5\n" for n in range(100)) + "x,1\n")
    options = ReadOptions(
        select="SELECT a * 2 AS twice, b FROM source WHERE a % 2 = 0", chunk_rows=10, types={"a": "integer"}
    )
    table, rejects, chunks = read(path, options, pa.schema([("twice", pa.int64()), ("b", pa.int64())]))
    assert table.num_rows == 0
    assert [reject.stage for reject in rejects] == ["prepare"] * 50 + ["read"]
    assert json.loads(rejects[0].record or "") == {"twice": "0", "b": "0.5"}
    assert all(chunk.rows is None for chunk in chunks)
    table, rejects, _ = read(path, options)
    assert table.column("twice").to_pylist() == list(range(0, 200, 4))
    assert [(reject.line, reject.column) for reject in rejects] == [(102, "a")]
    assert only(path, options).columns() == ["twice", "b"]


def test_a_select_that_fails_shows_what_the_database_says(tmp_path: Path) -> None:
    options = ReadOptions(select="SELECT nothing FROM source")
    with pytest.raises(ConfigurationError, match="nothing"):
        read(file(tmp_path, "x.csv", "a\n1\n"), options)


def test_dicts_of_mixed_types_go_through_text() -> None:
    rows = ({"a": n, "b": str(n) if n % 2 else n, **({"late": True} if n > 20_000 else {})} for n in range(40_000))
    table, rejects, _ = read(rows)
    assert rejects == []
    assert table.column("a").to_pylist() == list(range(40_000))
    assert table.column("b").to_pylist() == [str(n) for n in range(40_000)]
    assert table.column("late").to_pylist()[-1] is True


NAIVE = datetime(2022, 4, 9, 13, 45)
AWARE = datetime(2022, 4, 9, 13, 45, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("values", "zone", "expected"),
    [
        # a time of day is no less than one because a date comes first
        ([date(2022, 4, 9), NAIVE], "UTC", [datetime(2022, 4, 9), NAIVE]),
        ([NAIVE, date(2022, 4, 9)], "UTC", [NAIVE, datetime(2022, 4, 9)]),
        # an offset is not given to the times that have none
        ([NAIVE, AWARE], "Asia/Tokyo", [NAIVE - timedelta(hours=9), NAIVE - timedelta(hours=2)]),
        ([AWARE, NAIVE], "Asia/Tokyo", [NAIVE - timedelta(hours=2), NAIVE - timedelta(hours=9)]),
        ([1.5, True], "UTC", ["1.5", "true"]),
        ([Decimal("1.50"), 2.5], "UTC", ["1.50", "2.5"]),
        ([time(1, 2, tzinfo=UTC), None], "UTC", ["01:02:00+00:00", None]),
        ([time(1, 2, 3, 500_000), "x"], "UTC", ["01:02:03.5", "x"]),
        ([np.int64(1), np.bool_(True), "x", UUID(int=1)], "UTC", ["1", "true", "x", str(UUID(int=1))]),
        ([{"b": [1, 2.5], "a": "é"}, None], "UTC", ['{"b":[1,2.5],"a":"é"}', None]),
        (
            [{"b": np.arange(2_000)}, {"c", "b", "a"}],
            "UTC",
            [f'{{"b":[{",".join(map(str, range(2_000)))}]}}', '["a","b","c"]'],
        ),
    ],
)
def test_dicts_lose_nothing_where_their_values_are_of_several_kinds(
    values: list[object], zone: str, expected: list[object]
) -> None:
    table, rejects, _ = read([{"v": value} for value in values], ReadOptions(timezone=zone))
    assert rejects == []
    got = table.column("v").to_pylist()
    assert [one.replace(tzinfo=None) if isinstance(one, datetime) else one for one in got] == expected


def test_dicts_from_pandas_keep_their_nanoseconds_and_lack_what_is_missing() -> None:
    fine = [pd.Timestamp("2022-04-09T13:45:00.00000000" + digit) for digit in "12"]
    table, _, _ = read([{"t": one, "n": pd.NA} for one in fine] + [{"t": pd.NaT, "n": 1}])
    assert table.column("t").to_pylist() == [*(one.isoformat() for one in fine), None]
    assert table.column("n").to_pylist() == [None, None, 1]
    pinned, rejects, _ = read([{"t": fine[0]}], schema=pa.schema([("t", pa.timestamp("us", "UTC"))]))
    assert pinned.num_rows == 0
    assert "finer than a microsecond" in rejects[0].reason


def test_a_key_that_is_no_text_names_the_column_of_its_text() -> None:
    table, _, _ = read([{1: "a", "x": 1}, {1: "b"}])
    assert table.to_pylist() == [{"1": "a", "x": 1}, {"1": "b", "x": None}]
    with pytest.raises(InputError, match="two keys of a row have the same text"):
        read([{1: "a", "1": "b"}])


def test_frames_tables_and_readers_are_inputs() -> None:
    data = {"a": [1, 2, 3], "s": ["x", None, "z"]}
    table = pa.table(data)
    sources = [
        table,
        table.to_batches()[0],
        table.to_reader(),
        pd.DataFrame(data),
        pl.DataFrame(data),
        table.to_pylist(),
    ]
    for source in sources:
        assert read(source)[0].to_pylist() == table.to_pylist(), type(source)


def test_what_arrow_cannot_take_is_an_error_that_names_the_column_and_goes_in_as_dicts() -> None:
    mixed = pd.DataFrame({"a": [1, 2, 3], "x": ["s", 1, 2.5]})
    with pytest.raises(InputError, match=r"Conversion failed for column x.*\n.*as dicts"):
        read(mixed)
    table, _, _ = read(mixed.to_dict("records"))
    assert table.column("x").to_pylist() == ["s", "1", "2.5"]
    with pytest.raises(InputError, match="unsupported format"):
        read(pl.DataFrame({"x": pl.Series([2**100], dtype=pl.Int128)}))


def test_a_stream_that_breaks_off_is_an_error_that_says_why() -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"a": [1]})
        raise pa.ArrowInvalid("the line went dead")

    with pytest.raises(InputError, match="the line went dead") as caught:
        read(pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches()))
    assert "Traceback" not in str(caught.value)


def test_a_map_with_a_key_twice_is_an_error_with_its_source() -> None:
    twice = pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    with pytest.raises(InputError, match=r"<arrow>: .*duplicate key.*\n.*JSON text"):
        read(pa.table({"m": twice}))


def test_a_stream_is_read_once_and_says_so() -> None:
    source = only(pa.table({"a": [1]}).to_reader())
    schema = source.infer(ReadOptions())
    assert sum(chunk.batch.num_rows for chunk in source.chunks(schema, ReadOptions())) == 1
    with pytest.raises(InputError, match="already"):
        list(source.chunks(schema, ReadOptions()))


def test_parquet_reads_into_a_pinned_schema_by_value(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [313.0, 305.5], "n": [[1], [2]]}), tmp_path / "x.parquet")
    table, (reject,), _ = read(tmp_path / "x.parquet", schema=pa.schema([("a", pa.int64())]))
    assert table.to_pylist() == [{"a": 313}]
    assert (reject.row, reject.line, reject.column) == (1, None, "a")
    with pytest.raises(SchemaError, match="'n' has the type list"):
        read(tmp_path / "x.parquet", schema=pa.schema([("n", pa.int64())]))


def test_directories_and_patterns_are_sorted_and_skip_hidden_files(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "sub/c.csv", ".hidden.csv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        file(tmp_path, name, "a\n1\n")
    names = [Path(source.name).name for source in open_inputs([tmp_path], ReadOptions(), None)]
    assert names == ["a.csv", "b.csv", "c.csv"]
    found = [Path(source.name).name for source in open_inputs([f"{tmp_path}/*.csv"], ReadOptions(), None)]
    assert found == ["a.csv", "b.csv"]


def test_an_input_named_twice_gets_two_names(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", "a\n1\n")
    one, two = open_inputs([path, path], ReadOptions(), None)
    assert one.name != two.name
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("name", ["absent.csv", "no*.csv", "empty.csv", "empty_folder"])
def test_an_input_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    file(tmp_path, "empty.csv", "")
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(InputError) as raised:
        open_inputs([str(tmp_path / name)], ReadOptions(), None)
    assert name in str(raised.value)
    assert raised.value.hint


def test_a_directory_of_mixed_formats_is_refused(tmp_path: Path) -> None:
    file(tmp_path, "a.csv", "a\n1\n")
    file(tmp_path, "b.jsonl", '{"a":1}\n')
    with pytest.raises(ConfigurationError, match="csv, jsonl"):
        open_inputs([tmp_path], ReadOptions(), None)


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.parquet"])
def test_the_share_read_rises_to_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * 7919) for n in range(50_000))
    if name == "x.parquet":
        pq.write_table(pa.table({"a": range(50_000)}), path)
    else:
        path.write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    source = only(path)
    assert source.share_read == 0
    options = ReadOptions(chunk_rows=1000)
    shares = [source.share_read for _ in source.chunks(source.infer(options), options)]
    assert shares == sorted(shares)
    assert source.share_read == 1
