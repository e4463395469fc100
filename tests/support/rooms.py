"""The map of the rooms, drawn from the import contract of ``pyproject.toml`` and from what each room says of itself.

``python tests/support/rooms.py`` writes it into the two places that show it.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["in_the_docs", "in_the_package", "shown_in"]

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- rooms: begin -->", "<!-- rooms: end -->"
HOMES = {"partitioning": "partitioning/", "storage": "storage/"}
WIDTH = 120


def shown_in() -> dict[Path, str]:
    """The files that show the map, and what each must be."""
    docs, package = ROOT / "docs" / "explanation.md", ROOT / "engine" / "__init__.py"
    return {docs: in_the_docs(docs.read_text()), package: in_the_package(package.read_text())}


def in_the_docs(page: str) -> str:
    """`page` with the map as a table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [f"| {' · '.join(f'`{name}`' for name in names)} | {' · '.join(map(_rule, names))} |" for names in _layers()]
    table = "\n".join(["| room | its rule |", "|---|---|", *rows])
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def in_the_package(source: str) -> str:
    """`source` with the map in its docstring, between two rules of dashes."""
    before, line, rest = source.partition("    -----\n")
    _, _, after = rest.partition(line)
    return before + line + "".join(_lines()) + line + after


def _lines() -> Iterator[str]:
    for names in _layers():
        for name in names:
            text = textwrap.wrap(_rule(name), WIDTH - 22)
            yield f"    {name:<16}  {text[0]}\n"
            yield from (f"    {'':<16}  {more}\n" for more in text[1:])


def _layers() -> Iterator[list[str]]:
    """The rooms, lowest first; those of one line do not build on each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for layer in reversed(contracts[0]["layers"]):
        yield [name.strip() for name in layer.replace(":", "|").split("|")]


def _rule(name: str) -> str:
    """The first sentence or two of a room's docstring: its first paragraph."""
    home = ROOT / HOMES.get(name, f"engine/{name}")
    path = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(said.split("\n\n")[0].split())


if __name__ == "__main__":
    for path, text in shown_in().items():
        path.write_text(text)
