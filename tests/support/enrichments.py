"""Functions for `enrich` that workers can import: harmless ones, and those that bring trouble.

A trouble is a file in a folder, named by its kind: whoever removes it first has it. So each happens once, in whatever
worker gets there, and never in the coordinator.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = ["InTrouble", "add_pid", "always_die", "blind", "refuse_sevens", "say_so", "sleep_on_sevens"]


def in_worker() -> bool:
    return multiprocessing.parent_process() is not None


def add_pid(events: pa.RecordBatch) -> pa.RecordBatch:
    """The process that enriched each event."""
    return events.append_column("pid", pa.array([os.getpid()] * events.num_rows, pa.int64()))


@dataclass(frozen=True)
class InTrouble:
    """Takes a little while, and meets one of the troubles that are left in `folder`."""

    folder: Path

    def __call__(self, events: pa.RecordBatch) -> pa.RecordBatch:
        if in_worker():
            time.sleep(0.02)
            for token in sorted(self.folder.iterdir()):
                try:
                    token.unlink()
                except FileNotFoundError:
                    continue
                meet(token.name.partition("-")[2])
                break
        return add_double(events)


def meet(trouble: str) -> None:
    match trouble:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "starve":
            # what the process has, and hardly any more
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), -1))
            bytearray(1 << 30)


def add_double(events: pa.RecordBatch) -> pa.RecordBatch:
    return events.append_column("double", pa.array([2 * key for key in events["key"].to_pylist()], pa.int64()))


def say_so(events: pa.RecordBatch) -> pa.RecordBatch:
    """Logs how many events it got."""
    logging.getLogger("support.enrichments").info("got %d events", events.num_rows)
    return events


def always_die(events: pa.RecordBatch) -> pa.RecordBatch:
    """Ends its worker."""
    if in_worker():
        os._exit(9)
    return add_double(events)


def refuse_sevens(events: pa.RecordBatch) -> pa.RecordBatch:
    """Raises for keys that end in seven."""
    for key in events["key"].to_pylist():
        if key % 10 == 7:
            raise ValueError(f"seven is not to my taste: {key}")
    return add_double(events)


def sleep_on_sevens(events: pa.RecordBatch) -> pa.RecordBatch:
    """Never comes back from a batch that has the key 7."""
    if in_worker() and 7 in events["key"].to_pylist():
        time.sleep(3600)
    return add_double(events)


def blind(function: Callable[..., Any], /, *args: Any) -> Any:
    """Run in a process that sees no spool: as on another machine, no path of the coordinator's exists."""

    def unseen(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("there is no such folder here")

    mmap.mmap, pa.OSFile = unseen, unseen  # type: ignore[misc]
    return function(*args)
