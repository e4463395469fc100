"""Compressed bombs: a small file that unpacks to gigabytes ends in an error, within 512 MiB of memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from support.evidence import Record, keep
from support.program import Headrace

MIB = 1 << 20
LIMIT = 512 * MIB
UNPACKED = 1024  # MiB


MEMBER = 16  # MiB: one compressed member, repeated


def bomb(path: Path, head: bytes, filling: bytes) -> None:
    """A file of `UNPACKED` MiB: a head, then the filling over and over, in members as both formats allow."""
    compress = gzip.compress if path.suffix == ".gz" else zstd
    member = compress(filling * (MEMBER * MIB // len(filling)))
    with path.open("wb") as file:
        file.write(compress(head))
        file.writelines(member for _ in range(UNPACKED // MEMBER))


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, "zstd", asbytes=True)
    return packed


BOMBS = [
    ("one line of CSV", "x.csv", b"a,b\n1,", b"y"),
    ("one quoted field", "x.csv", b'a,b\n1,"', b"a line of the one field\n" * 4 + b"\n\n"),
    ("one quoted field of empty lines", "x.csv", b'a,b\n1,"', b"\n"),
    ("one header", "x.csv", b"a", b"b"),
    ("a header of commas", "x.csv", b"a,b", b","),
    ("NULs", "x.csv", b"", b"\0"),
    ("one line of JSON", "x.jsonl", b'{"a":1}\n{"a":"', b"y"),
    ("one JSON array", "x.json", b'[{"a":1},{"a":"', b"y"),
    ("nested arrays", "x.json", b"[", b"["),
    ("one feature", "x.geojson", b'{"type":"FeatureCollection","features":[{"properties":{"a":"', b"y"),
    ("one array of numbers", "x.json", b'[{"a":1},{"a":[1', b",1"),
    ("one array of objects", "x.json", b'[{"a":1},{"a":[{}', b",{}"),
]


def chosen() -> list[tuple[str, str, str, bytes, bytes, str]]:
    """All of them in both formats on both stores in the whole suite, three otherwise."""
    every = [(store, *one, suffix) for one in BOMBS for suffix in (".gz", ".zst") for store in ("sqlite", "postgresql")]
    return every if os.environ.get("HEADRACE_TEST_SCALE") == "full" else [every[0], every[7], every[24]]


@pytest.mark.parametrize(
    ("store_url", "what", "name", "head", "filling", "suffix"),
    chosen(),
    ids=lambda one: one if isinstance(one, str) else "",
    indirect=["store_url"],
)
def test_a_bomb_ends_in_an_error_within_bounded_memory(
    headrace: Headrace, tmp_path: Path, what: str, name: str, head: bytes, filling: bytes, suffix: str
) -> None:
    path = tmp_path / (name + suffix)
    bomb(path, head, filling)
    assert path.stat().st_size < UNPACKED * MIB // 100
    measure = (
        # not ru_maxrss: that of a child is never less than its parent's was
        "import atexit, sys\nfrom pathlib import Path\nfrom headrace.cli.main import main\nsys.argv[0] = 'headrace'\n"
        "status = Path('/proc/self/status')\n"
        "atexit.register(lambda: print('peak', status.read_text().split('VmHWM:')[1].split()[0], file=sys.stderr))\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, "load", str(path), "--table", "t"],
        env=headrace.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode in {1, 2}, done.stdout + done.stderr
    assert "hint" in done.stderr
    assert "Traceback" not in done.stderr
    peak = int(done.stderr.split("peak ")[1].split()[0]) * 1024
    inserted = headrace.query_one_if_table(
        "headrace_receipts", "SELECT coalesce(sum(inserted), 0) FROM headrace_receipts"
    )
    rows = headrace.query_one_if_table("t", "SELECT count(*) FROM t")
    unaccounted = (rows or 0) - int(inserted or 0)
    where = f"{headrace.url.partition(':')[0]}, sequential"
    fault = f"bomb, {path.suffix[1:]}: {what}"
    keep(Record(fault, "in the input", where, 1, 0, 0, unaccounted, 0, rows or 0, memory=round(peak / MIB)))
    assert peak < LIMIT
    assert unaccounted == 0
