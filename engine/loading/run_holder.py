"""The process that works at a run, recorded with the run, so that a killed run is distinguished from a running one.

A process is identified by its machine, its number and its start time, because numbers are reused.
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
    """Whether the process named by `holder` still lives; ``None`` if this machine cannot tell."""
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
