"""The targets beside the reached figures, from the results of all questions; a row without results says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.measure.harness import Run, median, medians
from bench.write.tables import BOUND, OURS, markdown, shared_rounds

__all__ = ["beside", "targets"]

Contents = Mapping[str, Mapping[str, Any]]
Found = tuple[str, str]
MB = 1_000_000
YES, NO = "yes", "**no**"
SIZE = 1_000_000
"""Rows of the loads by which targets are judged: what another size reaches is told, and does not count."""
ROUNDS = 3
"""Fewer rounds say nothing."""
WAYS = {"seconds": "whole processes", "report_seconds": "the load alone"}

SHARE_OF_TWO = 0.80
ROWS_THERE = 1.2e6
IDS = 2e6
AT_SIZE = 0.9
PEAK = 400 * MB
HELP, IMPORT = 0.3, 0.2
POLL = 0.06


def targets(contents: Contents) -> str:
    """A row for each: the least or the most that was wished, and what came of it."""
    rows = []
    for name, wished, found in _ROWS:
        try:
            reached, good = found(contents)
        except (KeyError, ValueError, IndexError):
            reached, good = "not measured yet", ""
        rows.append((name, wished, reached, good))
    return markdown(["measure", "target", "reached", "target met"], rows)


def _loads(contents: Contents) -> list[Run]:
    return [run for run in contents["loads"]["runs"] if run["dataset"] == "fires" and run["verdict"] == "right"]


def _of(contents: Contents, kind: str, situation: str, rows: int | None = None) -> tuple[list[Run], int]:
    """The runs at the smallest store where it happens, of the largest input unless `rows` says which."""
    runs = [run for run in _loads(contents) if run["situation"] == situation]
    ours = [run for run in runs if run["peer"] == OURS and run["format"] == kind]
    size = rows or max(run["rows"] for run in ours)
    least = min(run["existing"] for run in ours if run["rows"] == size)
    return [run for run in runs if (run["rows"], run["existing"]) == (size, least)], size


def _said(good: bool) -> str:
    return YES if good else NO


def _ratio(over: float, under: float, least: float, note: str = "") -> Found:
    return f"{over / under:.2f}{note}", _said(over / under >= least)


def _by_bound(kind: str, least: float) -> Callable[[Contents], Found]:
    def found(contents: Contents) -> Found:
        runs = [run for run in _loads(contents) if run["situation"] == "fresh" and not run["existing"]]
        bound = [run for run in runs if (run["peer"], run["format"]) == (BOUND, "parquet")]
        ours = [run for run in runs if (run["peer"], run["format"]) == (OURS, kind)]
        return beside(bound, ours, least)

    return found


def beside(other: Sequence[Run], ours: Sequence[Run], least: float) -> Found:
    """`other`'s seconds by `ours`, at each size, in each way: whole processes by whole processes, inner time by inner
    time. The target is met if inner time reaches it at `SIZE`, over `ROUNDS` rounds or more.
    """
    told, met = [], ""
    for rows in sorted({run["rows"] for run in ours}):
        here, there = ([run for run in runs if run["rows"] == rows] for runs in (ours, other))
        rounds = len({run["round"] for run in here} & {run["round"] for run in there})
        for of, words in WAYS.items():
            if both := shared_rounds(there, here, of):
                told.append(f"{both[0] / both[1]:.2f} ({rows / 1e6:g} M rows, {words}, {_rounds(rounds)})")
                if (rows, of) == (SIZE, "report_seconds"):
                    met = _said(both[0] / both[1] >= least) if rounds >= ROUNDS else "too few rounds"
    return "; ".join(told) or "not measured yet", met


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def _by_peer(peer: str, kind: str, situation: str, least: float) -> Callable[[Contents], Found]:
    def found(contents: Contents) -> Found:
        runs, _ = _of(contents, kind, situation, SIZE)
        mine = [run for run in runs if run["format"] == kind]
        ours = [run for run in mine if run["peer"] == OURS]
        names = [name for name in (peer, f"{peer}, time first") if any(run["peer"] == name for run in mine)]
        every = {name: beside([run for run in mine if run["peer"] == name], ours, least) for name in names}
        told = "; ".join(f"{name}: {words}" for name, (words, _) in every.items())
        # the peer's better table counts
        return told or "not measured yet", NO if NO in [met for _, met in every.values()] else every[names[-1]][1]

    return found


def _two_workers(contents: Contents) -> Found:
    runs = [run for run in contents["parallel"]["runs"] if run["case"] == "cheap"]
    bound = [run for run in runs if run["way"] == f"{BOUND}, 2 connections"]
    return beside(bound, [run for run in runs if run["way"] == "partitioned"], SHARE_OF_TWO)


def _all_there(contents: Contents) -> Found:
    runs, rows = _of(contents, "parquet", "all there", SIZE)
    took = medians([run for run in runs if run["peer"] == OURS], ("format",), "report_seconds")["parquet",]
    return f"{rows / took / 1e6:.2f} M rows/s (the load alone)", _said(rows / took >= ROWS_THERE)


def _snapshot(contents: Contents) -> Found:
    runs = [run for run in contents["snapshot"]["runs"] if run["way"] == "along the key"]
    told, good = [], []
    for size in sorted({run["ids"] for run in runs})[1:]:  # allocators keep more for small ones than these need
        here = [run for run in runs if run["ids"] == size]
        rate = size / median(run["snapshot_seconds"] for run in here)
        kept = median((run["file_bytes"] + run["heap_bytes"]) / size for run in here)
        told.append(f"{rate / 1e6:.1f} M IDs/s; {kept:.1f} bytes ({size / 1e6:.0f} M IDs)")
        good.append(rate >= IDS)
    return "; ".join(told), _said(all(good)) if len(set(good)) == 1 else "the smaller ones"


def _growth(contents: Contents) -> Found:
    runs = [run for run in contents["growth"]["runs"] if run["layout"] == "time"]
    size = max(run["existing"] for run in runs)
    took = medians([run for run in runs if run["existing"] == size], ("table",), "report_seconds")
    return _ratio(took["empty",], took["grown",], AT_SIZE, f" ({size / 1e6:.0f} M rows in the table)")


def _memory(contents: Contents) -> Found:
    peaks = medians(contents["memory"]["runs"], ("format", "rows"), "peak_bytes")
    told = [f"{peak / MB:.0f} MB ({kind}, {rows / 1e6:.0f} M rows)" for (kind, rows), peak in peaks.items()]
    return "; ".join(told), _said(max(peaks.values()) <= PEAK)


def _sqlite(contents: Contents) -> Found:
    took = medians(contents["sqlite"]["runs"], ("way", "load"), "report_seconds")
    return _ratio(took["plain", "fresh"], took["headrace", "fresh"], AT_SIZE)


def _start(contents: Contents) -> Found:
    took = medians(contents["startup"]["runs"], ("command",), "seconds")
    names = {command: seconds for (command,), seconds in took.items()}
    helped = next(seconds for command, seconds in names.items() if command.endswith("--help"))
    imported = next(seconds for command, seconds in names.items() if "import headrace" in command)
    return f"{helped:.2f} s; {imported:.2f} s", _said(helped <= HELP and imported <= IMPORT)


def _poll(contents: Contents) -> Found:
    runs = contents["poll"]["runs"]
    size = max(run["existing"] for run in runs)
    took = median(_every(run["polls"] for run in runs if run["existing"] == size))
    return f"{took * 1e3:.0f} ms ({size / 1e6:.0f} M rows in the table)", _said(took <= POLL)


def _every(lists: Iterable[Iterable[float]]) -> list[float]:
    return [one for some in lists for one in some]


_ROWS: tuple[tuple[str, str, Callable[[Contents], Found]], ...] = (
    ("fresh, Parquet, sequential ÷ raw binary COPY, 1 connection", "≥ 0.85", _by_bound("parquet", 0.85)),
    ("fresh, CSV, sequential ÷ the same", "≥ 0.75", _by_bound("csv", 0.75)),
    ("fresh, Parquet, 2 workers ÷ raw binary COPY, 2 connections", "≥ 0.80", _two_workers),
    ("fresh ÷ psycopg COPY + `ON CONFLICT`", "≥ 5", _by_peer("psycopg COPY", "parquet", "fresh", 5)),
    ("fresh ÷ ADBC + `ON CONFLICT`", "≥ 3.5", _by_peer("ADBC", "parquet", "fresh", 3.5)),
    ("fresh ÷ dlt insert-only", "≥ 7", _by_peer("dlt insert-only", "parquet", "fresh", 7)),
    ("everything already loaded, Parquet", "≥ 1.2 M rows/s", _all_there),
    ("everything already loaded ÷ psycopg by hand", "≥ 5", _by_peer("psycopg COPY", "parquet", "all there", 5)),
    ("everything already loaded ÷ dlt insert-only", "≥ 15", _by_peer("dlt insert-only", "parquet", "all there", 15)),
    ("snapshot fetch; bytes an ID", "≥ 2 M IDs/s; 16", _snapshot),
    ("rows/s into a large table ÷ into an empty one, IDs by time", "≥ 0.9 at 100 M", _growth),
    ("peak memory, sequential", "≤ 400 MB", _memory),
    ("SQLite, fresh ÷ plain `executemany` of ready rows", "≥ 0.9", _sqlite),
    ("`headrace --help`; `import headrace`", "≤ 0.3 s; ≤ 0.2 s", _start),
    ("a poll of 5,000 events, 90 % known, warm", "≤ 60 ms at 10 M rows", _poll),
)
