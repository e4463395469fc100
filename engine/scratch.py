"""Private scratch folders (mode 0700) for spooled inputs and ID files, gone when the run ends, however it ends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

__all__ = ["scratch_folder", "sweep"]

_live: set[Path] = set()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new private folder, removed with all it holds on leaving."""
    folder = Path(mkdtemp(prefix="headrace-"))
    _live.add(folder)
    try:
        yield folder
    finally:
        _remove(folder)


def sweep() -> None:
    """Remove every folder still there: for a process about to end without unwinding."""
    for folder in list(_live):
        _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _live.discard(folder)
