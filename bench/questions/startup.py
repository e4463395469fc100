"""How long does headrace take to start? `--help` and `import headrace`, beside a Python that does nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measure.harness import Bench, paired, run_process

__all__ = ["measure"]

ROUNDS = 15


def measure(bench: Bench) -> None:
    """Whole processes, in turn."""
    program = Path(sys.executable).with_name("headrace")
    start = [str(program)] if program.exists() else [sys.executable, "-m", "headrace"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import headrace": [sys.executable, "-c", "import headrace"],
        "import headrace; headrace.load": [sys.executable, "-c", "import headrace; headrace.load"],
        "headrace --version": [*start, "--version"],
        "headrace --help": [*start, "--help"],
        "headrace load --help": [*start, "load", "--help"],
    }
    results = bench.results("startup")

    def missing(name: str, number: int) -> bool:
        return not results.has(command=name, round=number)

    for number, name in paired(ROUNDS, commands, missing):
        outcome = run_process(commands[name], scratch=bench.scratch)
        if outcome.exit_code:
            sys.exit(f"{name} failed:\n{outcome.complaint}")
        results.add({"command": name, "round": number, **outcome.figures})
