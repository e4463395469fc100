"""Scratch folders go with their process: at its end, or, when it was killed, at the next run. Nothing else goes."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.program import scaled

from headrace.runtime.scratch import scratch_folder, sweep, sweep_abandoned

HOLD = """
with scratch_folder() as folder:
    (folder / "spooled").mkdir()
    (folder / "spooled" / "chunk").write_text("rows")
    (folder / "ids").write_text("ids")
    print(folder, flush=True)
    sys.stdin.readline()
"""
HOLD_AND_FORK = """
with scratch_folder() as folder:
    if os.fork() == 0:
        print(folder, os.getpid(), flush=True)  # by now it has let go of the folder
        time.sleep(60)
        os._exit(0)
    sys.stdin.readline()
"""
MAKE_MANY = """
for number in range(int(sys.argv[1])):
    with scratch_folder() as folder:
        (folder / "mine").write_text(str(number))
        sweep_abandoned()
        assert (folder / "mine").read_text() == str(number)
    assert not folder.exists()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temp directory of its own, here and in the processes that a test starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def start(code: str, *words: object) -> subprocess.Popen[str]:
    imports = "import os, sys, time\nfrom headrace.runtime.scratch import scratch_folder, sweep_abandoned\n"
    return subprocess.Popen(
        [sys.executable, "-c", imports + code, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def holder(code: str = HOLD) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that holds a scratch folder, and the words that it said."""
    with start(code) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()
        finally:
            process.kill()


def test_a_folder_is_private_and_goes_on_leaving() -> None:
    with scratch_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "below").mkdir()
        (folder / "below" / "file").touch()
        (folder / "dangling").symlink_to("nowhere")
    assert not folder.exists()


def test_a_failure_removes_it_too() -> None:
    with pytest.raises(KeyError), scratch_folder() as folder:
        raise KeyError
    assert not folder.exists()


def test_a_sweep_removes_what_this_process_holds() -> None:
    with scratch_folder() as one, scratch_folder() as other:
        sweep()
        assert not one.exists()
        assert not other.exists()


def test_the_next_run_removes_what_a_killed_process_left() -> None:
    with holder() as (process, (left, *_)):
        process.kill()
        process.wait()
        assert Path(left, "spooled", "chunk").exists()
        with scratch_folder() as folder:
            assert not Path(left).exists()
            assert folder.exists()


def test_live_processes_do_not_disturb_each_other(temporary: Path) -> None:
    with holder() as (one, (first, *_)), holder() as (_, (second, *_)), scratch_folder() as third:
        sweep_abandoned()
        assert {str(path) for path in temporary.iterdir()} == {first, second, str(third)}
        assert Path(first, "spooled", "chunk").read_text() == "rows"
        one.communicate("go\n")
        assert one.returncode == 0
        assert {str(path) for path in temporary.iterdir()} == {second, str(third)}


def test_folders_being_made_and_swept_at_once_are_never_taken_away(temporary: Path) -> None:
    processes = [start(MAKE_MANY, scaled(3000)) for _ in range(4)]
    errors = [process.communicate()[1] for process in processes]
    assert errors == [""] * 4
    assert list(temporary.iterdir()) == []


def test_a_process_forked_off_keeps_nothing_alive() -> None:
    with holder(HOLD_AND_FORK) as (process, (left, child)):
        process.kill()
        process.wait()
        try:
            sweep_abandoned()
            assert not Path(left).exists()
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_removal_cut_short_is_taken_up_again(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, scratch_folder() as folder:
        (folder / "below").mkdir()
        patched.setattr(shutil, "rmtree", lambda *words, **more: None)
        sweep()
    assert [path.name for path in folder.iterdir()] in ([".lock", "below"], ["below", ".lock"])
    sweep_abandoned()
    assert list(temporary.iterdir()) == []


def made(name: str, *names: str) -> Callable[[Path], None]:
    def make(temporary: Path) -> None:
        folder = temporary / name
        folder.mkdir()
        for one in names:
            (folder / one).touch()

    return make


def old(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def make_old(temporary: Path) -> None:
        make(temporary)
        for path in temporary.iterdir():
            os.utime(path, (time.time() - 4000,) * 2)

    return make_old


def linked(temporary: Path) -> None:
    made("elsewhere", ".lock", "data")(temporary)
    (temporary / "headrace-link").symlink_to(temporary / "elsewhere")


def not_to_be_opened(temporary: Path) -> None:
    made("headrace-a", "data")(temporary)
    (temporary / "headrace-a" / ".lock").symlink_to("data")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(made("headrace-a"), id="just made"),
        pytest.param(old(made("headrace-a", "data")), id="somebody else's, with no lock file"),
        pytest.param(made("other-a", ".lock"), id="another name"),
        pytest.param(lambda temporary: (temporary / "headrace-file").touch(), id="a file"),
        pytest.param(linked, id="a link"),
        pytest.param(not_to_be_opened, id="a lock file that cannot be opened"),
    ],
)
def test_all_else_is_left(temporary: Path, make: Callable[[Path], None]) -> None:
    make(temporary)
    before = sorted(temporary.rglob("*"))
    sweep_abandoned()
    assert sorted(temporary.rglob("*")) == before


def test_another_users_folder_is_left(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("headrace-a", ".lock")(temporary)
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: temporary.stat().st_uid + 1)
        sweep_abandoned()
    assert (temporary / "headrace-a" / ".lock").exists()
    sweep_abandoned()
    assert not (temporary / "headrace-a").exists()


def test_an_old_empty_folder_goes(temporary: Path) -> None:
    old(made("headrace-a"))(temporary)
    sweep_abandoned()
    assert list(temporary.iterdir()) == []
