"""What the suites of observability share: loads to observe, and a scrape by Prometheus's own parser."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.request import urlopen

import pyarrow as pa
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from headrace import AlertRule, Engine, Report
from headrace.observability.opentelemetry import observers

__all__ = ["MODES", "Scraped", "Taken", "batches", "lines_of", "load_all", "scrape", "value"]

MODES: dict[str, dict[str, Any]] = {
    "sequential": {"mode": "sequential", "chunk_rows": 400},
    "parallel": {"mode": "parallel", "workers": 2, "partitions": 4, "chunk_rows": 400},
}

Scraped = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def batches() -> Iterator[pa.Table]:
    """New events, known ones, doubled ones, and two without a time, which are rejected."""
    for start in (0, 700):
        keys = [*range(start, start + 1000), start, start + 1]
        at = [None if key in {start + 5, start + 6} else key * 1_000_000 for key in keys]
        yield pa.table({"key": pa.array(keys, pa.int64()), "at": pa.array(at, pa.timestamp("us", "UTC"))})


def load_all(url: str, mode: str, **named: Any) -> list[Report]:
    third = AlertRule("third", where="key % 3 = 0")
    how = {"table": "t", "provider": "p", "id": ["key"], "time": "at", "window": "all", **MODES[mode]}
    how |= {"alerts": [third], **named}
    with Engine(to=url, **how) as engine:
        return [engine.ingest(batch) for batch in batches()]


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def value(samples: Scraped, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


class Taken:
    """OpenTelemetry's SDK with its in-memory exporters."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = tracers.get_tracer("the caller")
        self.observers = observers(tracers, MeterProvider([self.reader], shutdown_on_exit=False))

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def points(self) -> dict[tuple[str, frozenset[tuple[str, Any]]], Any]:
        data: Any = self.reader.get_metrics_data()
        return {
            (metric.name, frozenset(point.attributes.items())): point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }
