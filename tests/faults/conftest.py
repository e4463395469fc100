"""Fixtures of the fault tests: a seed that is printed, the nursery, a short folder for temporary files."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.nursery import Nursery


@pytest.fixture(autouse=True)
def seed() -> int:
    """What everything random in the test comes from; ``HEADRACE_SEED`` repeats an earlier one."""
    chosen = int(os.environ.get("HEADRACE_SEED") or random.randrange(10**6))
    print(f"HEADRACE_SEED={chosen}")
    return chosen


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as opened:
        yield opened


@pytest.fixture
def scratch() -> Iterator[Path]:
    with TemporaryDirectory(prefix="hr") as folder:  # short: it holds sockets
        yield Path(folder)
