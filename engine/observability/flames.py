"""``--flamegraph``: which functions a run spends its time in, by a sampler that is installed: py-spy or pyinstrument.

    py-spy        a process beside this one; samples all threads and the workers      ─► an SVG
    pyinstrument  inside this process; sees the coordinator's main thread alone       ─► an HTML page

Neither is needed for anything else, so neither is installed with Headrace. A sampler slows a run down a little: its
seconds are no measurement.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.observability.recorder_files import require_writable

__all__ = ["flamegraph", "require_sampler"]

RATE = 100  # samples a second
SECONDS_TO_ATTACH = 20.0
SECONDS_TO_WRITE = 120.0
_READY = b"Sampling process"


@contextmanager
def flamegraph(file: str | None) -> Iterator[None]:
    """Sample what runs inside, and write the picture to `file` at the end, also of a failure. ``None``: do nothing.

    Raises `ConfigurationError` before anything runs if no sampler is there, or the file cannot be written.
    """
    if file is None:
        yield
        return
    path = Path(file)
    require_sampler(path)
    program = _py_spy()
    sampler, why = (None, "py-spy is not installed") if program is None else _attached(program, path)
    if sampler is not None:
        try:
            yield
        finally:
            _written(sampler)
    elif _pyinstrument_is_there():
        with _by_pyinstrument(path):
            yield
    else:
        raise _no_flames(why)


def require_sampler(path: Path) -> None:
    """Raise `ConfigurationError` where no sampler is installed, or `path` cannot be written."""
    require_writable(path)
    if _py_spy() is None and not _pyinstrument_is_there():
        raise _no_flames("neither py-spy nor pyinstrument is installed")


def _no_flames(why: str) -> ConfigurationError:
    return ConfigurationError(f"no flame graph can be made: {why}", hint="pip install py-spy, or pyinstrument")


def _pyinstrument_is_there() -> bool:
    return importlib.util.find_spec("pyinstrument") is not None


def _py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _attached(program: str, path: Path) -> tuple[subprocess.Popen[bytes] | None, str]:
    """py-spy at work on this process, or why it is not: not every container lets one process look into another."""
    words = [program, "record", "--pid", str(os.getpid()), "--subprocesses", "--rate", str(RATE), "--output", str(path)]
    sampler = subprocess.Popen(  # noqa: S603 - a program of this environment, and no shell
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    said: list[bytes] = []
    ready = threading.Event()

    def listen() -> None:
        """Up to its end, so that it never waits for a reader."""
        if sampler.stdout is not None:
            for line in sampler.stdout:
                said.append(line)
                if _READY in line:
                    ready.set()
        ready.set()

    threading.Thread(target=listen, name="headrace-flames", daemon=True).start()
    ready.wait(SECONDS_TO_ATTACH)
    if any(_READY in line for line in said):
        return sampler, ""
    sampler.kill()
    sampler.wait()
    told = b" ".join(said).decode(errors="replace").strip().splitlines()
    return None, f"py-spy cannot look into this process: {told[0] if told else 'it does not say why'}"


def _written(sampler: subprocess.Popen[bytes]) -> None:
    sampler.send_signal(signal.SIGINT)  # it writes what it has
    try:
        sampler.wait(SECONDS_TO_WRITE)
    except subprocess.TimeoutExpired:
        sampler.kill()
        sampler.wait()


@contextmanager
def _by_pyinstrument(path: Path) -> Iterator[None]:
    import pyinstrument  # noqa: PLC0415 - not installed with Headrace

    profiler = pyinstrument.Profiler(interval=1 / RATE)
    profiler.start()
    try:
        yield
    finally:
        profiler.stop()
        path.write_text(profiler.output_html(), encoding="utf-8")
