"""A command's process: tuned for a load, since it is Headrace's own, and ended without taking everything apart.

A library must not do this: it would change its user's process.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from headrace.errors import HeadraceError

__all__ = ["keep_little", "run_in_own_process"]

_SWITCH_SECONDS = 0.0005
# Looking for garbage among what imports make takes 50 ms of every start; reference counts free nearly all there is.
_RARELY = (50_000, 20, 100)
_ARENAS = -8  # M_ARENA_MAX of <malloc.h>


def run_in_own_process(app: Callable[[], object]) -> NoReturn:
    """Run the command line `app`, turn errors into messages and exit codes, and end this process."""
    # A thread that waits for the interpreter while another hashes gets it after this long, by default 5 ms. A fresh
    # load of 1 M rows takes up to a tenth less; the process is ours, so we may set it.
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(*_RARELY)
    keep_little()
    _end(_run(app))


def _run(app: Callable[[], object]) -> int:
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of our output went away (`headrace runs list | head`): that is no failure of ours
        return 0
    return 0


def _end(code: int) -> NoReturn:
    """End without taking apart what was imported, which takes Python 0.2 s; all that was opened is closed by now."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)


def keep_little() -> None:
    """Tell the allocators of Linux to give back what is freed: by default they keep a third of a load's peak for later.
    The figures are in decision 29. What the environment says already holds. Workers are processes of their own: the
    second setting is not theirs.

    Call it before Arrow is imported, which chooses then, and has jemalloc on x86-64.
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
