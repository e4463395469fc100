"""Coverage-guided fuzzing of the source and the encoder: ``python tests/fuzz/fuzz.py CORPUS -max_total_time=1200``.

Not part of any test run: it needs the package ``atheris`` and time. The first byte of an input picks the target:

    csv, tsv, jsonl, json, geojson   a file of these bytes is read; nothing but a `HeadraceError` may come out, every
                                     row comes exactly once, typed or as a reject, whatever the size of the chunks
    encode                           values made of these bytes; the encoding is that of the plain-Python reference

An empty CORPUS is begun with a few small files, so that the fuzzer need not find out first what GeoJSON is.
Findings become tests in ``tests/unit``; ``docs/reliability.md`` has the last long runs' summary.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import unicodedata
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
with atheris.instrument_imports(include=["headrace"]):
    from headrace.errors import HeadraceError
    from headrace.partitioning.contract import arrow_type
    from headrace.partitioning.encoding import encode
    from headrace.reading import csv_reader, csv_records, inputs, json_reader, json_scanner, text_stream
    from headrace.reading.inputs import ReadOptions, open_inputs
    from headrace.reading.sql import connect

import pyarrow as pa
import reference

NAMES = ["x.csv", "x.tsv", "x.jsonl", "x.json", "x.geojson"]
KINDS = ["bool", "integer", "float", "timestamp", "date", "decimal", "string", "bytes"]
FOLDER = Path(tempfile.mkdtemp(prefix="headrace-fuzz-"))
BLOCK = 256  # bytes: blocks end where the fuzzer can reach
LONG = 64  # characters of a JSON value that is followed by its brackets, in half of the inputs
TYPED, TWICE, BRACKETS = 64, 128, 32  # bits of the first byte
BEGINNINGS = {
    "x.csv": [b'a,b\n1,x\n2,"y\n""z"""\n', b"a;b\r\n1;\r\n;2.5\r\n", b'a,b\n1\n1,2,3\n"', b"\xef\xbb\xbfa\n\xff\n\n"],
    "x.tsv": [b"a\tb\n1\t2020-01-01\n", b'a\tb\n"\t"\t\n'],
    "x.jsonl": [b'{"a":1,"b":"x"}\n{"a":null}\n\n{"a":[1,{"b":2}]}\n', b'{"a":1e400}\nnonsense\n{"a":"\\ud800"}'],
    "x.json": [b'[{"a":1},{"a":"x","b":[true]}]', b'{"a":1}\n{"a":{"b":"\\""}}', b'[{"a":"' + b"x[" * 60 + b'"},{}]'],
    "x.geojson": [
        b'{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2]},'
        b'"properties":{"a":1,"b":"x"}},{"type":"Feature","geometry":null,"properties":null}],"more":{}}'
    ],
}


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    if not data:
        return
    choice = data[0] % 8
    if choice < len(NAMES):
        json_scanner._LONG = LONG if data[0] & BRACKETS else 4 << 20
        fuzz_source(NAMES[choice], data[1:], typed=bool(data[0] & TYPED), twice=bool(data[0] & TWICE))
    else:
        fuzz_encoder(data[1:])


def fuzz_source(name: str, content: bytes, *, typed: bool, twice: bool) -> None:
    path = FOLDER / name
    path.write_bytes(content)
    few = rows_of(path, 20, typed=typed)
    if not twice:
        return
    many = rows_of(path, 100_000, typed=typed)
    if few is not None and many is not None:
        assert few == many, "the rows depend on the chunk size"
    assert (few is None) == (many is None), "an error depends on the chunk size"


def rows_of(path: Path, chunk_rows: int, *, typed: bool) -> list[tuple[int, Any]] | None:
    """Every row with what became of it, ``None`` where the file is refused."""
    options = ReadOptions(chunk_rows=chunk_rows, threads=1)
    try:
        (opened,) = open_inputs([path], options, None)
        if not opened.columns():  # no contract can be made of it
            return None
        text = pa.schema([(name, pa.string()) for name in opened.columns()])
        chunks = list(opened.chunks(opened.infer(options) if typed else text, options))
    except HeadraceError:
        return None
    found: list[tuple[int, Any]] = []
    expected = 0
    for chunk in chunks:
        assert chunk.address.first_row == expected, "a chunk does not begin where the last one ended"
        expected += chunk.address.rows
        assert chunk.rows is not None
        found += zip(chunk.rows.tolist(), map(repr, chunk.batch.to_pylist()), strict=True)
        found += [(-1 if reject.row is None else reject.row, reject.raw) for reject in chunk.rejects]
        chunk.batch.validate(full=True)
    found.sort(key=lambda row: row[0])
    assert [number for number, _ in found] == list(range(expected)), "a row came twice, or not at all"
    return found


def fuzz_encoder(data: bytes) -> None:
    from_bytes = atheris.FuzzedDataProvider(data)
    kinds = [KINDS[from_bytes.ConsumeIntInRange(0, 7)] for _ in range(from_bytes.ConsumeIntInRange(1, 4))]
    rows = [[value(kind, from_bytes) for kind in kinds] for _ in range(from_bytes.ConsumeIntInRange(1, 4))]
    columns = [
        pa.array([row[position] for row in rows], arrow_type(kind))  # type: ignore[arg-type]
        for position, kind in enumerate(kinds)
    ]
    assert encode(columns, "p").to_pylist() == [reference.encoding(kinds, row, "p") for row in rows]


def value(kind: str, given: Any) -> Any:
    if given.ConsumeBool():
        return None
    if kind == "string":
        text = given.ConsumeUnicodeNoSurrogates(8)
        # Python and Arrow know different versions of Unicode
        return "".join(letter for letter in text if unicodedata.category(letter) != "Cn")
    if kind == "float":
        number = given.ConsumeFloat()
        return number if math.isfinite(number) else 0.0
    made: dict[str, Any] = {
        "bool": given.ConsumeBool,
        "integer": lambda: given.ConsumeIntInRange(-(2**63), 2**63 - 1),
        "timestamp": lambda: datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=given.ConsumeIntInRange(0, 2**57)),
        "date": lambda: date.fromordinal(given.ConsumeIntInRange(1, 2_900_000)),
        "decimal": lambda: Decimal(given.ConsumeIntInRange(-(10**30), 10**30)).scaleb(-9),
        "bytes": lambda: given.ConsumeBytes(8),
    }
    return made[kind]()


def begin(corpus: Path) -> None:
    """Fill an empty corpus, each beginning in every way of reading it."""
    corpus.mkdir(parents=True, exist_ok=True)
    if any(corpus.iterdir()):
        return
    for choice, name in enumerate(NAMES):
        for number, content in enumerate(BEGINNINGS[name]):
            for bits in (0, TWICE, TWICE | TYPED, TWICE | TYPED | BRACKETS):
                (corpus / f"{name}-{number}-{bits}").write_bytes(bytes([choice | bits]) + content)


if __name__ == "__main__":
    for module in (csv_reader, json_scanner, json_reader, csv_records, text_stream):
        module._BLOCK = BLOCK  # type: ignore[attr-defined]
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        begin(Path(sys.argv[1]))
    shared = connect(1, "UTC")  # a new database for each file would take nearly all of the time
    inputs.connect = lambda threads, timezone: shared
    atheris.Setup(sys.argv, one_input)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
