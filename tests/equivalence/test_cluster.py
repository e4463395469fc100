"""A Dask cluster does the work: the table is the sequential one, also where a worker is killed in a transaction.

A cluster here is a scheduler and two workers, each a process of its own, on the loopback interface.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import psycopg
import pytest
import sqlalchemy as sa
from support.executors import (
    HASH_KEY,
    SECRET,
    STRATEGIES,
    UNSEEN,
    check_same,
    contents,
    load,
    rejects,
    wait_until,
    with_password,
    write_events,
)
from support.needs import missing
from support.program import Headrace, scaled

import headrace as package
from headrace.execution import cluster as cluster_module

# the command line, which gives up sooner on a scheduler that does not answer
IMPATIENT_CLI = "import headrace.execution.cluster as it, headrace.cli.main as cli; it.CONNECT_SECONDS = 1; cli.main()"

# distributed's own: its event loop's sockets are closed when it is collected, which may be in any later test
pytestmark = pytest.mark.filterwarnings("ignore:unclosed .*:ResourceWarning")


@pytest.fixture
def events(tmp_path: Path) -> list[Path]:
    return write_events(tmp_path)


class Cluster:
    """A scheduler and workers, as on several machines. They log all that they can into `folder`."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self._folder = folder
        self._opened = opened
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", ["dask_scheduler", "--port", "0"])
        self._at = self._wait_for("scheduler", r"Scheduler at: +tcp://(\S+)")
        self.address = f"dask://{self._at}"

    def add_workers(self, *numbers: int, within: Sequence[str] = ()) -> None:
        """`within` is the command that starts each."""
        for number in numbers:
            words = ["dask_worker", f"tcp://{self._at}", "--nthreads", "1", "--no-nanny", "--local-directory"]
            self.workers.append(
                self._start(f"worker{number}", [*words, str(self._folder / f"scratch{number}")], within)
            )
        for number in numbers:
            self._wait_for(f"worker{number}", "Registered to")

    def said(self, who: str = "*") -> str:
        """What they have logged."""
        return "".join(path.read_text() for path in self._folder.glob(f"{who}.log"))

    def _start(self, name: str, words: Sequence[str], within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        command = [*within, sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]]
        with (self._folder / f"{name}.log").open("wb") as log:
            quiet = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--host", "127.0.0.1"]
            process = subprocess.Popen([*command, *quiet], env=seeing_tests(), stdout=log, stderr=log)
        self._opened.callback(process.wait)
        self._opened.callback(process.kill)
        return process

    def _wait_for(self, name: str, pattern: str) -> str:
        wait_until(lambda: re.search(pattern, self.said(name)), lambda: self.said(name))
        found = re.search(pattern, self.said(name))
        assert found is not None
        return found[found.re.groups]


