"""Fixtures that several units' tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openfeature import api

from headrace.options import flag


@pytest.fixture
def no_flag(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the environment nor a flag service says anything, and no complaint was made yet."""
    monkeypatch.delenv(flag.FLAG, raising=False)
    monkeypatch.setattr(flag, "_reported", set())
    yield
    api.clear_providers()
