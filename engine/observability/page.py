"""A run as one self-contained HTML page: the page contains the drawn data, and beside each picture a table with the
same data.

Recorder ──► spans by worker · chunks: on a core, waiting · outcomes by event time · partitions · memory
another  ──► (a profile's parallel run) its spans and chunks, below the first one's
└──► page.html: the template, with styles and the script that draws; nothing is fetched
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from string import Template
from typing import Any

from headrace.observability.chunk_costs import chunkwise
from headrace.observability.recorder import Recorder
from headrace.observability.stages import totals_of
from headrace.storage.spans import Span

__all__ = ["page_data", "page_text", "write_page"]

MOST_SPANS = 6_000
MOST_MARKS = 400
_MIB = 1 << 20


def write_page(path: Path, recorded: Recorder, beside: Recorder | None = None) -> None:
    """Write the page about a run, with the stages and chunks of another run of the same input `beside` it."""
    path.write_text(page_text(recorded, beside), encoding="utf-8")


def page_text(recorded: Recorder, beside: Recorder | None = None) -> str:
    """The page about a run, and the one `beside` it."""
    data = page_data(recorded, beside)
    # "<" cannot end the script element, nor begin a comment in it, as an escape
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    template = Template(files("headrace.observability").joinpath("page.html").read_text(encoding="utf-8"))
    runs = [(recorded, data, "")] + ([] if beside is None else [(beside, data["beside"], "-beside")])
    return template.substitute(
        title=html.escape(str(data["title"])),
        state=html.escape(str(data["state"])),
        facts="".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in _facts(recorded)
        ),
        remarks=_remarks(recorded.remarks),
        of_which="" if beside is None else f" Parts without a run's name belong to the {data['way']} run.",
        data=embedded,
        timelines="".join(_timeline(run, drawn["way"], suffix) for run, drawn, suffix in runs),
        chunks="".join(_by_chunk(drawn, suffix) for _, drawn, suffix in runs),
        outcomes_table=_table(
            ("up to", "read", "inserted", "duplicate in input", "duplicate in store", "rejected"),
            ([_moment(one[0]) if data["by_time"] else f"row {one[0]:,}", *one[1:]] for one in data["outcomes"]),
        ),
        partitions_table=_table(("partition", "rows"), data["partitions"]),
        memory_table=_table(("second", "coordinator, MiB", "workers, MiB"), data["memory"]),
    )


def page_data(recorded: Recorder, beside: Recorder | None = None) -> dict[str, Any]:
    """The data of the page's pictures, as plain lists. Times are seconds since the run's first span began."""
    zero = _zero(recorded)
    by_time = any(batch.newest_us is not None for batch in recorded.batches)
    run = recorded.facts
    runs = [recorded] if beside is None else [recorded, beside]
    names = _Legend()
    drawn = [_run_data(one, names, "" if beside is None else _way(one)) for one in runs]
    return {
        "title": f"Headrace: {run.table if run else 'no run'}",
        "state": _state(recorded),
        **drawn[0],
        "beside": None if beside is None else drawn[1],
        "stages": list(names.stages),
        "sources": list(names.sources),
        "by_time": by_time,
        "outcomes": _outcomes(recorded, by_time=by_time),
        "partitions": sorted([one, rows] for one, rows in recorded.partition_rows.items()),
        "memory": [
            [round(sample.at - zero, 3), round(sample.coordinator / _MIB, 1), round(sample.workers / _MIB, 1)]
            for sample in _thinned(recorded.memory)
        ],
    }


@dataclass
class _Legend:
    """Each stage and each source, at the number by which spans call it; both runs' stages have the same colours."""

    stages: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)

    def of(self, span: Span) -> tuple[int, int]:
        return (
            self.stages.setdefault(span.stage, len(self.stages)),
            self.sources.setdefault(span.source, len(self.sources)),
        )


def _zero(recorded: Recorder) -> float:
    return min((span.started for span in recorded.spans), default=0.0)


def _way(recorded: Recorder) -> str:
    """How a run was made, for headings."""
    run = recorded.facts
    if run is None or run.strategy == "sequential":
        return "sequential"
    return f"parallel, {run.pool.wanted} worker{'' if run.pool.wanted == 1 else 's'}"


def _run_data(recorded: Recorder, names: _Legend, way: str) -> dict[str, Any]:
    """The stages and chunks of one run."""
    zero = _zero(recorded)
    outer = [span for span in recorded.spans if "." not in span.stage or span.stage.startswith("wait.")]
    shown = sorted(sorted(outer, key=lambda span: -span.seconds)[:MOST_SPANS], key=lambda span: span.started)
    workers = _lanes(outer)
    lanes = {worker: lane for lane, worker in enumerate(workers)}
    return {
        "way": way,
        "workers": list(workers),
        "lanes": list(workers.values()),
        "spans": [_drawn(span, zero, lanes, names) for span in shown],
        "left_out": len(outer) - len(shown),
        "chunks": _chunks(recorded.spans),
    }


