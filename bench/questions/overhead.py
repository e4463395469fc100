"""What does profiling cost? The same load in one warm process three ways, in turn.

    python -m bench.questions.overhead INPUT URL ROUNDS    in a process of its own; prints a JSON line for each load

blind      the stage clock taken out: what no user can have
clocked    as every load is: the stage clock, and nobody who listens
profiled   as `headrace profile` has it: spans recorded, memory, the server's sessions and the machine looked at
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.measure.harness import Bench

__all__ = ["measure"]

WAYS = ("blind", "clocked", "profiled")
CHUNK_ROWS = 65_536


def measure(bench: Bench) -> None:
    """Each database once, in a process that loads in all ways, round after round."""
    from bench.measure import server
    from bench.measure.datasets import DATASETS, Situation, write_input
    from bench.measure.harness import run_module, warm

    results, rows = bench.results("overhead"), bench.options.rows
    path = write_input(bench.data, "fires", "parquet", rows, 0, Situation("fresh"))
    for database in ("PostgreSQL", "SQLite"):
        if results.has(database=database, rows=rows):
            continue
        url = server.create_database(bench.url, "overhead")
        if database == "SQLite":
            url = f"sqlite:///{bench.scratch / 'overhead.db'}"
        warm(path)
        key = ",".join(DATASETS["fires"].key)
        words = [str(path), url, str(bench.options.rounds), key, DATASETS["fires"].time]
        done = run_module("bench.questions.overhead", *words, scratch=bench.scratch)
        if done.exit_code:
            sys.exit(f"overhead failed:\n{done.complaint}")
        for line in done.said.splitlines():
            found: dict[str, Any] = json.loads(line)
            results.add({"database": database, "rows": rows, "busy": round(done.busy, 2)} | found)
            bench.say(
                f"{database:<11} {found['way']:<9} {found['seconds']:7.3f} s, {found['cpu_seconds']:7.3f} on cores"
            )


def loads(path: str, url: str, rounds: int, key: str, time_column: str) -> Iterator[dict[str, object]]:
    """The loads of all rounds, every other round backwards; one before them warms up, and is not told of."""
    for number in range(rounds + 1):
        for way in WAYS if number % 2 else WAYS[::-1]:
            table = f"{way}_{number}"
            seconds, cpu, spans = _load(path, url, table, key.split(","), time_column, way)
            if number:
                yield {"way": way, "round": number, "seconds": seconds, "cpu_seconds": cpu, "spans": spans}


def _load(path: str, url: str, table: str, key: list[str], time_column: str, way: str) -> tuple[float, float, int]:
    from headrace.loading.run import ingest
    from headrace.observability.recorder import Recorder
    from headrace.options.load import LoadOptions
    from headrace.profiling.usage import Meter
    from headrace.reading.inputs import ReadOptions, open_inputs
    from headrace.runtime.scratch import scratch_folder
    from headrace.storage import open_store
    from headrace.storage.trial.gauge import Server

    read = ReadOptions(chunk_rows=CHUNK_ROWS)
    options = LoadOptions(to=url, table=table, identity=tuple(key), time=time_column, read=read, mode="sequential")
    with open_store(url) as store, scratch_folder() as folder, ExitStack() as opened:
        store.ledger.prepare()
        inputs = open_inputs([path], read, folder)
        blind: Callable[[], AbstractContextManager[object]] = _no_clock if way == "blind" else nullcontext
        opened.enter_context(blind())
        began, cpu, recorder = time.perf_counter(), time.process_time(), None
        with ExitStack() as measured:
            if way == "profiled":
                recorder = measured.enter_context(Recorder())
                measured.enter_context(Server(url, "headrace"))
                measured.enter_context(Meter())
            report = ingest(store, inputs, table, options, listener=recorder)
        took = time.perf_counter() - began, time.process_time() - cpu
        if not report.inserted == report.read > 0:
            raise SystemExit(f"{report}")
        if bool(report.stages) is (way == "blind"):
            raise SystemExit(f"{way}: the clock says {dict(report.stages)}")
        return *took, 0 if recorder is None else len(recorder.spans)


@contextmanager
def _no_clock() -> Iterator[None]:
    """Stages that measure nothing."""
    from headrace.storage import spans

    class Nothing(SimpleNamespace):
        def __enter__(self) -> Nothing:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    clocked = spans.Stopwatch.stage
    spans.Stopwatch.stage = lambda *_, **__: Nothing(rows=0, size=0)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        spans.Stopwatch.stage = clocked  # type: ignore[method-assign]


if __name__ == "__main__":
    source, where, how_often, identity, at = sys.argv[1:6]
    Path(where.removeprefix("sqlite:///")).unlink(missing_ok=True)
    for one in loads(source, where, int(how_often), identity, at):
        print(json.dumps(one), flush=True)
