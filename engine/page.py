"""A run as one self-contained HTML page: what is drawn is data in the page, and beside it a table that says the same.

Recorder ──► spans by worker · chunks: on a core, waiting · outcomes by event time · partitions · memory
└──► page.html: the template, with styles and the script that draws; nothing is fetched
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from string import Template
from typing import Any

from headrace.recorder import Recorder
from headrace.storage.spans import Span

__all__ = ["page_data", "page_text", "write_page"]

MOST_SPANS = 6_000
MOST_MARKS = 400
_MIB = 1 << 20


def write_page(path: Path, recorded: Recorder) -> None:
    """Write the page about a run."""
    path.write_text(page_text(recorded), encoding="utf-8")


def page_text(recorded: Recorder) -> str:
    """The page about a run."""
    data = page_data(recorded)
    # "<" cannot end the script element, nor begin a comment in it, as an escape
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    template = Template(files("headrace").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(str(data["title"])),
        state=html.escape(str(data["state"])),
        facts="".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in _facts(recorded)
        ),
        remarks=_remarks(recorded.remarks),
        data=embedded,
        spans_table=_table(("stage", "spans", "seconds", "on a core", "rows"), _by_stage(recorded.spans)),
        chunks_table=_table(("from", "on a core, s", "waiting, s", "rows"), data["chunks"]),
        outcomes_table=_table(
            ("up to", "read", "inserted", "duplicate in input", "duplicate in store", "rejected"),
            ([_moment(one[0]) if data["by_time"] else f"row {one[0]:,}", *one[1:]] for one in data["outcomes"]),
        ),
        partitions_table=_table(("partition", "rows"), data["partitions"]),
        memory_table=_table(("second", "coordinator, MiB", "workers, MiB"), data["memory"]),
    )


def page_data(recorded: Recorder) -> dict[str, Any]:
    """What the page draws, as plain lists. Times are seconds since the first span began."""
    outer = [span for span in recorded.spans if "." not in span.stage or span.stage.startswith("wait.")]
    shown = sorted(sorted(outer, key=lambda span: -span.seconds)[:MOST_SPANS], key=lambda span: span.started)
    zero = min((span.started for span in recorded.spans), default=0.0)
    workers, stages, sources = (
        list(dict.fromkeys(names))
        for names in (
            (span.worker for span in shown),
            (span.stage for span in shown),
            (span.source for span in shown),
        )
    )
    by_time = any(batch.newest_us is not None for batch in recorded.batches)
    run = recorded.facts
    return {
        "title": f"Headrace: {run.table if run else 'no run'}",
        "state": _state(recorded),
        "workers": workers,
        "stages": stages,
        "sources": sources,
        "spans": [_drawn(span, zero, workers, stages, sources) for span in shown],
        "left_out": len(outer) - len(shown),
        "chunks": _chunks(outer),
        "by_time": by_time,
        "outcomes": _outcomes(recorded, by_time=by_time),
        "partitions": sorted([one, rows] for one, rows in recorded.partition_rows.items()),
        "memory": [
            [round(sample.at - zero, 3), round(sample.coordinator / _MIB, 1), round(sample.workers / _MIB, 1)]
            for sample in _thinned(recorded.memory)
        ],
    }


def _drawn(span: Span, zero: float, workers: list[str], stages: list[str], sources: list[str]) -> list[object]:
    return [
        workers.index(span.worker),
        stages.index(span.stage),
        round(span.started - zero, 6),
        round(span.seconds, 6),
        round(span.cpu_seconds, 6),
        span.rows,
        sources.index(span.source),
        span.first_row,
        span.partition,
    ]


def _chunks(spans: Iterable[Span]) -> list[list[Any]]:
    """For each chunk (or micro-batch) in input order: where it begins, seconds on a core, seconds waiting, rows.

    More than 400 are gathered, neighbours together.
    """
    found: dict[tuple[str, int], list[float]] = {}
    for span in spans:
        if span.source:
            sums = found.setdefault((span.source, span.first_row), [0.0, 0.0, 0.0])
            cpu = min(span.cpu_seconds, span.seconds)
            sums[0] += cpu
            sums[1] += span.seconds - cpu
            sums[2] = max(sums[2], span.rows)
    each = list(found.items())
    step = -(-len(each) // MOST_MARKS) or 1
    gathered = [each[start : start + step] for start in range(0, len(each), step)]
    return [
        [
            f"{some[0][0][0]}, row {some[0][0][1]:,}",
            *(round(sum(sums[at] for _, sums in some), 6) for at in (0, 1)),
            int(sum(sums[2] for _, sums in some)),
        ]
        for some in gathered
    ]


def _outcomes(recorded: Recorder, *, by_time: bool) -> list[list[int]]:
    """The books of each micro-batch at its newest event time or, without times, at the rows read by then."""
    points: list[list[int]] = []
    read = 0
    for batch in recorded.batches:
        counts = batch.counts
        read += counts.read
        at = batch.newest_us if by_time else read
        if at is not None:
            points.append(
                [
                    at,
                    counts.read,
                    counts.inserted,
                    counts.duplicate_in_input,
                    counts.duplicate_in_store,
                    counts.rejected,
                ]
            )
    points = [_together(list(some)) for _, some in groupby(sorted(points), key=itemgetter(0))]
    step = -(-len(points) // MOST_MARKS) or 1
    gathered = [points[start : start + step] for start in range(0, len(points), step)]
    return [_together(some) for some in gathered]


def _together(points: Sequence[list[int]]) -> list[int]:
    """The last one's place, with the counts of all."""
    return [points[-1][0], *(sum(counts) for counts in list(zip(*points, strict=True))[1:])]


def _by_stage(spans: Iterable[Span]) -> list[tuple[object, ...]]:
    sums: dict[str, list[float]] = {}
    for span in spans:
        total = sums.setdefault(span.stage, [0, 0.0, 0.0, 0])
        for at, more in enumerate((1, span.seconds, span.cpu_seconds, span.rows)):
            total[at] += more
    return [
        (stage, int(total[0]), round(total[1], 3), round(total[2], 3), int(total[3]))
        for stage, total in sorted(sums.items())
    ]


def _facts(recorded: Recorder) -> list[tuple[str, str]]:
    run, report = recorded.facts, recorded.report
    told = [] if run is None else [("run", run.run_id), ("table", run.table), ("provider", run.provider)]
    if run is not None:
        told += [("strategy", run.strategy), ("workers", str(run.pool.wanted)), ("database", run.database)]
    if report is not None:
        told += [(name.replace("_", " "), f"{number:,}") for name, number in report.to_dict().items() if name in _BOOKS]
        told += [("seconds", f"{report.seconds:.2f}"), ("rows per second", f"{report.rows_per_second:,.0f}")]
    return told


def _remarks(remarks: Sequence[tuple[str, str]]) -> str:
    """What somebody has to say about the run, before everything else; the first of it stands out."""
    if not remarks:
        return ""
    said = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in remarks)
    return f'<section><h2>Verdict</h2><dl class="says">{said}</dl></section>'


_BOOKS = ("read", "inserted", "duplicate_in_input", "duplicate_in_store", "rejected")


def _state(recorded: Recorder) -> str:
    if recorded.error is not None:
        return f"failed: {recorded.error}"
    return "done, the books balance" if recorded.report is not None else "not finished"


def _thinned(samples: Sequence[Any]) -> Sequence[Any]:
    return samples[:: -(-len(samples) // MOST_MARKS) or 1]


def _moment(us: int) -> str:
    try:
        return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError):
        return f"{us} µs since 1970"


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if isinstance(value, float) else str(value)
