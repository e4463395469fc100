"""What is an extra may be missing: loads run without it, and the words say how to install it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WITHOUT = """
import logging, sys, types

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"openfeature", "opentelemetry"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
logging.basicConfig(format="%(name)s %(message)s")
import headrace
"""
LOAD = "print(headrace.load([{'a': 1}], to='sqlite:///x.db', table='t').mode)\n"
OTHERS = "for name in ('openfeature', 'opentelemetry'): sys.modules[name] = types.ModuleType(name)\n"


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ENABLE_PARALLEL_CHUNK_PROCESSING": "canary:100"}
    command = [sys.executable, "-c", WITHOUT + code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_without_flag_service_and_telemetry_the_environment_decides_and_nothing_is_said(tmp_path: Path) -> None:
    done = run(tmp_path, LOAD)
    assert (done.stdout, done.stderr) == ("parallel\n", "")


def test_packages_of_the_same_name_space_are_no_sdk(tmp_path: Path) -> None:
    done = run(tmp_path, OTHERS + LOAD + LOAD)
    assert done.stdout == "parallel\n" * 2, done.stderr
    assert done.stderr.count("headrace.flags") == done.stderr.count("pip install 'headrace[openfeature]'") == 1
    assert done.stderr.count("headrace.observe ") == done.stderr.count("pip install 'headrace[opentelemetry]'") == 1


def test_observers_for_a_missing_telemetry_say_how_to_install_it(tmp_path: Path) -> None:
    done = run(tmp_path, "import headrace.observability.opentelemetry\n")
    assert "ImportError: OpenTelemetry's API is not installed: pip install 'headrace[opentelemetry]'" in done.stderr
