"""The example files of observability and deployment speak of what exists: metrics, labels, options, files."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.needs import missing, program
from typer.main import get_command

from headrace.cli.main import app
from headrace.observability.metrics import INSTRUMENTS, Instrument

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"
_METRIC = re.compile(r"\b(headrace_\w+?)(\{[^}]*\})?(?=[\[\s,)=<>]|$)")


def served(what: Instrument) -> list[str]:
    base = what.name.replace(".", "_") + ("_seconds" if what.unit else "")
    return {
        "counter": [f"{base}_total"],
        "gauge": [base],
        "histogram": [f"{base}_{part}" for part in ("sum", "count", "bucket")],
    }[what.kind]


LABELS = {name: set(what.labels) for what in INSTRUMENTS for name in served(what)}


def unknown(expression: str) -> list[str]:
    """What an expression asks for that no metric has."""
    wrong = []
    asked = expression.replace("label_values(", "")
    for name, selector in _METRIC.findall(asked):
        labels = set(re.findall(r"(\w+)\s*[=!]~?\"", selector))
        if name not in LABELS or not labels <= LABELS[name]:
            wrong.append(name + selector)
    return wrong


def expressions() -> list[str]:
    dashboard: dict[str, Any] = json.loads((EXAMPLES / "observability/dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = (EXAMPLES / "observability/alerts.yml").read_text()
    alerts = re.findall(r"expr: (?:>-\n)?(.*?)\n\s+(?:for|labels):", rules, re.DOTALL)
    assert len(alerts) == rules.count("- alert:")
    return [*found, *alerts]


def test_dashboard_and_alerts_ask_for_metrics_that_there_are() -> None:
    asked = expressions()
    assert [wrong for expression in asked for wrong in unknown(expression)] == []
    assert all("headrace_" in expression for expression in asked)


def test_a_metric_or_label_that_is_none_is_found() -> None:
    assert unknown("rate(headrace_rows[5m])") == ["headrace_rows"]
    assert unknown('headrace_rows_total{colour="red"} > 1') == ['headrace_rows_total{colour="red"}']
    assert unknown('rate(headrace_rows_total{outcome="rejected"}[5m])') == []


def test_the_documented_metrics_are_those_that_there_are() -> None:
    table = (ROOT / "docs/observability.md").read_text()
    documented = set(re.findall(r"`(headrace_\w+)`", table))
    names = {re.sub("_(sum|count|bucket)$", "", name) for name in LABELS}
    assert documented == names


UNITS = sorted(path.name for path in (EXAMPLES / "deploy").glob("*.service"))


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` name, and its own words."""
    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_gives_options_that_there_are(name: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # systemd's keys have capitals
    unit.read(EXAMPLES / "deploy" / name)
    for key in ("ExecStartPre", "ExecStart"):
        if line := unit["Service"].get(key):
            command, words = command_of(line.split()[1:])
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known
    # what is left is ExecStart's: each variable is one of its options'
    variables = {str(parameter.envvar) for parameter in command.params}
    assert set(re.findall(r"(HEADRACE_(?:LOG_\w+|METRICS))=", unit["Service"]["Environment"])) <= variables


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit(name: str) -> None:
    command = [program("systemd-analyze"), "verify", str(EXAMPLES / "deploy" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if name in line and "not executable" not in line] == []


def test_the_image_copies_what_there_is_and_what_the_wheel_needs() -> None:
    text = (EXAMPLES / "deploy/Dockerfile").read_text()
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
    copied = {Path(word) for line in copies for word in line.split()}
    assert all((ROOT / path).exists() for path in copied)
    assert {Path(name) for name in ("pyproject.toml", "engine", "partitioning", "storage")} <= copied


def image_builder() -> str | None:
    """The path of a Docker whose daemon answers."""
    docker = shutil.which("docker")
    if docker is None or os.environ.get("HEADRACE_TEST_SCALE") != "full":
        return None
    asked = subprocess.run([docker, "info"], capture_output=True, check=False, timeout=60)
    return docker if asked.returncode == 0 else None


@pytest.mark.slow
def test_the_image_builds_and_answers() -> None:
    docker = image_builder()
    if docker is None:
        missing("docker", "builds in make test-all, where a Docker answers")
    build = [docker, "build", "-q", "-f", str(EXAMPLES / "deploy/Dockerfile"), str(ROOT)]
    image = subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip()
    said = subprocess.run([docker, "run", "--rm", image, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("headrace ")
