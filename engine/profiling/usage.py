"""The usage of process and machine during a block: time on cores, waiting for disks, bytes, by psutil."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

import psutil

__all__ = ["Meter", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Over `seconds` of wall time: the process's seconds on cores, the shares (0 to 1) that all of the machine's cores
    spent working and waiting for disks, and the bytes that the process had read from and written to disks (``None``
    where the system does not say).
    """

    seconds: float
    cpu_seconds: float
    machine_cpu: float
    machine_io_wait: float
    bytes_read: int | None
    bytes_written: int | None

    @property
    def cpu(self) -> float:
        """Cores that the process kept busy: 1.0 is one whole core."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0


class Meter:
    """Measures its block; `usage` has the result afterwards."""

    usage: Usage

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._began = self._look()
        return self

    def __exit__(self, *_: object) -> None:
        before, now = self._began, self._look()
        passed = [after - earlier for earlier, after in zip(before.machine, now.machine, strict=True)]
        every, idle, waiting = passed
        self.usage = Usage(
            seconds=now.at - before.at,
            cpu_seconds=now.cpu - before.cpu,
            machine_cpu=max(0.0, every - idle - waiting) / every if every > 0 else 0.0,
            machine_io_wait=max(0.0, waiting) / every if every > 0 else 0.0,
            bytes_read=_difference(before.read, now.read),
            bytes_written=_difference(before.written, now.written),
        )

    def _look(self) -> _Look:
        times = psutil.cpu_times()
        read, written = self._bytes()
        # guest time is in user time already
        every = sum(getattr(times, name) for name in times._fields if not name.startswith("guest"))
        machine = (every, times.idle, getattr(times, "iowait", 0.0))
        return _Look(time.monotonic(), time.process_time(), machine, read, written)

    def _bytes(self) -> tuple[int | None, int | None]:
        try:
            counters = self._process.io_counters()
        except (psutil.Error, AttributeError, OSError):  # not on every system, not in every container
            return None, None
        return counters.read_bytes, counters.write_bytes


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    cpu: float
    machine: tuple[float, float, float]
    read: int | None
    written: int | None


def _difference(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before
