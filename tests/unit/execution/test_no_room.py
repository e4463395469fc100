"""A worker that has no memory left says so of itself, whatever asked for the memory; and of nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headrace.errors import no_room
from headrace.execution.tasks import attempt

# In a process of its own: the limit is for good. Each asks for more than is left, of the system and not of the heap.
STARVED = """
import resource, sys, threading
from pathlib import Path
import pyarrow as pa
from headrace.execution.tasks import attempt
from headrace.runtime.parcel import FileParcel

def mapped(order):
    return FileParcel(Path(sys.argv[2])).open()

def thread(order):
    threading.stack_size(1 << 29)
    threading.Thread(target=int).start()

def heap(order):
    return bytearray(1 << 30)

def buffer(order):
    return pa.allocate_buffer(1 << 30)

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
outcome = attempt(globals()[sys.argv[1]], None)
sys.exit(0 if outcome.passing is not None and outcome.error is None else f"{outcome}")
"""


@pytest.mark.parametrize("asks", ["mapped", "thread", "heap", "buffer"])
def test_a_starved_worker_says_so_of_itself(asks: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 4 << 30)  # sparse: takes no room on the disk
    ended = subprocess.run(
        [sys.executable, "-c", STARVED, asks, str(large)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "no such file"),
        RuntimeError("odd"),
        ValueError("no memory"),
        # what the words say is no reason: a user's own error may have them
        OSError("Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
)
def test_other_errors_are_the_orders(error: Exception) -> None:
    def fails(order: object) -> None:
        raise error

    outcome = attempt(fails, None)
    assert outcome.passing is None
    assert outcome.error is not None
    assert not no_room(error)


def test_a_thread_that_is_started_twice_is_a_defect_of_the_order() -> None:
    def starts_twice(order: object) -> None:
        thread = threading.Thread(target=int)
        thread.start()
        thread.start()

    outcome = attempt(starts_twice, None)
    assert outcome.passing is None
    assert outcome.error is not None
