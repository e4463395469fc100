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

import pytest
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


def test_no_module_is_longer_than_400_lines() -> None:
    long = {path: len(path.read_text().splitlines()) for path in sources()}
    assert {str(path.relative_to(ROOT)): lines for path, lines in long.items() if lines > 400} == {}


def ours(text: str) -> set[str]:
    """Our modules that a module of this text imports, at its top or inside a function."""
    every, found = set(modules()), set[str]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (named & every) | ({node.module} if named - every else set())
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("headrace.")}


def test_no_module_imports_more_than_15_modules_of_ours() -> None:
    counts = {str(path.relative_to(ROOT)): len(ours(path.read_text())) for path in sources()}
    assert {path: count for path, count in counts.items() if count > 15} == {}


def test_control_an_import_is_counted_wherever_it_stands() -> None:
    names = [name for name in modules() if name.count(".") > 1][:16]
    planted = [f"from {parent} import {last}" for parent, _, last in (name.rpartition(".") for name in names[:14])]
    planted += ["import pyarrow", "from typing import TYPE_CHECKING", "if TYPE_CHECKING:", f"    import {names[14]}"]
    planted += [f"def late():\n    from {names[15]} import __all__"]
    assert ours("\n".join(planted)) == set(names)


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_no_object_closes_anything_when_it_is_collected() -> None:
    """When that happens, and in which thread, nobody says."""
    found = [
        f"{path.relative_to(ROOT)}, line {node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "__del__"
    ]
    assert found == []


def decided_by_text(tree: ast.AST) -> Iterator[int]:
    """The lines where the text of an error is compared or searched: its words are for people, and change."""
    caught = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name} | {"error"}

    def is_text(node: ast.AST) -> bool:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("str", "repr"):
            return any(isinstance(one, ast.Name) and one.id in caught for one in node.args)
        return isinstance(node, ast.Attribute) and node.attr in ("args", "what", "hint", "message_primary")

    for node in ast.walk(tree):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("startswith", "endswith", "count", "find", "index"):
                asked = [node.func.value]
            elif node.func.attr in ("search", "match", "fullmatch"):
                asked = list(node.args)
        asked = [one for one in asked if any(map(is_text, ast.walk(one)))]
        # whether there is a hint at all is no matter of its words
        if asked and not (isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot)):
            yield node.lineno


def test_no_decision_reads_the_text_of_an_error() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sources()
        if (lines := list(decided_by_text(ast.parse(path.read_text()))))
    }
    assert found == {}


@pytest.mark.parametrize("line", ['if "straddl" in str(error): ...', "if str(error).startswith('x'): ..."])
def test_control_a_decision_by_text_is_found(line: str) -> None:
    assert list(decided_by_text(ast.parse(line))) == [1]


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


def test_a_load_of_files_imports_no_http_client() -> None:
    code = "import sys, headrace.cli.load; print(sorted({'urllib3', 'urllib.request', 'requests'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_headrace_loads_no_heavy_library() -> None:
    heavy = "{'duckdb', 'pyarrow', 'numpy', 'sqlalchemy', 'psycopg', 'typer', 'rich'}"
    code = f"import sys, headrace; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["headrace", "headrace.cli.main", "headrace.reading.inputs"])
def test_a_system_that_is_not_posix_is_refused_in_words(module: str) -> None:
    code = f"import os, sys; sys.modules['fcntl'] = None; os.name = 'nt'; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: Headrace runs on Linux and macOS")
