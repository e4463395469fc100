"""Private scratch folders (mode 0700) for spooled inputs and ID files, removed when the run ends, however it ends.

    folder made ──► .lock made ──► .lock held, as long as the process lives ──► all but .lock removed ──► all removed

A process that was killed removes nothing, but no longer holds its lock: the next run takes that for the sign to remove
its folder (`sweep_abandoned`). Removal is done under the lock, and takes the lock file last: cut short, it is taken up
again. A cleaner of the temporary folder ignores locks: the folders that it removes are made again (`restore`). A folder
without a lock file belongs to somebody else, or is just being made, and is left alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from headrace.partitioning.folders import private_folder

__all__ = ["live_folders", "private_file", "remove_folders", "restore", "scratch_folder", "sweep", "sweep_abandoned"]

_PREFIX = "headrace-"
_LOCK = ".lock"
_JUST_MADE = 3600.0  # seconds

_live: dict[Path, int] = {}  # the descriptor that holds each folder's lock


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new private folder, removed with its content on leaving. Making it also removes the folders of killed
    processes.
    """
    sweep_abandoned()
    folder = _new_folder()
    try:
        yield folder
    finally:
        _drop(folder)


def restore(folder: Path) -> None:
    """Make a folder of this process again, with its lock, if a cleaner of the temporary folder has removed either."""
    held = _live.get(folder)
    if held is None or (_in_place(held) and folder.is_dir()):
        return
    private_folder(folder)
    with suppress(OSError):
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        _live[folder] = lock
        os.close(held)
        fcntl.flock(lock, fcntl.LOCK_EX)


def private_file(path: Path) -> Path:
    """Make `path`, a new empty file that this user alone can read, whatever the umask; returns it. Raises `OSError`."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    return path


def sweep() -> None:
    """Remove every remaining folder of this process: for a process that ends without unwinding."""
    for folder in list(_live):
        _drop(folder)


def live_folders() -> tuple[Path, ...]:
    """The folders of this process, which its workers remove if it dies."""
    return tuple(_live)


def remove_folders(folders: Iterable[Path]) -> None:
    """Remove folders of a dead process."""
    for folder in folders:
        _remove(folder)


def sweep_abandoned() -> None:
    """Remove the scratch folders of this user whose processes are dead."""
    for folder in Path(gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, or not to be opened: left
            _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    status = folder.lstat()
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        return
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - status.st_mtime > _JUST_MADE:
            folder.rmdir()  # its process was killed before it could lock it; fails when it holds anything
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
        if _in_place(lock):
            _remove(folder)
    finally:
        os.close(lock)


def _new_folder() -> Path:
    while True:
        folder = Path(mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):  # swept as a very old one: the machine slept, or its clock was set
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with suppress(OSError):  # a file system without locks: nobody can sweep it either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _in_place(lock):
                _live[folder] = lock
                return folder
            os.close(lock)  # another process saw the lock file before it was held, and swept the folder


def _in_place(lock: int) -> bool:
    return os.fstat(lock).st_nlink > 0


def _drop(folder: Path) -> None:
    if folder not in _live:  # swept already, or a forked process's parent's
        return
    _remove(folder)
    lock = _live.pop(folder, None)
    if lock is not None:
        os.close(lock)


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry.name != _LOCK:
                _remove_entry(entry)
        if all(entry.name == _LOCK for entry in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_entry(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.unlink()


def _forget() -> None:
    """In a forked process: the folders are its parent's, and must not outlive it for a copied descriptor's sake."""
    for lock in _live.values():
        os.close(lock)
    _live.clear()


os.register_at_fork(after_in_child=_forget)
