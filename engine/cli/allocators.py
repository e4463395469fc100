"""Allocators told to give back what is freed: by default they keep a third of a load's peak for later.

A command's process is its own and may set them; a library would be setting its user's. The figures are in decision 29.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress

__all__ = ["keep_little"]

_ARENAS = -8  # M_ARENA_MAX of <malloc.h>


def keep_little() -> None:
    """On Linux; what the environment says already holds. Workers are processes of their own: the second is not theirs.

    Before Arrow is imported: it chooses then, and has jemalloc on x86-64.
    """
    if sys.platform != "linux":
        return
    if platform.machine() == "x86_64":
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
        os.environ.setdefault("JE_ARROW_MALLOC_CONF", "dirty_decay_ms:200,muzzy_decay_ms:0")
    if "MALLOC_ARENA_MAX" not in os.environ and "arena_max" not in os.environ.get("GLIBC_TUNABLES", ""):
        # the environment is read when a process starts: this is for our own, which has one thread so far
        with suppress(AttributeError, OSError):  # musl has no such call
            ctypes.CDLL(None).mallopt(_ARENAS, 1)
