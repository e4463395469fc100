"""The layout's own promises: what the package exports, what the import rules cover."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from support import rooms

import headrace

ROOT = Path(__file__).resolve().parents[3]


def walked() -> Iterator[pkgutil.ModuleInfo]:
    return pkgutil.walk_packages(headrace.__path__, "headrace.")


def modules() -> list[str]:
    return sorted(found.name for found in walked() if not found.ispkg and found.name != "headrace.__main__")


def sources() -> list[Path]:
    return [path for home in ("engine", "partitioning", "storage") for path in sorted((ROOT / home).rglob("*.py"))]


def test_every_package_is_installed() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    homes = {"headrace": ROOT / "engine"}
    homes |= {f"headrace.{name}": ROOT / name for name in ("partitioning", "storage")}
    found = {
        ".".join([name, *init.parent.relative_to(home).parts])
        for name, home in homes.items()
        for init in home.rglob("__init__.py")
    }
    assert sorted(found) == told


def test_the_map_of_the_rooms_is_drawn_from_the_import_contract() -> None:
    for path, text in rooms.shown_in().items():
        assert path.read_text() == text, f"{path}: run `python tests/support/rooms.py`"


def test_control_a_room_that_is_missing_on_the_map_is_seen() -> None:
    page = rooms.in_the_docs((ROOT / "docs" / "explanation.md").read_text())
    assert rooms.in_the_docs(page.replace("| `loading` |", "| `hall` |")) == page


def test_unit_tests_lie_in_the_rooms_that_they_are_about() -> None:
    unit = ROOT / "tests" / "unit"
    folders = {str(path.parent.relative_to(unit)) for path in unit.rglob("test_*.py")}
    known = {"bench", "project"}  # the benchmark, and the checkout as a whole: neither is installed
    known |= {found.name.removeprefix("headrace.").replace(".", "/") for found in walked() if found.ispkg}
    assert folders - known == set()


def test_every_test_that_a_page_names_exists() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {path for page in pages for path in re.findall(r"`(tests/[\w./-]+)`", page.read_text())}
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_top_shows_rooms_and_at_most_eight_files() -> None:
    assert len([path for path in (ROOT / "engine").iterdir() if path.is_file()]) <= 8


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_every_module_says_what_it_exports() -> None:
    for name in modules():
        exported = importlib.import_module(name).__all__
        assert exported == [*dict.fromkeys(exported)], name
        assert all(hasattr(importlib.import_module(name), one) for one in exported), name


def test_the_public_names_are_all_there_and_no_others() -> None:
    assert {name: getattr(headrace, name) is not None for name in headrace.__all__} == dict.fromkeys(
        headrace.__all__, True
    )
    assert dir(headrace) == sorted(headrace.__all__)


def test_importing_headrace_loads_no_heavy_library() -> None:
    heavy = "{'duckdb', 'pyarrow', 'numpy', 'sqlalchemy', 'psycopg', 'typer', 'rich'}"
    code = f"import sys, headrace; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
