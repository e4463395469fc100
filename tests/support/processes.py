"""What the suites about failing workers share: who lives below a process, what is left behind, a hunter, and functions
for `enrich` that workers can import.

Run as a program, this is the command line with semaphores that can be told from other programs'.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import headrace as package
from support.program import Headrace

__all__ = [
    "HangOnce",
    "Hunter",
    "end_the_process",
    "everything_below",
    "fork_server_of",
    "hang",
    "left_behind",
    "load_and_tell",
    "name_semaphores",
    "semaphores",
    "state_of",
    "take_time",
    "wait_for_end",
    "workers_below",
]

WITHIN = 60  # seconds; two are promised, and machines may be busy


# Processes ------------------------------------------------------------------------------------------------------


def workers_below(parent: int) -> set[int]:
    """The live processes that `parent` has had started as workers: the children of its fork server."""
    above = {pid: over for pid, (state, over) in _processes().items() if state != "Z"}
    servers = {pid for pid, over in above.items() if over == parent and _is_forked(pid)}
    return {pid for pid, over in above.items() if over in servers}


def fork_server_of(parent: int) -> int:
    return next(pid for pid, (_, over) in _processes().items() if over == parent and _is_forked(pid))


def everything_below(parent: int) -> set[int]:
    """All processes that `parent` has started, and theirs."""
    found = {parent}
    above = {pid: over for pid, (_, over) in _processes().items()}
    while more := {pid for pid, over in above.items() if over in found} - found:
        found |= more
    return found - {parent}


def state_of(pid: int) -> str:
    """As in ``ps``: ``R``, ``S``, ``T`` for a stopped one; ``Z`` also for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def wait_for_end(pids: set[int]) -> set[int]:
    """Those that have not ended in time."""
    deadline = time.monotonic() + WITHIN
    while (left := {pid for pid in pids if state_of(pid) != "Z"}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _processes() -> dict[int, tuple[str, int]]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                state, over = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                found[int(entry.name)] = (state, int(over))
    return found


def _is_forked(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


# What is left behind ----------------------------------------------------------------------------------------------


def name_semaphores(prefix: str) -> None:
    """Have this process's semaphores bear `prefix`."""
    multiprocessing.current_process()._config["semprefix"] = f"/{prefix}"  # type: ignore[attr-defined]


def semaphores(prefix: str) -> list[str]:
    """The semaphores and shared memory with `prefix` that the system still has."""
    return sorted(path.name for path in Path("/dev/shm").glob(f"*{prefix}-*"))  # noqa: S108 - where Linux keeps them


def left_behind(headrace: Headrace, scratch: Path, prefix: str) -> dict[str, object]:
    """Scratch folders, semaphores, locks and open transactions that are there after a while: none, one hopes."""
    deadline = time.monotonic() + WITHIN
    while True:
        found: dict[str, object] = {
            "folders": sorted(path.name for path in scratch.glob("headrace-*")),
            "semaphores": semaphores(prefix),
            "locks and transactions": _locks_and_transactions(headrace),
        }
        left = {what: which for what, which in found.items() if which}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _locks_and_transactions(headrace: Headrace) -> int:
    if headrace.url.startswith("sqlite"):
        return len(headrace.query("BEGIN IMMEDIATE"))  # raises while somebody else holds the file
    ((found,),) = headrace.query(
        "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())) + "
        "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())"
    )
    return int(found)


# The hunter -------------------------------------------------------------------------------------------------------


class Hunter:
    """Kills, stops and starves workers of this process at random moments, up to four times.

    Most of them are at work; some are still starting.
    """

    def __init__(self, seed: int, scratch: Path) -> None:
        self._chance = random.Random(seed)
        self._strikes = self._chance.randint(1, 4)
        self._scratch = scratch
        self._over = threading.Event()
        self.did: list[str] = []

    @contextmanager
    def about(self) -> Iterator[None]:
        thread = threading.Thread(target=self._hunt, name="hunter")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _hunt(self) -> None:
        while len(self.did) < self._strikes and not self._over.wait(self._chance.uniform(0, 0.3)):
            workers = workers_below(os.getpid())
            if self._chance.random() < 0.8:
                workers &= {int(path.name[6:]) for path in self._scratch.glob("*/crew/pulse-*")}
            if workers:
                with suppress(FileNotFoundError, ProcessLookupError):
                    self._strike(self._chance.choice(sorted(workers)), self._chance.choice(["kill", "stop", "starve"]))

    def _strike(self, pid: int, how: str) -> None:
        match how:
            case "kill":
                os.kill(pid, signal.SIGKILL)
            case "stop":
                os.kill(pid, signal.SIGSTOP)
            case "starve":  # what it has, and hardly any more
                used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
                resource.prlimit(pid, resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))
        self.did.append(how)


# In the workers ---------------------------------------------------------------------------------------------------


def take_time(events: pa.RecordBatch) -> pa.RecordBatch:
    """Takes as many seconds as the environment says."""
    time.sleep(float(os.environ["SECONDS"]))
    return events


@dataclass(frozen=True)
class HangOnce:
    """Never comes back the first time it meets the key 7: whoever removes `token` hangs."""

    token: Path

    def __call__(self, events: pa.RecordBatch) -> pa.RecordBatch:
        if 7 in events["key"].to_pylist():
            try:
                self.token.unlink()
            except FileNotFoundError:
                return events
            while True:
                sum(range(1000))
        return events


def hang(events: pa.RecordBatch) -> pa.RecordBatch:
    """Never comes back from a batch that has the key 7."""
    while 7 in events["key"].to_pylist():
        time.sleep(0.01)
    return events


def end_the_process(events: pa.RecordBatch) -> pa.RecordBatch:
    """Ends whatever process it is called in, at the key 7."""
    if 7 in events["key"].to_pylist():
        os.kill(os.getpid(), signal.SIGKILL)
    return events


def load_and_tell(path: str, **options: Any) -> str:
    """A load in parallel, and what came of it."""
    try:
        return str(package.load(path, mode="parallel", **options))
    except package.HeadraceError as error:
        return str(error)


if __name__ == "__main__":
    from headrace.cli.main import main

    name_semaphores(os.environ["SEMAPHORES"])
    main()
