"""The built-in executor: a process pool whose workers show that they are alive, and end with their parent.

    coordinator                            worker
    ProcessCrew.start ──forkserver/spawn──► enlist: ignores SIGINT, sends its logs home, and two threads:
    ProcessCrew.stalled ◄── a file's mtime ── pulse   touches its file once a second; ends a task past its deadline
                                              guard   waits for the parent's end: takes the others and the spool along
    ProcessCrew.kill ──SIGKILL──►             run     a large outcome goes home in a file

A killed worker breaks a `ProcessPoolExecutor` at once. A stopped one, or one that hangs inside C code, does not: its
pulse stops, and the coordinator kills it, which makes it the same case. A worker killed halfway through writing into
the pool's pipe would keep the pool reading for ever: so nothing goes through it that is not written whole or not at
all. Processes start by forkserver (spawn where there is none), never by fork: Arrow, DuckDB and libpq have threads and
sockets.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from headrace.errors import ConfigurationError
from headrace.execution.fork_server import METHOD, send_ahead
from headrace.execution.tasks import TaskOutcome, attempt
from headrace.partitioning.folders import private_folder
from headrace.runtime.scratch import live_folders, private_file, remove_folders
from headrace.runtime.worker_logs import Channel, connect_logging, working_on

__all__ = ["InFile", "Packed", "ProcessCrew", "run"]

log = logging.getLogger("headrace.crew")
Order = TypeVar("Order")
Result = TypeVar("Result")
PULSE = 1.0  # seconds
STALLED_AFTER = 10.0  # seconds without a pulse
STARTS_WITHIN = 30.0  # seconds to the first pulse: libraries are loaded before
PATIENCE = 5.0  # seconds that workers may take to leave when all is done
LATE = 75  # the exit code of a worker that ended itself because its task took too long
# a pipe takes this much as a whole; the pool wraps some hundred bytes around it
_WHOLE = select.PIPE_BUF // 2
_UNKNOWN = 255  # the exit code of a worker whose fork server is gone
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a new worker is told: `folder` is for pulses, `scratch` goes when the parent is gone."""

    folder: Path
    scratch: tuple[Path, ...]
    task_timeout: float
    pulse: float
    channel: Channel | None


