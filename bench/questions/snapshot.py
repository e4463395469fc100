"""How fast do the existing IDs arrive, and what does one cost to keep? `Events.fetch_ids` into a `Snapshot`.

python -m bench.questions.snapshot URL FOLDER WAY    one fetch in a process of its own; prints its figures
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.partitioning.snapshot import EVERYTHING, Snapshot
from headrace.storage import open_store
from headrace.storage.records import IdRange

if TYPE_CHECKING:
    from bench.measure.harness import Bench

__all__ = ["measure"]

TABLE = "events"
# how a load fetches them from a table of layout `time`, and of layout `hash`, whose key order jumps about the table
WAYS = {"along the key": IdRange(), "as found": None}


def measure(bench: Bench) -> None:
    """Fetches from a table of each size, and from the table that `growth` has made, where it is larger than those."""
    from bench.measure import server
    from bench.peers.registry import HEADRACE
    from bench.questions.growth import grown
    from bench.questions.loads import Templates

    for size in bench.options.snapshot:
        if missing := _missing(bench, size):
            _measure(bench, Templates(bench).copy("fires", size, HEADRACE), size, missing)
            server.drop_database(bench.url, "run")
    url, size = grown(bench, "time")
    if size > max(bench.options.snapshot, default=0):
        _measure(bench, url, size, _missing(bench, size))


def _missing(bench: Bench, size: int) -> list[tuple[int, str]]:
    """The rounds and ways that were not measured; the ways take turns."""
    results = bench.results("snapshot")
    rounds = range(1, bench.options.rounds + 1)
    return [(number, way) for number in rounds for way in WAYS if not results.has(ids=size, way=way, round=number)]


def _measure(bench: Bench, url: str, size: int, missing: list[tuple[int, str]]) -> None:
    from bench.measure.harness import run_module

    for number, way in missing:
        folder = bench.scratch / "snapshot"
        folder.mkdir(exist_ok=True)
        outcome = run_module("bench.questions.snapshot", url, str(folder), way, scratch=bench.scratch)
        if outcome.exit_code:
            sys.exit(f"the snapshot could not be fetched:\n{outcome.complaint}")
        figures = json.loads(outcome.said)
        if figures["fetched"] != size:
            sys.exit(f"{figures['fetched']:,} IDs of {size:,} came")
        cell = {"ids": size, "way": way, "round": number}
        bench.results("snapshot").add(cell | figures | {"peak_bytes": outcome.peak_bytes}, **cell)
        bench.say(f"{size:>12,} IDs {way} in {figures['snapshot_seconds']:.2f} s")


def fetch(url: str, folder: Path, where: IdRange | None) -> dict[str, float]:
    """Fetch twice: once only to read the IDs, once into a snapshot."""
    with open_store(url) as store:
        began = time.perf_counter()
        size = sum(map(len, store.events.fetch_ids(TABLE, where)))
        drained = time.perf_counter() - began
        before = _on_the_heap()
        with Snapshot(folder) as snapshot:
            began = time.perf_counter()
            snapshot.extend(store.events.fetch_ids(TABLE, where), EVERYTHING)
            taken = time.perf_counter() - began
            kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            return {
                "fetched": len(snapshot),
                "wire_bytes": size,
                "fetch_seconds": drained,
                "snapshot_seconds": taken,
                "file_bytes": kept,
                "heap_bytes": max(0, _on_the_heap() - before),
            }


def _on_the_heap() -> int:
    """Resident bytes of this process that no file stands behind."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    print(json.dumps(fetch(sys.argv[1], Path(sys.argv[2]), WAYS[sys.argv[3]])))
