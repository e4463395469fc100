"""The command line as a process of its own that need not import anything: forked by a process that has imported it all.

    test ──folder, words, environment; its three streams──► server ──fork──► handler ──fork──► ``headrace WORDS``
         ◄──exit code──────────────────────────────────────────────────────────┘

A start of Python that imports DuckDB, Arrow, pandas and SQLAlchemy is most of what a small load costs. Forking is safe
here since the server has used nothing yet, only imported: it has no thread, no pool and no socket but its own.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn
from uuid import uuid4

__all__ = ["QuickStart"]

MODULE = "headrace"
_LONGEST = 1 << 20  # bytes of an order
# Whoever changes one of these wants another interpreter, or other libraries, than the server has.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "OPENBLAS", "OMP_", "ARROW_", "OTEL_", "COVERAGE")


class QuickStart:
    """A server, as the tests of one process see it."""

    def __init__(self) -> None:
        self._name = f"headrace-quick-start-{uuid4()}"
        self._environment = dict(os.environ)
        started, telling = os.pipe()
        self._server = subprocess.Popen(
            [sys.executable, __file__, self._name, str(telling)],
            stdin=subprocess.PIPE,  # which is closed when this process ends, however it does
            pass_fds=[telling],
            # numpy's linear algebra would start a thread for each core
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        os.close(telling)
        assert os.read(started, 1), "the server of quick starts did not come up"
        os.close(started)

    @classmethod
    @cache
    def of_this_process(cls) -> QuickStart:
        """Started when it is first asked for."""
        return cls()

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Whether a process with this environment would be like one that is forked."""
        names = {*environment, *self._environment}
        return not any(
            name.startswith(_READ_AT_START) and environment.get(name) != self._environment.get(name) for name in names
        )

    def run(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        streams: Sequence[IO[Any]],
        timeout: float,
    ) -> int:
        """``headrace WORDS`` in `folder` with `streams` for standard input, output and error; its exit code."""
        order = json.dumps({"words": list(words), "environment": dict(environment), "folder": str(folder)}).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.settimeout(timeout)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
            server.connect(f"\0{self._name}")
            socket.send_fds(server, [order], [stream.fileno() for stream in streams])
            return int(server.recv(100))


# In the server --------------------------------------------------------------------------------------------------


def _serve(name: str, telling: int) -> None:
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # handlers are not waited for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")
        listener.listen(100)
        os.write(telling, b"!")
        os.close(telling)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _handle(connection)
            connection.close()


def _import_all() -> None:
    """All that a command may import, the command line itself apart, and pandas, which Arrow imports where it can."""
    for name in (
        *("headrace.cli.load", "headrace.cli.run", "headrace.cli.profile", "headrace.cli.runs"),
        *("headrace.cli.verify", "headrace.cli.explain", "headrace.cli.doctor", "headrace.cli.demo", "duckdb"),
        *("headrace.cli.rejects", "headrace.cli.alerts", "headrace.loading.run", "headrace.storage"),
        *("pandas", "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.pysqlite"),
    ):
        importlib.import_module(name)
    # and so do the workers of a command, once for all of them
    importlib.import_module("headrace.execution.fork_server")._PRELOADED.append("pandas")


def _handle(connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sent, streams, _, _ = socket.recv_fds(connection, _LONGEST, 3)
    child = os.fork()
    if child == 0:
        connection.close()
        _be_headrace(json.loads(sent), streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:  # the test has given up, or is gone
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if ended in ready:
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _be_headrace(order: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        tempfile.tempdir = None
        sys.path[0] = order["folder"]
        sys.argv = ["-m", *order["words"]]
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
