"""Compressed bombs: a small file that unpacks to gigabytes ends in an error, within 512 MiB of memory."""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

MIB = 1 << 20
LIMIT = 512 * MIB
UNPACKED = 1024  # MiB


def gzip_bomb(path: Path, head: bytes, filling: bytes) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(UNPACKED):
            file.write(filling * (MIB // len(filling)))


def zstd_bomb(path: Path, head: bytes, filling: bytes) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(head)
        for _ in range(UNPACKED):
            file.write(filling * (MIB // len(filling)))


BOMBS = [
    ("one line of CSV", "x.csv", b"a,b\n1,", b"y"),
    ("one quoted field", "x.csv", b'a,b\n1,"', b"line\n\n\n\n"),
    ("one header", "x.csv", b"a", b"b"),
    ("a header of commas", "x.csv", b"a,b", b","),
    ("NULs", "x.csv", b"", b"\0"),
    ("one line of JSON", "x.jsonl", b'{"a":1}\n{"a":"', b"y"),
    ("one JSON array", "x.json", b'[{"a":1},{"a":"', b"y"),
    ("nested arrays", "x.json", b"[", b"["),
    ("one feature", "x.geojson", b'{"type":"FeatureCollection","features":[{"properties":{"a":"', b"y"),
]


def chosen() -> list[tuple[str, str, bytes, bytes]]:
    """All of them in the whole suite, three otherwise: each unpacks a tenth of a gigabyte before it is stopped."""
    return BOMBS if os.environ.get("HEADRACE_TEST_SCALE") == "full" else [BOMBS[0], BOMBS[1], BOMBS[5]]


@pytest.mark.parametrize(("pack", "suffix"), [(gzip_bomb, ".gz"), (zstd_bomb, ".zst")], ids=["gzip", "zstd"])
@pytest.mark.parametrize(("_what", "name", "head", "filling"), chosen(), ids=[bomb[0] for bomb in chosen()])
def test_a_bomb_ends_in_an_error_within_bounded_memory(
    tmp_path: Path,
    pack: Callable[[Path, bytes, bytes], None],
    suffix: str,
    _what: str,
    name: str,
    head: bytes,
    filling: bytes,
) -> None:
    path = tmp_path / (name + suffix)
    pack(path, head, filling)
    assert path.stat().st_size < UNPACKED * MIB // 100
    measure = (
        "import resource, sys\nfrom headrace.cli import main\nsys.argv[0] = 'headrace'\ntry:\n    main()\n"
        "finally:\n    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, "load", str(path), "--to", f"sqlite:///{tmp_path / 'h.db'}", "--table", "t"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    )
    assert done.returncode in {1, 2}, done.stdout + done.stderr
    assert "hint" in done.stderr
    assert "Traceback" not in done.stderr
    peak = int(done.stderr.split("peak ")[1].split()[0]) * 1024
    print(f"{peak / MIB:.0f} MiB")
    assert peak < LIMIT
