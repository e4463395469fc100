"""Poison: one row in 10,000 is hostile. Exactly the bad ones are rejects, each with its line; all others are loaded."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.evidence import Record, keep
from support.program import Headrace, scaled

ROWS = scaled(1_000_000, default=10_000)
EVERY = 10_000
LONGEST = 4 << 20
AT = "2024-02-29T12:00:00Z"
OPTIONS = ("--id", "id", "--time", "at", "--type", "id=integer", "--type", "lat=float", "--type", "at=timestamp")

# What stands in place of row N ({n}); whether it is bad is for the oracle to say.
POISON: dict[str, bytes] = {
    "NUL": b"%(n)d,1.5,%(at)s,nul\0here\n",
    "end of COPY in a field": b"%(n)d,1.5,%(at)s,\\.\n",
    "end of COPY as a line": b"\\.\n",
    "null of COPY in a field": b"%(n)d,1.5,%(at)s,\\N\n",
    "null of COPY as a number": b"%(n)d,\\N,%(at)s,x\n",
    "backslashes": b"%(n)d,1.5,%(at)s,\\t\\n\\x41\\\\\n",
    "doubled quotes": b'%(n)d,1.5,%(at)s,"say ""hi"", or not"\n',
    "stray quotes": b'%(n)d,1.5,%(at)s,5" disk "x"\n',
    "newlines in quotes": b'%(n)d,1.5,%(at)s,"a\nb\r\n\n,c"\n',
    "byte order mark in a text": b"%(n)d,1.5,%(at)s,\xef\xbb\xbfx\n",
    "byte order mark before a number": b"\xef\xbb\xbf%(n)d,1.5,%(at)s,x\n",
    "invalid UTF-8": b"%(n)d,1.5,%(at)s,\xff\xfe\n",
    "a cut character": b"%(n)d,1.5,%(at)s,\xc3\n",
    "a surrogate in UTF-8": b"%(n)d,1.5,%(at)s,\xed\xa0\x80\n",
    "a second header": b"id,lat,at,note\n",
    "a field fewer": b"%(n)d,1.5,%(at)s\n",
    "a field more": b"%(n)d,1.5,%(at)s,x,y\n",
    "an empty line": b"\n%(n)d,1.5,%(at)s,x\n",
    "no number": b"%(n)d,one,%(at)s,x\n",
    "no time": b"%(n)d,1.5,,x\n",
    "a formula": b"%(n)d,1.5,%(at)s,=cmd|' /C calc'!A0\n",
    "an injection": b"%(n)d,1.5,%(at)s,'); DROP TABLE t; --\n",
}


@dataclass(frozen=True)
class Row:
    """A record of the file as its maker knows it: where it starts, its bytes, what kind of poison it is."""

    line: int
    text: bytes
    kind: str


def rows_of(seed: int, count: int, giant: int | None) -> Iterator[Row]:
    chance = random.Random(seed)
    kinds = list(POISON)
    chance.shuffle(kinds)
    poisoned = sorted(chance.sample(range(count), count // EVERY))
    poisons = {row: kinds[at % len(kinds)] for at, row in enumerate(poisoned)}
    line = 2
    for n in range(count):
        kind = poisons.get(n, "none")
        text = POISON[kind] % {b"n": n, b"at": AT.encode()} if n in poisons else b"%d,1.5,%s,x\n" % (n, AT.encode())
        if n == giant:
            kind, text = "a field of 64 MiB", b"%d,1.5,%s," % (n, AT.encode()) + b"y" * (64 << 20) + b"\n"
        if text.startswith(b"\n"):
            line, text = line + 1, text[1:]
            yield Row(line, b"\n" + text, kind)
        else:
            yield Row(line, text, kind)
        line += len(text.splitlines())


def good(text: bytes) -> tuple[int, str] | None:
    """The oracle, in plain Python: the row's number and note, ``None`` where the record is bad."""
    if len(text) > LONGEST:
        return None
    try:
        decoded = text.lstrip(b"\n").decode()
        (fields,) = csv.reader(io.StringIO(decoded, newline=""))
        number, lat, at, note = fields
        fine = float(lat) and at == AT and "\0" not in note and number.isdigit()
        return (int(number), note) if fine else None
    except ValueError:
        return None


def judge(headrace: Headrace, report: dict[str, int], rows: list[Row], fault: str, seed: int) -> None:
    expected = {found[0]: found[1] for row in rows if (found := good(row.text)) is not None}
    bad = {row.line: row for row in rows if good(row.text) is None}
    in_table = headrace.query("SELECT id, note FROM t")
    counts = Counter(number for number, _ in in_table)
    rejects = headrace.query("SELECT line_number, raw FROM headrace_rejects")
    lines = Counter(line for line, _ in rejects)
    lost = sum(number not in counts for number in expected) + sum(line not in lines for line in bad)
    unexpected = sum(number not in expected for number in counts) + sum(line not in bad for line in lines)
    twice = sum(times - 1 for times in [*counts.values(), *lines.values()])
    store = headrace.url.partition(":")[0]
    keep(Record(fault, "in the input", f"{store}, sequential", 1, lost, twice, unexpected, seed, len(rows)))
    assert (lost, twice, unexpected) == (0, 0, 0)
    assert dict(in_table) == expected
    assert (report["read"], report["rejected"]) == (len(rows), len(bad))
    for line, raw in rejects:
        shown = bad[line].text.strip(b"\n").decode(errors="backslashreplace").replace("\0", "\\u0000")
        assert raw == shown, (line, bad[line].kind)


