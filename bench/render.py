"""Writes the tables and pictures of the results into the README: between markers, so that no figure is typed.

<!-- figures: loads -->
… replaced …
<!-- end -->
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pictures import pictures
from tables import TABLES, facts_line, overview

__all__ = ["filled", "read_all", "section", "write_up"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SMALL = "small"
WARNING = (
    "**A small run on a busy machine, to prove the harness. Do not quote these figures**; "
    "`make bench-all` takes them in full."
)
MARKED = re.compile(r"(<!-- figures: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_up(folder: Path) -> None:
    """Fill the README from `bench/results`, or, for results elsewhere, write ``figures.md`` beside them."""
    if RESULTS in (folder, *folder.parents):
        contents = read_all()
        readme = HERE / "README.md"
        readme.write_text(filled(readme.read_text(), {name: section(content) for name, content in contents.items()}))
        _draw(HERE / "pictures", contents)
        full = _read(RESULTS)
        if "loads" in full:
            front = HERE.parent / "README.md"
            front.write_text(filled(front.read_text(), {"overview": overview(full["loads"])}))
        return
    contents = _read(folder)
    sections = [f"## {name}\n\n{section(content)}" for name, content in contents.items()]
    (folder / "figures.md").write_text("\n\n".join(sections) + "\n")
    _draw(folder, contents)


def filled(text: str, sections: dict[str, str]) -> str:
    """`text` with each marked place filled; a place without results says so."""

    def place(found: re.Match[str]) -> str:
        return f"{found[1]}{sections.get(found['name'], 'Not measured yet.')}\n{found[3]}"

    return MARKED.sub(place, text)


def read_all() -> dict[str, dict[str, Any]]:
    """The results of each question: those taken in full, else those of a small run."""
    return _read(RESULTS / SMALL) | _read(RESULTS)


def section(content: dict[str, Any]) -> str:
    """What stands at a question's place: where and with what, and its table."""
    note = [WARNING] if content["small"] else []
    return "\n\n".join([*note, facts_line(content), TABLES[content["question"]](content)])


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for name in TABLES:
        path = folder / f"{name}.json"
        if path.exists() and (content := json.loads(path.read_text()))["runs"]:
            found[name] = content | {"question": name, "small": folder.name == SMALL}
    return found


def _draw(folder: Path, contents: dict[str, dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    for name, picture in pictures(contents).items():
        (folder / name).write_text(picture)