def seeing_tests() -> dict[str, str]:
    """The environment of a process that can import what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "DASK_LOGGING__DISTRIBUTED": "debug"}


@contextmanager
def started(folder: Path, within: Sequence[str] = ()) -> Iterator[Cluster]:
    with ExitStack() as opened:
        found = Cluster(folder, opened)
        found.add_workers(0, 1, within=within)
        yield found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def far_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Its workers have a folder of their own where the coordinator's scratch folder is, as on another machine."""
    scratch, folder = tmp_path / "scratch", tmp_path / "cluster"
    scratch.mkdir()
    folder.mkdir()
    mounted = ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(scratch)]
    within = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), *mounted]
    try:
        subprocess.run([*within, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        missing("mounts", "no private mounts here")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with started(folder, within) as found:
        yield found


@pytest.fixture
def postgres(postgres_url: str, tmp_path: Path) -> Headrace:
    """The command line against a database whose URL has a password."""
    return Headrace(with_password(postgres_url), tmp_path)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_dask_cluster_gives_the_same_table(
    headrace: Headrace, events: list[Path], cluster: Cluster, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load(headrace.url, "s", events, mode="sequential")
    named: Any = {"strategy": strategy, "executor": cluster.address, "enrich": "support.enrichments:add_pid"}
    report = load(headrace.url, "p", events, mode="parallel", **named)
    check_same(headrace, report, expected)
    pids = {pid for (pid,) in headrace.query("SELECT DISTINCT pid FROM p")}
    assert pids
    assert pids <= {worker.pid for worker in cluster.workers}
    assert UNSEEN not in caplog.text


@pytest.mark.slow
def test_the_command_line_takes_a_cluster(postgres: Headrace, events: list[Path], cluster: Cluster) -> None:
    expected = load(postgres.url, "s", events, mode="sequential")
    how = ["--mode", "parallel", "--executor", cluster.address, "--workers", 2, "--output", "json"]
    what = ["--table", "p", "--id", "key", "--type", "key=integer", "--chunk-rows", 30]
    done = postgres.run("load", *events, *what, *how, expect=3)
    assert f'"inserted": {expected.inserted}' in done.stdout
    assert done.stderr == ""
    assert contents(postgres, "p") == contents(postgres, "s")
    assert rejects(postgres, "p") == rejects(postgres, "s")


def test_a_cluster_can_be_used_where_an_event_loop_runs(
    postgres: Headrace, events: list[Path], cluster: Cluster
) -> None:
    async def as_in_a_notebook() -> package.Report:
        return load(postgres.url, "p", events, mode="parallel", executor=cluster.address)

    check_same(postgres, asyncio.run(as_in_a_notebook()), load(postgres.url, "s", events, mode="sequential"))


def test_no_secret_shows_on_the_cluster(
    postgres: Headrace, events: list[Path], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HASH_KEY", HASH_KEY)
    named: Any = {"hash": "blake2b", "mode": "parallel", "executor": cluster.address}
    load(postgres.url, "p", events, **named)
    with pytest.raises(package.WorkerError) as caught:
        load(postgres.url, "q", events, enrich="support.enrichments:refuse_sevens", **named)
    told = "\n".join([str(caught.value), *caught.value.__notes__, cluster.said()])
    assert SECRET not in told
    assert HASH_KEY not in told
    assert re.search(r"\brun-[0-9a-f-]{36}\b", told)  # the cluster does log each task, by a name that says nothing


@pytest.mark.slow
def test_workers_on_another_machine_get_rows_as_bytes(
    postgres: Headrace, events: list[Path], far_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load(
        postgres.url, "s", events, mode="sequential", enrich="support.enrichments:refuse_sevens", on_error="reject"
    )
    report = load(
        postgres.url,
        "p",
        events,
        mode="parallel",
        executor=far_cluster.address,
        enrich="support.enrichments:refuse_sevens",
        on_error="reject",
    )
    check_same(postgres, report, expected)
    assert caplog.text.count(UNSEEN) == 1
    # more than Dask sends without a warning, which would be an error here
    large = events[0].with_name("large.csv")
    large.write_text("key,value\n" + "".join(f"{key},{'x' * 100_000}\n" for key in range(150)))
    report = load(postgres.url, "large", [large], mode="parallel", executor=far_cluster.address, chunk_rows=1000)
    assert (report.inserted, report.fell_back) == (150, None)


@contextmanager
def loading_while_blocked(
    headrace: Headrace, cluster: Cluster, events: list[Path], **named: Any
) -> Iterator[tuple[package.Report, Future[package.Report]]]:
    """The sequential report, and a load whose workers wait in the middle of their transactions until this is left."""
    for table in ("s", "p"):
        load(headrace.url, table, events[:1], mode="sequential")
    expected = load(headrace.url, "s", events, mode="sequential")
    with ThreadPoolExecutor(1) as aside, psycopg.connect(headrace.url) as blocker:
        blocker.execute("LOCK TABLE p IN SHARE MODE")  # may be read, not written
        named = {"mode": "parallel", "executor": cluster.address, **named}
        loading = aside.submit(load, headrace.url, "p", events, **named)
        wait_until(lambda: loading.done() or waiting_for(blocker) == len(cluster.workers))
        yield expected, loading


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["partitioned", "upsert"][: scaled(2, default=1)])
def test_a_dask_worker_killed_in_a_transaction_changes_nothing(
    postgres: Headrace, events: list[Path], tmp_path_factory: pytest.TempPathFactory, strategy: str
) -> None:
    with started(tmp_path_factory.mktemp("cluster")) as cluster:
        with loading_while_blocked(postgres, cluster, events, strategy=strategy) as (expected, loading):
            cluster.workers[0].send_signal(signal.SIGKILL)
            cluster.workers[0].wait()
            wait_until(lambda: "Remove worker" in cluster.said("scheduler"))
        check_same(postgres, loading.result(), expected)


@pytest.mark.slow
def test_a_scheduler_killed_on_the_way_is_done_without(
    postgres: Headrace, events: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with started(tmp_path_factory.mktemp("cluster")) as cluster:
        with loading_while_blocked(postgres, cluster, events) as (expected, loading):
            cluster.scheduler.send_signal(signal.SIGKILL)
            cluster.scheduler.wait()
            wait_until(lambda: "scheduler-connection-broken" in cluster.said("worker0"))
        report = loading.result()
    assert report.fell_back is not None
    check_same(postgres, replace(report, fell_back=None), expected)


def waiting_for(blocker: psycopg.Connection[Any]) -> int:
    """How many wait for the table that `blocker` holds."""
    asked = "SELECT count(*) FROM pg_locks WHERE relation = 'p'::regclass AND NOT granted"
    ((found,),) = blocker.execute(asked).fetchall()
    return int(found)


@pytest.mark.slow
def test_an_executor_of_the_users_own_cluster_is_left_open(postgres: Headrace, events: list[Path]) -> None:
    expected = load(postgres.url, "s", events, mode="sequential")
    with (
        distributed.LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as local,
        distributed.Client(local, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        executor = client.get_executor()
        for table in ("p", "q"):
            check_same(postgres, load(postgres.url, table, events, mode="parallel", executor=executor), expected)
        assert client.submit(sum, [1, 2]).result() == 3


# What cannot be had ----------------------------------------------------------------------------------------------


def everything(headrace: Headrace) -> dict[str, list[tuple[Any, ...]]]:
    """All that the database holds."""
    engine = sa.create_engine(headrace.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
    return {name: sorted(headrace.query(f'SELECT * FROM "{name}"'), key=repr) for name in names}  # noqa: S608


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_an_error_and_nothing_is_changed(
    postgres: Headrace, events: list[Path]
) -> None:
    load(postgres.url, "early", events[:1], mode="sequential")
    before = everything(postgres)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    how = ["--mode", "parallel", "--executor", f"dask://{nobody}"]
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT_CLI, "load", str(events[1]), "--table", "early", *how],
        env=postgres.environment(), cwd=postgres.folder, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"no Dask scheduler answers at tcp://{nobody}" in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(postgres) == before


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_service_that_is_no_scheduler_is_an_error(
    sqlite_url: str, events: list[Path], greeting: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as aside:
        accepted = aside.submit(greet, listener, greeting)
        with pytest.raises(package.ConfigurationError, match="no Dask scheduler answers") as caught:
            load(sqlite_url, "t", events, mode="parallel", executor=f"dask://127.0.0.1:{listener.getsockname()[1]}")
        accepted.result().close()
    assert caught.value.exit_code == 2


def greet(listener: socket.socket, greeting: bytes) -> socket.socket:
    connection, _ = listener.accept()
    connection.sendall(greeting)
    return connection


@pytest.mark.parametrize(
    "address",
    ["nonsense", "ray://somewhere", "dask://", "dask:host", "dask://host:port", "dask://host/path", "dask://[::1:8786"],
)
def test_an_executor_that_does_not_exist_is_an_error(sqlite_url: str, events: list[Path], address: str) -> None:
    with pytest.raises(package.ConfigurationError, match="does not name an executor") as caught:
        load(sqlite_url, "t", events, mode="parallel", executor=address)
    assert caught.value.exit_code == 2


def test_the_command_line_says_what_an_executor_is_called(sqlite_url: str, events: list[Path]) -> None:
    headrace = Headrace(sqlite_url, events[0].parent)
    done = headrace.run("load", events[0], "--mode", "parallel", "--executor", "nonsense", expect=2)
    assert "'nonsense' does not name an executor" in done.stderr
    assert "dask://scheduler:8786" in done.stderr


def test_an_address_with_a_password_is_refused_without_showing_it(sqlite_url: str, events: list[Path]) -> None:
    with pytest.raises(package.ConfigurationError, match="'dask://host:8786' does not name an executor") as caught:
        load(sqlite_url, "t", events, mode="parallel", executor=f"dask://me:{SECRET}@host:8786")
    assert SECRET not in str(caught.value)


def test_the_extra_is_named_where_it_is_missing(
    sqlite_url: str, events: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(package.ConfigurationError, match=r"pip install 'headrace\[dask\]'") as caught:
        load(sqlite_url, "t", events, mode="parallel", executor="dask://127.0.0.1:8786")
    assert caught.value.exit_code == 2
