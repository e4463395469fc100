"""Collecting deliveries ahead of the loading, several downloads at a time, and in the providers' order.

Files are examined and functions are called when their turn comes, in the caller's own thread: no two threads share the
state of a user's function.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic

from headrace.polling.config_file import Provider
from headrace.polling.sources import Delivery, collect
from headrace.reading.fetch.http import Validators

__all__ = ["Collected", "collecting"]

AHEAD = 2  # downloads waiting on disk for each one in progress


class Collected:
    """A delivery or a failure; `seconds` is the time that it took, known after `result`."""

    def __init__(self, get: Callable[[], tuple[Delivery, float]]) -> None:
        self._get = get
        self.seconds = 0.0

    def result(self) -> Delivery:
        """The delivery; raises what `headrace.polling.sources.collect` raised."""
        delivery, self.seconds = self._get()
        return delivery


@contextmanager
def collecting(
    providers: Sequence[Provider], known: Mapping[str, Validators], folder: Path, downloads: int, stop: Event
) -> Iterator[Iterator[tuple[Provider, Collected]]]:
    """Yield each of `providers` with its delivery, in order; `known` are the validators of the last one, where they
    count. After leaving, no further delivery is begun.
    """
    pool = ThreadPoolExecutor(downloads, thread_name_prefix="headrace-download")

    def timed(provider: Provider) -> tuple[Delivery, float]:
        began = monotonic()
        return collect(provider, known.get(provider.name, Validators()), folder, stop), monotonic() - began

    def begin(provider: Provider) -> Collected:
        if provider.source.kind == "url":
            return Collected(pool.submit(timed, provider).result)
        return Collected(lambda: timed(provider))

    def each() -> Iterator[tuple[Provider, Collected]]:
        begun: deque[tuple[Provider, Collected]] = deque()
        for provider in providers:
            begun.append((provider, begin(provider)))
            if len(begun) > downloads * (AHEAD + 1):
                yield begun.popleft()
        yield from begun

    try:
        yield each()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
