"""A run as a file in the Chrome trace event format, which Perfetto (ui.perfetto.dev, also offline) opens.

Each process is a process there, each thread a track; the parts of a stage lie inside it. Memory is a counter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.observability.recorder import Recorder
from headrace.storage.spans import Span

__all__ = ["trace_events", "write_trace"]

_US = 1_000_000


def write_trace(path: Path, recorded: Recorder) -> None:
    """Write the trace of a run."""
    content = {"traceEvents": list(trace_events(recorded)), "displayTimeUnit": "ms", "otherData": _facts(recorded)}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def trace_events(recorded: Recorder) -> Iterator[dict[str, Any]]:
    """Names of processes and threads, a complete event for each span, a counter for each sample of memory."""
    tracks: dict[str, tuple[int, int]] = {}
    for span in recorded.spans:
        if span.worker not in tracks:
            process, _, thread = span.worker.partition("/")
            track = tracks[span.worker] = (int(process), len(tracks) + 1)
            yield _named("process_name", track, f"headrace {process}")
            yield _named("thread_name", track, thread)
        yield _complete(span, tracks[span.worker])
    coordinator = next(iter(tracks.values()), (0, 0))[0]
    for sample in recorded.memory:
        args = {"coordinator MiB": sample.coordinator >> 20, "workers MiB": sample.workers >> 20}
        yield {"name": "memory", "ph": "C", "ts": sample.at * _US, "pid": coordinator, "tid": 0, "args": args}


def _named(what: str, track: tuple[int, int], name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": track[0], "tid": track[1], "args": {"name": name}}


def _complete(span: Span, track: tuple[int, int]) -> dict[str, Any]:
    args: dict[str, Any] = {"cpu_ms": round(span.cpu_seconds * 1000, 3), "rows": span.rows, "bytes": span.size}
    if span.source:
        args |= {"source": span.source, "first_row": span.first_row}
    if span.partition is not None:
        args["partition"] = span.partition
    return {
        "name": span.stage,
        "cat": span.stage.partition(".")[0],
        "ph": "X",
        "ts": span.started * _US,
        "dur": span.seconds * _US,
        "pid": track[0],
        "tid": track[1],
        "args": args,
    }


def _facts(recorded: Recorder) -> dict[str, str]:
    run = recorded.facts
    return {} if run is None else {"run": run.run_id, "table": run.table, "strategy": run.strategy}
