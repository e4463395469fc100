"""The lowest versions are told once, in ``pyproject.toml``, and each library has one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from support import floors

PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def test_every_library_that_users_install_has_a_floor() -> None:
    found = floors.floors()
    assert {"duckdb", "pyarrow", "psycopg", "redis"} <= set(found)
    assert "pytest" not in found
    assert len(found) >= len(tomllib.loads(PROJECT.read_text())["project"]["dependencies"])


@pytest.mark.parametrize(
    ("told", "said"), [('["duckdb"]', "'duckdb' has no floor"), ('["duckdb>=1", "duckdb>=2"]', "duckdb has two floors")]
)
def test_a_library_without_a_floor_or_with_two_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, said: str
) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(f"[project]\ndependencies = {told}\noptional-dependencies = {{}}\n")
    monkeypatch.setattr(floors, "PROJECT", path)
    with pytest.raises(ValueError, match=said):
        floors.floors()
