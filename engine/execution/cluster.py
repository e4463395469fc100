"""Workers on other machines: Dask's own executor, behind the same `concurrent.futures.Executor` as all workers.

Headrace first checks whether a scheduler answers, before a run changes anything. A task's name on the cluster is
``run-`` and a random number; the log of an order shows neither the database's URL nor the hash key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from headrace.errors import ConfigurationError

__all__ = ["connected"]

log = logging.getLogger("headrace.cluster")
CONNECT_SECONDS = 10
USUAL_PORT = 8786
# Dask warns of each task above 10 MB. Ours hold a chunk where workers do not see the spool, and --memory bounds them.
_QUIET = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """The executor of the cluster at ``dask://host:port``. Raises `ConfigurationError` if there is none.

    Headrace must be installed on the workers, and the database's URL must mean the same database there. They need not
    share a folder with this machine.
    """
    scheduler = _scheduler(address)
    try:
        dask: Any = import_module("dask")
        distributed: Any = import_module("distributed")
    except ImportError:
        raise ConfigurationError("dask:// needs an extra", hint="pip install 'headrace[dask]'") from None
    client = _client(distributed, scheduler)
    # a task may be given out again over a fresh choice of workers; a pure one could be answered from a cache
    executor: Executor = client.get_executor(pure=False)
    try:
        with dask.config.set(_QUIET):
            yield executor
    finally:
        _leave(client, executor)


def _scheduler(address: str) -> str:
    """The scheduler's address as Dask writes it."""
    try:
        parts = urlsplit(address)
        port = parts.port or USUAL_PORT
    except ValueError:  # a port that is no number, a bracket that does not close
        raise _names_none(address) from None
    host = parts.hostname
    if parts.scheme != "dask" or not host or "@" in parts.netloc or parts.path.strip("/") or parts.query:
        raise _names_none(address)
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _names_none(address: str) -> ConfigurationError:
    scheme, slashes, rest = address.rpartition("//")
    shown = f"{scheme}{slashes}{rest.rpartition('@')[2]}"  # without what may be a password
    return ConfigurationError(
        f"{shown!r} does not name an executor", hint="for example --executor dask://scheduler:8786"
    )


def _client(distributed: Any, scheduler: str) -> Any:
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="headrace-connect") as aside:  # this thread may have a loop
            aside.submit(asyncio.run, _shake_hands(distributed, scheduler)).result()
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        if not client.nthreads():
            log.warning("the cluster at %s has no workers yet", scheduler)
    except Exception as error:
        raise ConfigurationError(
            f"no Dask scheduler answers at {scheduler} ({_reason(error)})",
            hint="is it running, and are host and port right?",
        ) from error
    return client


async def _shake_hands(distributed: Any, scheduler: str) -> None:
    """Raises unless something that speaks Dask's protocol is there.

    A `Client` waits for ever for a missing handshake of another service or of a scheduler that hangs.
    """

    async def greet() -> None:
        comm = await distributed.comm.connect(scheduler, timeout=CONNECT_SECONDS)
        await comm.close()

    await asyncio.wait_for(greet(), CONNECT_SECONDS)


def _leave(client: Any, executor: Executor) -> None:
    """Drop the tasks that wait in the cluster, and go. What was done is done, whether the scheduler answers or not."""
    try:
        executor.shutdown(wait=False)
        client.close(timeout=CONNECT_SECONDS)
    except Exception as error:  # noqa: BLE001 - the run has its result, or its own failure, already
        log.warning("the Dask client could not be closed (%s)", _reason(error))


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError | ImportError):
        return f"another service answers there: {type(error).__name__}"
    return str(error) or f"no answer within {CONNECT_SECONDS} s"
