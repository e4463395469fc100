"""Loads as child processes that cost a twentieth of a start: a process with everything imported, which forks.

    test ──JSON line──► nursery ──fork──► failpoints installed, then Headrace's command line
         ◄──JSON line──         ◄──exit or death, and what became of the children it had

As the subreaper of all that it starts, the nursery sees which processes outlive their coordinator, and for how long.
Forking is safe here since nothing was used yet, only imported: no thread, no pool, no socket.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Ended", "Nursery"]

_PR_SET_CHILD_SUBREAPER = 36
_BLOCKED = {signal.SIGINT, signal.SIGTERM}
WITHIN = 60.0  # seconds that orphans have to end; two are promised, and workers still loading libraries end after that


@dataclass(frozen=True)
class Ended:
    """How a load ended: `code` as `subprocess` gives it (negative for a signal), `orphans` who did not end in
    time, `lingered` seconds until the last of them was gone."""

    code: int
    stdout: str
    stderr: str
    orphans: list[str]
    lingered: float
    took: float


class Nursery:
    """The forking process, as the test sees it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # numpy's linear algebra would start a thread for each core
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def run(
        self,
        words: Sequence[str],
        environment: dict[str, str],
        folder: Path,
        signals: Sequence[tuple[float, int]] = (),
        within: float = WITHIN,
    ) -> Ended:
        """``headrace WORDS`` in `folder`, to its end and that of all its processes.

        It is sent `signals`, each after some seconds of waiting.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "words": list(words),
            "environment": environment,
            "folder": str(folder),
            "signals": signals,
            "within": within,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


# In the nursery -------------------------------------------------------------------------------------------------


def _serve() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        print(json.dumps(_raise(order)), flush=True)


def _raise(order: dict[str, Any]) -> dict[str, Any]:
    folder = Path(order["folder"])
    said = [folder / "stdout", folder / "stderr"]
    for path in said:
        path.write_text("")  # a child may be killed before it can
    # nor may a signal meet it on its way to Headrace: from outside, a process that starts is no fork of this one
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    child = os.fork()
    if child == 0:
        _be_headrace(order, said)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
    for pause, number in order["signals"]:
        time.sleep(pause)
        os.kill(child, number)  # a process that has ended is there until it is waited for
    sent = time.monotonic()
    _, status = os.waitpid(child, 0)
    took = time.monotonic() - sent
    orphans, lingered = _wait_for_orphans(order["within"])
    texts = [path.read_text() for path in said]
    code = os.waitstatus_to_exitcode(status)
    return asdict(Ended(code, texts[0], texts[1], orphans, lingered, took))


def _be_headrace(order: dict[str, Any], said: list[Path]) -> None:
    code = 70
    try:
        for number, path in enumerate(said, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(order["folder"])
        os.environ.update(order["environment"])
        from headrace.cli.main import main  # noqa: PLC0415 - likewise
        from support import failpoints  # noqa: PLC0415 - importing it installs what the environment says

        # what workers import as the main program
        sys.modules["__main__"].__spec__ = None
        sys.modules["__main__"].__file__ = failpoints.__file__
        sys.argv = ["headrace", *order["words"]]
        failpoints.become_coordinator()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        # Python ends itself by this signal then, once it has printed where it was
        code = 128 + signal.SIGINT
        traceback.print_exc()
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        sys.stdout.flush()
        sys.stderr.flush()
        import atexit  # noqa: PLC0415 - of use to the child only

        atexit._run_exitfuncs()
        os._exit(code)


def _wait_for_orphans(within: float) -> tuple[list[str], float]:
    """Who was left when time was up, and how many seconds it took until none was."""
    waited, last = 0.0, time.monotonic()
    while waited < within:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.01)
            now = time.monotonic()
            # a machine that stops all of us for a while says nothing about who outlives whom
            waited, last = waited + min(now - last, 1.0), now
            continue
        return [], waited
    left = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    described = [_described(Path("/proc", pid)) for pid in left]
    for pid in left:
        os.kill(int(pid), 9)
    return described, within


def _described(process: Path) -> str:
    """The state, what it waits for in the kernel, and the command line of a process."""
    words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    threads = len(list((process / "task").iterdir()))
    return f"{state} {(process / 'wchan').read_text()} {threads} threads: {words[:200]}"


if __name__ == "__main__":
    # everything that a load imports, and nothing used: the children share it
    import headrace.cli.load
    import headrace.execution.cluster
    import headrace.loading.run
    import headrace.storage

    assert headrace
    _serve()
