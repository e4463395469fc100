"""The built-in executor: a process pool whose workers show that they live, and go when their parent goes.

    coordinator                            worker
    ProcessCrew.start ──forkserver/spawn──► enlist: ignores SIGINT, sends its logs home, and two threads:
    ProcessCrew.stalled ◄── a file's mtime ── pulse   touches its file once a second; ends a task past its deadline
                                              guard   waits for the parent's end: takes the others and the spool along
    ProcessCrew.kill ──SIGKILL──►

A killed worker breaks a `ProcessPoolExecutor` at once. A stopped one, or one that hangs inside C code, does not: its
pulse stops, and the coordinator kills it, which makes it the same case. Processes start by forkserver (spawn where
there is none), never by fork: Arrow, DuckDB and libpq have threads and sockets.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from headrace.errors import ConfigurationError
from headrace.logs import Channel, connect_logging, working_on
from headrace.scratch import live_folders, remove_folders
from headrace.worker import Outcome, attempt

__all__ = ["ProcessCrew", "run"]

log = logging.getLogger("headrace.crew")
Order = TypeVar("Order")
Result = TypeVar("Result")
PULSE = 1.0  # seconds
STALLED_AFTER = 10.0  # seconds without a pulse
LATE = 75  # the exit code of a worker that ended itself because its task took too long


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a new worker is told: `folder` is for pulses, `scratch` goes when the parent is gone."""

    folder: Path
    scratch: tuple[Path, ...]
    task_timeout: float
    channel: Channel | None


class ProcessCrew:
    """`count` worker processes; `scratch` is the run's own folder.

    Should this process die, they remove that and every other scratch folder it has.
    """

    def __init__(self, count: int, scratch: Path, *, task_timeout: float, channel: Channel | None = None) -> None:
        self.count = count
        folder = scratch / "crew"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._terms = _Terms(folder, live_folders(), task_timeout, channel)
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        self._pulses: dict[Path, tuple[int, float]] = {}
        self._looked = 0.0
        self._lived = False

    def start(self) -> ProcessPoolExecutor:
        """A new pool, whose processes are on their way.

        Raises `ConfigurationError` in a process that is a worker itself.
        """
        pool = ProcessPoolExecutor(self.count, self._context, enlist, (self._terms,))
        try:
            for _ in range(self.count):  # a process for each, which loads its libraries while the first rows are read
                pool.submit(os.getpid)
        except RuntimeError as error:  # multiprocessing's own check, in a worker that imports an unguarded script
            raise ConfigurationError(
                "a worker cannot start workers", hint="call Headrace under `if __name__ == '__main__':`"
            ) from error
        return pool

    def lived(self) -> bool:
        """Whether any worker ever got as far as showing a pulse."""
        self._lived = self._lived or any(self._terms.folder.glob("pulse-*"))
        return self._lived

    def stalled(self) -> list[int]:
        """Workers whose pulse has stopped, by process ID.

        Judged by how long this process has seen the same pulse, not by the clock: a machine that slept stalls nobody.
        """
        now = time.monotonic()
        if now - self._looked > STALLED_AFTER / 2:
            self._pulses.clear()
        self._looked = now
        found = []
        for path, beat in self._read_pulses().items():
            seen = self._pulses.get(path)
            if seen is None or seen[0] != beat:
                self._pulses[path] = (beat, now)
            elif now - seen[1] > STALLED_AFTER:
                found.append(_pid(path))
        return found

    def late(self) -> list[str]:
        """The orders that took longer than they may; told once."""
        files = list(self._terms.folder.glob("late-*"))
        orders = [path.read_text() for path in files]
        for path in files:
            path.unlink(missing_ok=True)
        return orders

    def kill(self) -> None:
        """End every worker at once, stopped ones too."""
        self.lived()
        for pid in _pids(self._terms.folder):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            (self._terms.folder / f"pulse-{pid}").unlink(missing_ok=True)
        self._pulses.clear()

    def _read_pulses(self) -> dict[Path, int]:
        pulses: dict[Path, int] = {}
        for path in self._terms.folder.glob("pulse-*"):
            with suppress(FileNotFoundError):
                pulses[path] = path.stat().st_mtime_ns
        return pulses


# In the worker --------------------------------------------------------------------------------------------------


class _Duty:
    """The task in hand: what it is, and when it began."""

    def __init__(self) -> None:
        self.order = ""
        self.began: float | None = None


_duty = _Duty()


def run(work: Callable[[Order], Result], order: Order, partition: int | None) -> Outcome[Result]:
    """`attempt`, watched for its deadline, with the partition in every log record."""
    _duty.order, _duty.began = str(order), time.monotonic()
    try:
        with working_on(partition):
            return attempt(work, order)
    finally:
        _duty.began = None


def enlist(terms: _Terms) -> None:
    """Make this process a worker."""
    # Ctrl-C reaches the whole terminal: the coordinator decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if terms.channel is not None:
        connect_logging(terms.channel)
    pulse = terms.folder / f"pulse-{os.getpid()}"
    pulse.touch()
    threading.Thread(target=_beat, args=(pulse, terms), daemon=True, name="headrace-pulse").start()
    threading.Thread(target=_guard, args=(terms,), daemon=True, name="headrace-guard").start()


def _beat(pulse: Path, terms: _Terms) -> None:
    while True:
        time.sleep(PULSE)
        began = _duty.began
        if began is not None and time.monotonic() - began > terms.task_timeout:
            log.error("%s took longer than %g s: this worker ends itself", _duty.order, terms.task_timeout)
            (terms.folder / f"late-{os.getpid()}").write_text(_duty.order)
            os._exit(LATE)
        with suppress(FileNotFoundError):  # the folder is gone: the run is over, and so is this worker soon
            os.utime(pulse)


def _guard(terms: _Terms) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    # one that is stopped cannot notice for itself; the first to notice ends it
    for pid in _pids(terms.folder):
        if pid != os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    remove_folders(terms.scratch)
    os._exit(1)


def _pids(folder: Path) -> list[int]:
    """The workers that have shown a pulse."""
    return [_pid(path) for path in folder.glob("pulse-*")]


def _pid(pulse: Path) -> int:
    return int(pulse.name.removeprefix("pulse-"))
