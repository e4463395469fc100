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

from bench.measure.harness import TOP
from bench.write.load_tables import loads, overview
from bench.write.model_tables import model
from bench.write.pictures import pictures
from bench.write.profile_tables import PROFILE_TABLES
from bench.write.tables import TABLES, facts_line, parallel_overview
from bench.write.targets import targets

__all__ = ["filled", "pages", "read_all", "section", "write_up"]

BENCH = TOP / "bench"
RESULTS = BENCH / "results"
SMALL = "small"
WARNING = (
    "**A small run on a busy machine, to prove the harness. Do not quote these figures**; "
    "`make bench-all` takes them in full."
)
EVERY = {"loads": loads} | TABLES | PROFILE_TABLES | {"model": model}
MARKED = re.compile(r"(<!-- figures: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_up(folder: Path) -> None:
    """Fill the READMEs from `bench/results`, or, for results elsewhere, write ``figures.md`` beside them.

    The front page shows what was measured in full, never a small run.
    """
    if RESULTS in (folder, *folder.parents):
        _draw(BENCH / "pictures", read_all())
        for page, sections in pages().items():
            page.write_text(filled(page.read_text(), sections))
        return
    contents = _read(folder)
    _draw(folder, contents)
    sections = [f"## {name}\n\n{section(content, pictures_in='')}" for name, content in contents.items()]
    (folder / "figures.md").write_text("\n\n".join(sections) + "\n")


def pages() -> dict[Path, dict[str, str]]:
    """Every page that shows figures, with what the results put at each of its marked places.

    A page outside this folder shows what was measured in full, never a small run.
    """
    contents, full = read_all(), _read(RESULTS)
    front = {}
    if "loads" in full:
        front["overview"] = "\n\n".join([*_images(full["loads"], "bench/pictures/"), overview(full["loads"])])
    if "parallel" in full:
        front["parallel-overview"] = parallel_overview(full["parallel"])
    docs = {name: section(content) for name, content in full.items() if name in PROFILE_TABLES or name == "model"}
    return {
        BENCH / "README.md": every_section(contents),
        TOP / "README.md": front,
        TOP / "docs" / "profiling.md": docs,
        TOP / "docs" / "performance.md": docs,
    }


def filled(text: str, sections: dict[str, str]) -> str:
    """`text` with each marked place filled; a place without results says so."""

    def place(found: re.Match[str]) -> str:
        return f"{found[1]}{sections.get(found['name'], 'Not measured yet.')}\n{found[3]}"

    return MARKED.sub(place, text)


def read_all() -> dict[str, dict[str, Any]]:
    """The results of each question: those taken in full, else those of a small run."""
    return _read(RESULTS / SMALL) | _read(RESULTS)


def every_section(contents: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What stands in the benchmark's own README."""
    full = {name: content for name, content in contents.items() if not content["small"]}
    return {name: section(content) for name, content in contents.items()} | {"targets": targets(full)}


def section(content: dict[str, Any], *, pictures_in: str = "pictures/") -> str:
    """What stands at a question's place: where and with what, its pictures, and its table."""
    note = [WARNING] if content["small"] else []
    images = _images(content, pictures_in)
    return "\n\n".join([*note, facts_line(content), *images, EVERY[content["question"]](content)])


def _images(content: dict[str, Any], folder: str) -> list[str]:
    drawn = pictures({content["question"]: content})
    return [f"![Rows a second, {Path(name).stem.replace('-', ' ')}]({folder}{name})" for name in drawn]


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for name in EVERY:
        path = folder / f"{name}.json"
        if path.exists() and (content := json.loads(path.read_text()))["runs"]:
            found[name] = content | {"question": name, "small": folder.name == SMALL}
    if "model" in found:
        found["model"]["beside"] = {name: found[name] for name in ("loads", "parallel") if name in found}
    return found


def _draw(folder: Path, contents: dict[str, dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    for name, picture in pictures(contents).items():
        (folder / name).write_text(picture)