class ProcessCrew:
    """`count` worker processes; `scratch` is the run's own folder.

    Should this process die, they remove that and every other scratch folder it has.
    """

    def __init__(self, count: int, scratch: Path, *, task_timeout: float, channel: Channel | None = None) -> None:
        self.count = count
        folder = private_folder(scratch / "crew")
        self._terms = _Terms(folder, live_folders(), task_timeout, PULSE, channel)
        self._members: list[BaseProcess] = []
        self._context = _context(self._members)
        self._pulses: dict[int, tuple[int, float]] = {}
        self._looked = 0.0
        self._lived = False

    def start(self) -> ProcessPoolExecutor:
        """Start a new pool, whose processes are being started.

        Raises `ConfigurationError` if no process can be started, as in a process that is a worker itself.
        """
        private_folder(self._terms.folder)
        pool = ProcessPoolExecutor(self.count, self._context, enlist, (self._terms,))
        try:
            for _ in range(self.count):  # a process for each, which loads its libraries while the first rows are read
                pool.submit(os.getpid)
        except BrokenProcessPool:
            pass  # one is dead already: the first task will tell
        except (RuntimeError, AssertionError, OSError, EOFError) as error:
            # the first two are multiprocessing's own checks: an unguarded script, a daemon's child
            self.kill()
            pool.shutdown(wait=False, cancel_futures=True)
            raise _cannot_start(error) from error
        return pool

    def can_start(self) -> bool:
        """Whether workers get as far as showing a pulse; those that were killed on the way say nothing about it."""
        self._lived = self._lived or any(self._terms.folder.glob("pulse-*"))
        return self._lived or not any(0 < (member.exitcode or 0) < _UNKNOWN for member in self._started())

    def alive(self) -> int:
        """How many workers there are."""
        return sum(member.is_alive() for member in self._started())

    def stalled(self) -> list[int]:
        """Workers whose pulse has stopped or never began, by process ID.

        Judged by the time for which this process has seen the same pulse, not by the clock: a machine's sleep stalls no
        worker.
        """
        now = time.monotonic()
        if now - self._looked > STALLED_AFTER / 2:
            self._pulses.clear()
        self._looked = now
        found = []
        for pid, beat in self._read_pulses().items():
            seen = self._pulses.get(pid)
            if seen is None or seen[0] != beat:
                self._pulses[pid] = (beat, now)
            elif now - seen[1] > (STALLED_AFTER if beat else STARTS_WITHIN):
                found.append(pid)
        return found

    def late(self) -> list[str]:
        """The orders that exceeded the time limit; each is returned once."""
        files = list(self._terms.folder.glob("late-*"))
        orders = [path.read_text() for path in files]
        for path in files:
            path.unlink(missing_ok=True)
        return orders

    def kill(self) -> None:
        """End every worker at once, also stopped workers and workers that are still starting."""
        self.can_start()
        for member in self._started():
            if member.is_alive():
                member.kill()
            with suppress(ValueError):  # somebody else is killing too
                self._members.remove(member)
        for path in self._terms.folder.glob("pulse-*"):
            path.unlink(missing_ok=True)
        self._pulses.clear()

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """While inside, wait for the workers to end by themselves; kill a worker that does not end, because it
        is stopped.
        """
        gone = threading.Event()

        def see_off() -> None:
            patience = PATIENCE
            while not gone.wait(patience):
                self.kill()
                patience = PULSE

        watch = threading.Thread(target=see_off, daemon=True, name="headrace-leaving")
        watch.start()
        try:
            yield
        finally:
            gone.set()
            watch.join()

    def _started(self) -> list[BaseProcess]:
        return [member for member in self._members if member.pid is not None]

    def _read_pulses(self) -> dict[int, int]:
        """When each worker last showed its pulse, 0 for one that has not yet."""
        private_folder(self._terms.folder)
        pulses = {member.pid: 0 for member in self._started() if member.pid}
        for pid in pulses:
            with suppress(FileNotFoundError):
                pulses[pid] = (self._terms.folder / f"pulse-{pid}").stat().st_mtime_ns
        return pulses


def _context(members: list[BaseProcess]) -> BaseContext:
    """How processes start. Each is put on the list of `members`, since a pool keeps its processes to itself."""
    send_ahead()
    context: Any = copy(multiprocessing.get_context(METHOD))
    make: Callable[..., BaseProcess] = context.Process

    def made(*args: Any, **named: Any) -> BaseProcess:
        members.append(make(*args, **named))
        return members[-1]

    context.Process = made
    ours: BaseContext = context
    return ours


def _cannot_start(error: BaseException) -> ConfigurationError:
    if multiprocessing.parent_process() is not None:
        return ConfigurationError(
            "a worker cannot start workers",
            hint="a script must call Headrace under `if __name__ == '__main__':`; inside a worker of your own, use "
            "the mode sequential",
        )
    return ConfigurationError(f"no worker can be started ({error})", hint="fewer --workers, or --mode sequential")


# In the worker --------------------------------------------------------------------------------------------------


class _Duty:
    """The task in hand: what it is, and when it began. `folder` is where a member of a crew leaves what is large."""

    def __init__(self) -> None:
        self.order = ""
        self.began: float | None = None
        self.folder: Path | None = None


_duty = _Duty()


@dataclass(frozen=True, slots=True)
class Packed(Generic[Order]):
    """An order as bytes: a worker that cannot read it, because the user's module is missing, survives."""

    content: bytes
    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, order: Order) -> Packed[Order]:
        """`order`, packed."""
        return cls(pickle.dumps(order), str(order))


@dataclass(frozen=True, slots=True)
class InFile(Generic[Result]):
    """An outcome too large for the pool's pipe."""

    path: Path

    def take(self) -> TaskOutcome[Result]:
        """The outcome; its file is removed."""
        outcome: TaskOutcome[Result] = pickle.loads(self.path.read_bytes())  # noqa: S301 - our own worker's
        self.path.unlink()
        return outcome


