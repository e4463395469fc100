"""How a command shows its result: as text, or as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

__all__ = ["show"]


def show(output: str, as_object: Callable[[], object], as_text: Callable[[], str]) -> None:
    """A command's result on standard output, as `--output` asks."""
    text = json.dumps(as_object(), ensure_ascii=False, default=str) if output == "json" else as_text()
    print(text, file=sys.stdout)
