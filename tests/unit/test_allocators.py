"""A command's allocators give back what is freed, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is set elsewhere")
# what is left of 256 MiB in small blocks half a second after they were freed; otherwise, what is left at once
FREED = """
import os, time
from headrace.allocators import keep_little
if {called}: keep_little()
import pyarrow as pa
import numpy as np, pyarrow.compute as pc
zeros = pa.array(np.zeros(1 << 16))
held = [pc.add(zeros, 1.0) for _ in range(512)]
del held
if {called}: time.sleep(0.5)
small = [pa.array([number]) for number in range(10_000)]
resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
print(pa.default_memory_pool().backend_name, resident >> 20)
"""


def after_freeing(*, called: bool, **environment: str) -> tuple[str, int]:
    """Arrow's allocator and the resident MiB."""
    kept = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "ARROW" not in name}
    program = [sys.executable, "-c", FREED.format(called=called)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=kept | environment, timeout=60)
    name, resident = done.stdout.split()
    return name, int(resident)


def test_what_is_freed_is_given_back() -> None:
    name, resident = after_freeing(called=True)
    usual, kept = after_freeing(called=False, ARROW_DEFAULT_MEMORY_POOL="jemalloc")
    assert (name, usual) == ("jemalloc", "jemalloc")
    assert resident < kept - 40, (resident, kept)


def test_what_the_environment_says_holds() -> None:
    assert after_freeing(called=True, ARROW_DEFAULT_MEMORY_POOL="system")[0] == "system"
