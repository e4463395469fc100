"""Folders in the temporary folder, which other programs clean up."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from headrace.errors import HeadraceError

__all__ = ["private_folder"]


def private_folder(path: Path) -> Path:
    """`path`, created again (mode 0700, its parents too) if it was removed: cleaners remove files that are some days
    old.

    Raises `HeadraceError` if somebody else has made a folder of that name meanwhile; `OSError`.
    """
    try:
        facts = path.lstat()
    except FileNotFoundError:
        if not path.parent.exists():
            private_folder(path.parent)
        with suppress(FileExistsError):  # another thread's, or a stranger's
            path.mkdir(mode=0o700)
        facts = path.lstat()
    if facts.st_uid != os.geteuid() or not stat.S_ISDIR(facts.st_mode):
        raise HeadraceError(
            "the temporary folder was removed, and now belongs to another user",
            where=str(path),
            hint="set TMPDIR to a folder that is yours alone, and run again to resume",
        )
    return path
