"""Workers on other machines: Dask's own executor, behind the same `concurrent.futures.Executor` as everything else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from headrace.errors import ConfigurationError

__all__ = ["connected"]

CONNECT_SECONDS = 10


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """The executor of the cluster at ``dask://host:port``. Raises `ConfigurationError` if there is none.

    Headrace must be installed on the workers, and the database's URL must mean the same database there. They need not
    share a folder with this machine.
    """
    parts = urlsplit(address)
    if parts.scheme != "dask" or not parts.netloc:
        raise ConfigurationError(f"{address!r} names no executor", hint="for example --executor dask://scheduler:8786")
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise ConfigurationError("dask:// needs an extra", hint="pip install 'headrace[dask]'") from None
    try:
        client = distributed.Client(f"tcp://{parts.netloc}", timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no Dask scheduler answers ({error})", where=address, hint="is it running, and are host and port right?"
        ) from error
    with client:
        # a task may be run again by us, over a fresh choice of workers; a pure one must not be answered from a cache
        executor: Executor = client.get_executor(pure=False)
        yield executor