def run(
    work: Callable[[Order], Result], order: Order | Packed[Order], partition: int | None
) -> TaskOutcome[Result] | InFile[Result]:
    """`attempt`, watched for its deadline, with the partition in every log record."""
    _duty.order, _duty.began = str(order), time.monotonic()
    try:
        with working_on(partition):
            outcome = attempt(lambda given: work(_unpacked(given)), order)
            return outcome if _duty.folder is None else _sent(outcome, _duty.folder)
    finally:
        _duty.began = None


def _unpacked(order: Order | Packed[Order]) -> Order:
    if not isinstance(order, Packed):
        return order
    content: Order = pickle.loads(order.content)  # noqa: S301 - our own coordinator's
    return content


def _sent(outcome: TaskOutcome[Result], folder: Path) -> TaskOutcome[Result] | InFile[Result]:
    content = pickle.dumps(outcome)
    if len(content) <= _WHOLE:
        return outcome
    path = folder / f"outcome-{uuid4().hex}"
    try:
        private_file(path).write_bytes(content)
    except FileNotFoundError:  # a cleaner has taken the folder: it is made again by who has made it
        return outcome
    return InFile(path)


def enlist(terms: _Terms) -> None:
    """Make this process a worker."""
    # Ctrl-C reaches the whole terminal: the coordinator decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if terms.channel is not None:
        connect_logging(terms.channel)
    _duty.folder = terms.folder
    _go_on_when_orphaned()
    pulse = terms.folder / f"pulse-{os.getpid()}"
    pulse.touch(mode=0o600)
    threading.Thread(target=_beat, args=(pulse, terms), daemon=True, name="headrace-pulse").start()
    threading.Thread(target=_guard, args=(terms,), daemon=True, name="headrace-guard").start()


def _go_on_when_orphaned() -> None:
    """Where the system can: a stopped worker goes on when its fork server ends, as it does with the coordinator.

    Only so can a guard notice when all workers are stopped. The fork server lives as long as anybody holds its
    lifeline, which it hands to all that it starts: a worker starts nothing, and lets go of it.
    """
    if sys.platform != "linux":
        return
    lifeline: int | None = getattr(vars(forkserver)["_forkserver"], "_forkserver_alive_fd", None)
    if lifeline is not None:
        os.close(lifeline)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _beat(pulse: Path, terms: _Terms) -> None:
    starter = os.getppid()
    while True:
        time.sleep(terms.pulse)
        if os.getppid() != starter:
            if _parent_is_gone():
                return  # the guard cleans up, and ends this process
            os._exit(1)  # without its fork server nobody would learn how this worker ends: the pool has given it up
        began = _duty.began
        if began is not None and time.monotonic() - began > terms.task_timeout:
            log.error("%s took longer than %g s: this worker ends itself", _duty.order, terms.task_timeout)
            late = terms.folder / f"late-{os.getpid()}"
            with suppress(FileNotFoundError):
                late.touch(mode=0o600)
                late.write_text(_duty.order)
            os._exit(LATE)
        # if the folder is gone, the run is over, and so is this worker soon, or a cleaner was there
        with suppress(FileNotFoundError):
            pulse.touch(mode=0o600)


def _parent_is_gone() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and bool(wait([parent.sentinel], timeout=0))


def _guard(terms: _Terms) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    if not _is_heir(terms.folder):
        os._exit(1)  # the heir cleans up: if each ended the others, none might be left to do it
    # one that is stopped cannot notice for itself
    for pulse in terms.folder.glob("pulse-*"):
        pid = int(pulse.name.removeprefix("pulse-"))
        if pid != os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    remove_folders(terms.scratch)
    os._exit(1)


def _is_heir(folder: Path) -> bool:
    """Whether this worker is the first to notice the parent's end."""
    try:
        os.close(os.open(folder / "heir", os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:  # there is one already, or it has removed the folder
        return False
    return True
