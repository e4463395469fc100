"""The lowest version of each library that Headrace may be installed with, as constraints for pip.

python tests/support/floors.py > constraints.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

__all__ = ["floors"]

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
TOOLS = ("bench", "check", "demo", "test")  # what these extras bring is not the user's
FLOOR = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\w.]+)")


def floors() -> dict[str, str]:
    """The version by name. Raises `ValueError` for two floors of one dependency, and for one without."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = {name: libraries for name, libraries in project["optional-dependencies"].items() if name not in TOOLS}
    told = [*project["dependencies"], *(library for libraries in extras.values() for library in libraries)]
    found: dict[str, str] = {}
    for requirement in told:
        floor = FLOOR.match(requirement)
        if floor is None:
            raise ValueError(f"{requirement!r} has no floor")
        if found.setdefault(floor["name"], floor["version"]) != floor["version"]:
            raise ValueError(f"{floor['name']} has two floors")
    return found


if __name__ == "__main__":
    print(*(f"{name}=={version}" for name, version in sorted(floors().items())), sep="\n")
