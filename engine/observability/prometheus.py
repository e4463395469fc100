"""Metrics for Prometheus: kept by its own client library (extra ``headrace[metrics]``), served at ``/metrics``.

In a service of your own that has a registry already: ``observing(observer(registry))``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigurationError
from headrace.observability.metrics import INSTRUMENTS, Instrument, Metrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["address_of", "observer", "serving"]

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
MOST_PORT = 65_535
_EXAMPLE = "for example --metrics :9464, or 127.0.0.1:9464 for this machine alone"


def observer(registry: CollectorRegistry | None = None) -> Metrics:
    """An observer (`headrace.observability.observers.observing`) that keeps its metrics in `registry`, by default the
    client's own.

    Raises `ConfigurationError` without the client library, `ValueError` where the registry has Headrace's already.
    """
    client = _client()
    return Metrics(_Registered(client, client.REGISTRY if registry is None else registry))


@contextmanager
def serving(address: str) -> Iterator[Metrics]:
    """Serve the metrics at ``http://address/metrics`` while inside; gives the observer that keeps them.

    Raises `ConfigurationError` for an address that cannot be used.
    """
    client = _client()
    host, port = address_of(address)
    registry = client.CollectorRegistry()
    client.ProcessCollector(registry=registry)
    metrics = observer(registry)
    try:
        server, thread = client.start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(f"metrics cannot be served at {address} ({error})", hint=_EXAMPLE) from error
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def address_of(text: str) -> tuple[str, int]:
    """``:9464``, ``127.0.0.1:9464``, ``[::1]:9464`` as host (all interfaces where left out) and port.

    Raises `ConfigurationError`.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > MOST_PORT:
        raise ConfigurationError(f"{text!r} is not an address to serve metrics at", hint=_EXAMPLE)
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - what an empty host means


def _client() -> Any:
    try:
        import prometheus_client  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "metrics for Prometheus need its client library", hint="pip install 'headrace[metrics]'"
        ) from None
    return prometheus_client


class _Registered:
    """The instruments in a registry."""

    def __init__(self, client: Any, registry: CollectorRegistry) -> None:
        self._all = {what.name: _made(client, what, registry) for what in INSTRUMENTS}

    def add(self, what: Instrument, amount: float, labels: Mapping[str, str]) -> None:
        self._all[what.name].labels(**labels).inc(amount)

    def set(self, what: Instrument, value: float, labels: Mapping[str, str]) -> None:
        self._all[what.name].labels(**labels).set(value)

    def record(self, what: Instrument, value: float, labels: Mapping[str, str]) -> None:
        self._all[what.name].labels(**labels).observe(value)


def _made(client: Any, what: Instrument, registry: CollectorRegistry) -> Any:
    name = what.name.replace(".", "_")
    unit = {"s": "seconds", "": ""}[what.unit]
    if what.kind == "counter":
        return client.Counter(name, what.about, what.labels, unit=unit, registry=registry)
    if what.kind == "gauge":
        return client.Gauge(name, what.about, what.labels, unit=unit, registry=registry)
    return client.Histogram(name, what.about, what.labels, unit=unit, registry=registry, buckets=BUCKETS)
