"""No value can look like the border between two columns: the same text cut in two elsewhere is another event."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from support.evidence import keep_pairs

from headrace.events.prepare import prepare
from headrace.partitioning.contract import Contract
from headrace.reading.inputs import ReadOptions, open_inputs

# what may stand between two columns, or end one
SEPARATORS = 'a,b"c;d\te|f\x1fg\x1eh\\i\nj\r\nk\x07l\u2028m'


def columns_to_tell_apart() -> list[tuple[str | None, str | None]]:
    """One text cut in two at each of its letters, and with nothing, or less than nothing, on either side."""
    cut = [(SEPARATORS[:at], SEPARATORS[at:]) for at in range(len(SEPARATORS) + 1)]
    nothing = [(None, SEPARATORS), (SEPARATORS, None), (None, None), ("", ""), (None, ""), ("", None)]
    tags = [("a", "\x07a"), ("a\x07", "a"), ("\x07", "aa"), ("\x07a", "a")]  # 07 begins a text in the encoding
    return [*cut, *nothing, *tags]


def test_no_separator_inside_a_value_moves_the_border_between_two_columns(tmp_path: Path) -> None:
    rows = columns_to_tell_apart()
    cells = ["" if value is None else '"' + value.replace('"', '""') + '"' for row in rows for value in row]
    pairs = zip(cells[::2], cells[1::2], strict=True)
    (tmp_path / "x.csv").write_bytes(("v,w\n" + "".join(f"{v},{w}\n" for v, w in pairs)).encode())
    objects = [dict(zip("vw", row, strict=True)) for row in rows]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))
    ids = [one for item in (tmp_path / "x.csv", tmp_path / "x.jsonl", objects) for one in ids_of_two(item)]
    keep_pairs("separators inside values", "CSV, JSON lines, dicts", rows * 3, ids)
    assert None not in ids
    assert len(set(ids)) == len(rows)
    assert ids == ids[: len(rows)] * 3


def ids_of_two(item: object) -> list[str | None]:
    """The ID of each row by its two columns of text."""
    options = ReadOptions(types={"v": "string", "w": "string"})
    (source,) = open_inputs([item], options, None)
    contract = Contract((("v", "string"), ("w", "string"), ("one", "integer")))
    found: list[str | None] = []
    for chunk in source.chunks(pa.schema([("v", pa.string()), ("w", pa.string())]), options):
        # two blanks alone would be no identity at all
        whole = replace(chunk, batch=chunk.batch.append_column("one", pa.array([1] * chunk.batch.num_rows, pa.int64())))
        found += [row.tobytes().hex() for row in prepare(whole, contract, "p").ids]
    return found
