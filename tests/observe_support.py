"""What the suites of observability share: loads to observe, and a scrape by Prometheus's own parser."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.request import urlopen

import pyarrow as pa
from prometheus_client.parser import text_string_to_metric_families

from headrace import AlertRule, Engine, Report

__all__ = ["MODES", "Scraped", "batches", "lines_of", "load_all", "scrape"]

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
