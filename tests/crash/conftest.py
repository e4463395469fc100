"""Fixtures of the tests about failing workers: a folder and names of their own, and less patience."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import name_semaphores

from headrace.execution import crew


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own for temporary files."""
    multiprocessing.util.get_temp_dir()  # the fork server outlives the test, and so must its socket
    with tempfile.TemporaryDirectory(prefix="hr") as folder:  # short: it holds sockets
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        monkeypatch.undo()


@pytest.fixture
def prefix() -> Iterator[str]:
    """What the names of this test's semaphores begin with."""
    before = multiprocessing.current_process()._config["semprefix"]  # type: ignore[attr-defined]
    name = f"hr{os.getpid()}x{random.randrange(10**6)}"
    name_semaphores(name)
    yield name
    name_semaphores(before.lstrip("/"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are stopped are noticed sooner than is right for a busy machine."""
    monkeypatch.setattr(crew, "STALLED_AFTER", 2.5)
    monkeypatch.setattr(crew, "STARTS_WITHIN", 6.0)
    monkeypatch.setattr(crew, "PULSE", 0.25)
    monkeypatch.setattr(crew, "PATIENCE", 2.0)
    monkeypatch.setattr("headrace.execution.pool.LOOK_EVERY", 0.25)
