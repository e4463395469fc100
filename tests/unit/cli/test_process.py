"""A command's allocators give back what is freed, unless the environment says otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is set elsewhere")
with_jemalloc = pytest.mark.skipif(platform.machine() != "x86_64", reason="Arrow has no jemalloc here")

# resident MiB when 256 MiB in small blocks were freed a moment ago: Arrow's own setting keeps them for a second
FREED = """
import os, time
{call}
import pyarrow as pa
import numpy as np, pyarrow.compute as pc
zeros = pa.array(np.zeros(1 << 16))
held = [pc.add(zeros, 1.0) for _ in range(512)]
del held
time.sleep(0.3)
small = [pa.array([number]) for number in range(10_000)]
resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
print(pa.default_memory_pool().backend_name, resident >> 20)
"""
# how many arenas glibc has for threads: each is reserved up to a multiple of 64 MiB
ARENAS = """
import threading
{call}
together = threading.Barrier(4)
def allocate():
    held = [bytes(1_000) for _ in range(1_000)]
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
lines = [line.split() for line in open("/proc/self/maps")]
reserved = [line[0].split("-") for line in lines if line[1] == "---p" and len(line) == 5]
print(sum(int(end, 16) % (64 << 20) == 0 for start, end in reserved))
"""
CALL = "from headrace.cli.process import keep_little; keep_little()"


def said(program: str, call: str, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not {"MALLOC", "ARROW", "GLIBC"} & {*name.split("_")}}
    command = [sys.executable, "-c", program.format(call=call)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept | environment, timeout=60)
    return done.stdout.split()


@with_jemalloc
def test_what_is_freed_is_given_back() -> None:
    for _ in range(5):  # on a busy machine the moment may become a second
        name, resident = said(FREED, CALL)
        usual, kept = said(FREED, "", ARROW_DEFAULT_MEMORY_POOL="jemalloc")
        if int(resident) < int(kept) - 40:
            break
    assert (name, usual) == ("jemalloc", "jemalloc")
    assert int(resident) < int(kept) - 40


def test_threads_share_an_arena() -> None:
    assert said(ARENAS, CALL) == ["0"]
    assert int(said(ARENAS, "")[0]) > 0


@with_jemalloc
def test_what_the_environment_says_of_arrow_holds() -> None:
    assert said(FREED, CALL, ARROW_DEFAULT_MEMORY_POOL="system")[0] == "system"


def test_what_the_environment_says_of_arenas_holds() -> None:
    assert int(said(ARENAS, CALL, MALLOC_ARENA_MAX="3")[0]) > 0
    assert int(said(ARENAS, CALL, GLIBC_TUNABLES="glibc.malloc.arena_max=3")[0]) > 0
