"""Fixtures that several units' tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openfeature import api

from headrace import flags


@pytest.fixture
def no_flag(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the environment nor a flag service says anything, and no complaint was made yet."""
    monkeypatch.delenv(flags.FLAG, raising=False)
    monkeypatch.setattr(flags, "_reported", set())
    yield
    api.clear_providers()