@pytest.mark.parametrize("seed", range(1, 1 + scaled(4)))
def test_exactly_the_bad_rows_are_rejects_and_all_others_are_loaded(headrace: Headrace, seed: int) -> None:
    rows = list(rows_of(seed, ROWS, giant=ROWS * 2 // 3 if seed == 1 else None))
    with (headrace.folder / "poison.csv").open("wb") as file:
        file.write(b"\xef\xbb\xbfid,lat,at,note\n")
        file.writelines(row.text for row in rows)
    report = headrace.load("poison.csv", "--table", "t", *OPTIONS, expect=3)
    judge(headrace, report, rows, "poisoned rows", seed)


@pytest.mark.parametrize("cut", ["in half", "in the last line"])
def test_a_file_that_was_cut_gives_its_whole_rows(sqlite_url: str, tmp_path: Path, cut: str) -> None:
    headrace = Headrace(sqlite_url, tmp_path)
    rows = list(rows_of(3, 2_000, giant=None))
    whole = b"".join(row.text for row in rows)
    length = len(whole) // 2 if cut == "in half" else len(whole) - 8
    kept, left = [], length
    for row in rows:
        if left <= 0:
            break
        kept.append(Row(row.line, row.text[:left], row.kind))
        left -= len(row.text)
    (tmp_path / "cut.csv").write_bytes(b"id,lat,at,note\n" + whole[:length])
    expect = 0 if all(good(row.text) for row in kept) else 3
    judge(headrace, headrace.load("cut.csv", "--table", "t", *OPTIONS, expect=expect), kept, f"a file cut {cut}", 3)


def test_a_count_of_columns_that_changes_costs_the_rows_behind_it(headrace: Headrace) -> None:
    rows = [b"%d,1.5,%s,x\n" % (n, AT.encode()) for n in range(3000)]
    rows[2000:] = [row[:-1] + b",more\n" for row in rows[2000:]]
    (headrace.folder / "wider.csv").write_bytes(b"id,lat,at,note\n" + b"".join(rows))
    report = headrace.load("wider.csv", "--table", "t", *OPTIONS, "--chunk-rows", "1500", expect=3)
    numbered = [Row(line, text, "") for line, text in enumerate(rows, start=2)]
    judge(headrace, report, numbered, "a column count that changes", 0)


JSON_POISON = [
    b'{"id":%d,"at":"%s"',
    b"[%d]",
    b'{"id":%d,"at":"%s","note":"\\ud800"}',
    b'{"id":%d,"at":"%s","note":"\xff"}',
    b'{"id":%d,"at":"%s","note":"\\u0000"}',
    b'{"id":"x%d","at":"%s"}',
    b'{"id":%d,"at":"%s"}{"id":%d}',
    b"\xef\xbb\xbf%d",
    b"\x00",
]


def test_exactly_the_bad_lines_of_json_are_rejects(headrace: Headrace) -> None:
    count, chance = ROWS // 10, random.Random(4)
    lines = [b'{"id":%d,"at":"%s","note":"\\\\N \\\\. \\"x\\""}' % (n, AT.encode()) for n in range(count)]
    bad = sorted(chance.sample(range(count), len(JSON_POISON)))
    for row, poison in zip(bad, JSON_POISON, strict=True):
        lines[row] = poison.replace(b"%d", b"%d" % row).replace(b"%s", AT.encode())
    long = next(row for row in range(count) if row not in bad)
    lines[long] = json.dumps({"id": long, "at": AT, "note": "z" * (8 << 20)}).encode()
    (headrace.folder / "poison.jsonl").write_bytes(b"\n".join(lines))
    report = headrace.load("poison.jsonl", "--table", "t", *OPTIONS[:6], *OPTIONS[8:], expect=3)
    rejects = headrace.json("rejects", "list", "--all")["rejects"]
    assert sorted(one["reject"]["line"] for one in rejects) == [row + 1 for row in bad]
    assert (report["read"], report["inserted"]) == (count, count - len(bad))
    stored = dict(headrace.query("SELECT id, note FROM t"))
    assert stored.pop(long) == "z" * (8 << 20)
    assert stored == {n: '\\N \\. "x"' for n in range(count) if n not in bad and n != long}
    keep(Record("poisoned lines of JSON", "in the input", headrace.url.partition(":")[0], 1, 0, 0, 0, 4, count))
