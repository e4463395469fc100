"""Which process works at a run: kept with the run, so that one that was killed is not taken for one that still works.

A process is known by its machine, its number and the time at which it began, since numbers are given again.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

__all__ = ["holder", "is_alive"]


def holder() -> str:
    """Name this process, as JSON text."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}, sort_keys=True)


def is_alive(text: str | None) -> bool | None:
    """Whether the process that `holder` named still lives; ``None`` where that cannot be told from here."""
    try:
        told = json.loads(text or "{}")
        host, pid, began = told["host"], int(told["pid"]), told["began"]
    except (ValueError, KeyError, TypeError):
        return None
    if host != socket.gethostname():
        return None
    if began is not None and Path("/proc/self/stat").exists():
        return bool(_began(pid) == began)
    return _has_process(pid)


def _has_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is another user's
    return True


def _began(pid: int) -> str | None:
    """When a process began, as its machine counts; ``None`` where there is no such process, or no way to tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{boot}:{fields[19]}" if fields[0] != "Z" else None
