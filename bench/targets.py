"""What was aimed at beside what was reached, from the results of all questions; a row without results says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness import Run, median, medians
from tables import BOUND, OURS, markdown

__all__ = ["targets"]

Contents = Mapping[str, Mapping[str, Any]]
Found = tuple[str, str]
MB = 1_000_000
YES, ALONE, NO = "yes", "the load alone", "**no**"

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
        except (KeyError, ValueError):
            reached, good = "not measured yet", ""
        rows.append((name, wished, reached, good))
    return markdown(["measure", "wished", "reached", "enough"], rows)


def _loads(contents: Contents) -> list[Run]:
    return [run for run in contents["loads"]["runs"] if run["dataset"] == "fires" and run["verdict"] == "right"]


def _of(contents: Contents, kind: str, situation: str, rows: int | None = None) -> tuple[list[Run], int]:
    """The runs at the smallest store where it happens, of the largest input unless `rows` says which."""
    runs = [run for run in _loads(contents) if run["situation"] == situation]
    ours = [run for run in runs if run["peer"] == OURS and run["format"] == kind]
    size = rows or max(run["rows"] for run in ours)
    least = min(run["existing"] for run in ours if run["rows"] == size)
    return [run for run in runs if (run["rows"], run["existing"]) == (size, least)], size


def _enough(whole: Iterable[bool], alone: Iterable[bool]) -> str:
    """Whether a whole process reaches it, or only the load without its start."""
    return YES if any(whole) else ALONE if any(alone) else NO


def _said(good: bool) -> str:
    return YES if good else NO


def _ratio(over: float, under: float, least: float, note: str = "") -> Found:
    return f"{over / under:.2f}{note}", _said(over / under >= least)


def _by_bound(kind: str, least: float) -> Callable[[Contents], Found]:
    def found(contents: Contents) -> Found:
        told: list[str] = []
        reached: dict[str, list[bool]] = {"report_seconds": [], "seconds": []}
        sizes = {run["rows"] for run in _loads(contents) if run["peer"] == OURS and run["format"] == kind}
        for rows in sorted(sizes):
            runs, _ = _of(contents, kind, "fresh", rows)
            for field, words in (("report_seconds", "the load alone"), ("seconds", "whole processes")):
                took = medians([run for run in runs if field in run], ("peer", "format"), field)
                share = took[BOUND, "parquet"] / took[OURS, kind]
                told.append(f"{share:.2f} ({rows / 1e6:.0f} M rows, {words})")
                reached[field].append(share >= least)
        return "; ".join(told), _enough(reached["seconds"], reached["report_seconds"])

    return found


def _by_peer(peer: str, kind: str, situation: str, least: float) -> Callable[[Contents], Found]:
    def found(contents: Contents) -> Found:
        runs, rows = _of(contents, kind, situation, 1_000_000)
        took = medians(runs, ("peer", "format"), "seconds")
        alone = medians([run for run in runs if run["peer"] == OURS], ("format",), "report_seconds")
        whole, inner = took[peer, kind] / took[OURS, kind], took[peer, kind] / alone[kind,]
        told = (
            f"{whole:.1f} (whole processes); {inner:.1f} (ours without its start), {rows / 1e6:.0f} M rows from {kind}"
        )
        return told, _enough([whole >= least], [inner >= least])

    return found


def _two_workers(contents: Contents) -> Found:
    runs = [run for run in contents["parallel"]["runs"] if run["case"] == "cheap"]
    alone, whole = (
        took[f"{BOUND}, 2 connections",] / took["partitioned",]
        for took in (
            medians([run for run in runs if field in run], ("way",), field) for field in ("report_seconds", "seconds")
        )
    )
    told = f"{alone:.2f} (the load alone); {whole:.2f} (whole processes)"
    return told, _enough([whole >= SHARE_OF_TWO], [alone >= SHARE_OF_TWO])


def _all_there(contents: Contents) -> Found:
    runs, rows = _of(contents, "parquet", "all there", 1_000_000)
    took = medians([run for run in runs if run["peer"] == OURS], ("format",), "report_seconds")["parquet",]
    return f"{rows / took / 1e6:.2f} M rows/s (the load alone)", ALONE if rows / took >= ROWS_THERE else NO


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
    return _ratio(took["empty",], took["grown",], AT_SIZE, f" ({size / 1e6:.0f} M there)")


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
    return f"{took * 1e3:.0f} ms ({size / 1e6:.0f} M rows there)", _said(took <= POLL)


def _every(lists: Iterable[Iterable[float]]) -> list[float]:
    return [one for some in lists for one in some]


_ROWS: tuple[tuple[str, str, Callable[[Contents], Found]], ...] = (
    ("fresh, Parquet, sequential ÷ raw binary COPY, 1 connection", "≥ 0.85", _by_bound("parquet", 0.85)),
    ("fresh, CSV, sequential ÷ the same", "≥ 0.75", _by_bound("csv", 0.75)),
    ("fresh, Parquet, 2 workers ÷ raw binary COPY, 2 connections", "≥ 0.80", _two_workers),
    ("fresh ÷ psycopg COPY + `ON CONFLICT`", "≥ 5", _by_peer("psycopg COPY", "parquet", "fresh", 5)),
    ("fresh ÷ ADBC + `ON CONFLICT`", "≥ 3.5", _by_peer("ADBC", "parquet", "fresh", 3.5)),
    ("fresh ÷ dlt insert-only", "≥ 7", _by_peer("dlt insert-only", "parquet", "fresh", 7)),
    ("everything there already, Parquet", "≥ 1.2 M rows/s", _all_there),
    ("everything there already ÷ psycopg by hand", "≥ 5", _by_peer("psycopg COPY", "parquet", "all there", 5)),
    ("everything there already ÷ dlt insert-only", "≥ 15", _by_peer("dlt insert-only", "parquet", "all there", 15)),
    ("snapshot fetch; bytes an ID", "≥ 2 M IDs/s; 16", _snapshot),
    ("rows/s into a large table ÷ into an empty one, IDs by time", "≥ 0.9 at 100 M", _growth),
    ("peak memory, sequential", "≤ 400 MB", _memory),
    ("SQLite, fresh ÷ plain `executemany` of ready rows", "≥ 0.9", _sqlite),
    ("`headrace --help`; `import headrace`", "≤ 0.3 s; ≤ 0.2 s", _start),
    ("a poll of 5,000 events, 90 % known, warm", "≤ 60 ms at 10 M rows", _poll),
)