def _lanes(spans: Sequence[Span]) -> dict[str, str]:
    """What each ``process/thread`` is called, in the order of the lanes: the coordinator's threads first."""
    home = next((_process(span.worker) for span in spans if span.stage == "agree"), "")
    threads: dict[str, list[str]] = {home: []}
    for worker in dict.fromkeys(span.worker for span in sorted(spans, key=lambda span: span.started)):
        threads.setdefault(_process(worker), []).append(worker)
    named = {worker: _thread(worker) for worker in threads.pop(home)}
    for number, own in enumerate(threads.values(), 1):
        for worker in own:
            named[worker] = f"worker {number}" + (f"/{worker.partition('/')[2]}" if len(own) > 1 else "")
    return named


def _process(worker: str) -> str:
    return worker.partition("/")[0]


def _thread(worker: str) -> str:
    """A thread of the coordinator: its main one, one of the engine's own (``headrace-read_0``), or somebody's."""
    name = worker.partition("/")[2]
    if name == "MainThread":
        return "coordinator"
    own = name.removeprefix("headrace-")
    return name if own == name else f"{own.rpartition('_')[0] or own} thread"


def _drawn(span: Span, zero: float, lanes: Mapping[str, int], names: _Legend) -> list[object]:
    stage, source = names.of(span)
    return [
        lanes[span.worker],
        stage,
        round(span.started - zero, 6),
        round(span.seconds, 6),
        round(min(span.cpu_seconds, span.seconds), 6),
        span.rows,
        source,
        span.first_row,
        span.partition,
    ]


def _chunks(spans: Iterable[Span]) -> list[list[Any]]:
    """For the chunks, in input order: where they begin, seconds on a core, those waiting for the
    database, those waiting otherwise, rows, bytes, how many they are. Neighbours are merged where there are too many.
    """
    return [
        [
            f"{one.source}, row {one.first_row:,}",
            round(one.on_a_core, 6),
            round(one.waiting_for_database, 6),
            round(max(0.0, one.waiting - one.waiting_for_database), 6),
            one.rows,
            one.size,
            one.chunks,
        ]
        for one in chunkwise(spans, MOST_MARKS).chunks
    ]


def _outcomes(recorded: Recorder, *, by_time: bool) -> list[list[int]]:
    """The books of each chunk at its newest event time or, without times, at the rows read by then."""
    points: list[list[int]] = []
    read = 0
    for batch in recorded.batches:
        read += batch.counts.read
        at = batch.newest_us if by_time else read
        if at is not None:
            points.append([at, *batch.counts.books])
    points = [_together(list(some)) for _, some in groupby(sorted(points), key=itemgetter(0))]
    step = -(-len(points) // MOST_MARKS) or 1
    gathered = [points[start : start + step] for start in range(0, len(points), step)]
    return [_together(some) for some in gathered]


def _together(points: Sequence[list[int]]) -> list[int]:
    """The last one's place, with the counts of all."""
    return [points[-1][0], *(sum(counts) for counts in list(zip(*points, strict=True))[1:])]


def _by_stage(spans: Iterable[Span]) -> list[tuple[object, ...]]:
    return [
        (stage, total.spans, round(total.seconds, 3), round(total.cpu_seconds, 3), total.rows)
        for stage, total in sorted(totals_of(spans).items())
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


def _timeline(recorded: Recorder, way: str, suffix: str) -> str:
    """The section of a run's stages. Two runs are told apart by `way` (for people) and `suffix` (for the script)."""
    table = _table(("stage", "spans", "seconds", "on a core", "rows"), _by_stage(recorded.spans))
    told = "What each thread did, over time."
    if suffix and recorded.report is not None:
        told += f" This run took {recorded.report.seconds:.2f} s; the time axis is the one above."
    return _section("timeline" + suffix, _headed("Stages, by worker", way), told, "Sums by stage, as a table", table)


def _by_chunk(drawn: dict[str, Any], suffix: str) -> str:
    names = ("from", "on a core, s", "waiting for the database, s", "waiting otherwise, s", "rows", "bytes", "chunks")
    table = _table(names, drawn["chunks"])
    heading = _headed("On a core and waiting, by chunk", drawn["way"])
    told = "As above, with its own scale of seconds." if suffix else _OF_CHUNKS
    return _section("chunks" + suffix, heading, told, "As a table", table)


_OF_CHUNKS = (
    "Seconds of all stages. A bar is as wide as the chunks that it stands for, and as high as what each of them "
    "took. Waiting for the database has the network in it; waiting otherwise is for disks, for a free core or for a "
    "library's own threads."
)


def _headed(what: str, way: str) -> str:
    return f"{what}: {way}" if way else what


def _section(name: str, heading: str, told: str, summary: str, table: str) -> str:
    return (
        f'<section data-chart="{name}"><h2 id="h-{name}">{html.escape(heading)}</h2>\n'
        f'<p class="soft">{html.escape(told)}</p><div class="draw"></div>\n'
        f'<details><summary>{html.escape(summary)}</summary><div class="scroll">{table}</div></details></section>\n\n'
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if isinstance(value, float) else str(value)
