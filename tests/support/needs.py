"""What some tests need of the machine. A test that misses it skips, and fails where HEADRACE_REQUIRED names it.

HEADRACE_REQUIRED=redis-server,pgbouncer pytest
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["PROGRAMS", "STATED_EXCEPTIONS", "missing", "program", "real_data"]

PROGRAMS = ("redis-server", "pgbouncer", "chromium", "postgresql")
"""By the names of their Debian packages. `.ci/run` requires them."""

STATED_EXCEPTIONS = ("docker", "mounts", "real data", "systemd-analyze")
"""What a machine may lack or forbid: a test that misses it skips in CI too."""

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"  # beside the checkout
_OTHER_NAMES = {"chromium": ("google-chrome", "chrome")}


def missing(what: str, why: str) -> NoReturn:
    """Skip this test, or fail it where `what` is required."""
    required = set(filter(None, os.environ.get("HEADRACE_REQUIRED", "").split(",")))
    if unknown := required - {*PROGRAMS, *STATED_EXCEPTIONS}:
        pytest.fail(f"HEADRACE_REQUIRED names what no test needs: {', '.join(sorted(unknown))}")
    if what in required:
        pytest.fail(f"HEADRACE_REQUIRED names {what}: {why}")
    pytest.skip(why)


def program(name: str) -> str:
    """The path of an installed program."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    found = (shutil.which(one, path=path) for one in (name, *_OTHER_NAMES.get(name, ())))
    return next(filter(None, found), None) or missing(
        name, f"{name} is not installed" + (f" (Debian: apt-get install {name})" if name in PROGRAMS else "")
    )


def real_data(*folders: str) -> Path:
    """The folder of the real data, or one within."""
    if not DATA.is_dir():
        missing("real data", f"the real data are not beside this checkout (looked for {DATA})")
    return DATA.joinpath(*folders)
