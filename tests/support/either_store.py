"""Which database a test marked `either_store` meets where not all tests run.

The marked tests of a file begin with SQLite and PostgreSQL in turn, as they stand in it, and the cases of each go on in
turn. Another name changes nothing.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

__all__ = ["STORES", "pytest_collection_modifyitems"]

STORES = ("sqlite", "postgresql")


@pytest.hookimpl(tryfirst=True)  # all cases are counted, also those that -k leaves out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other database. Who names a test gets what is named."""
    if os.environ.get("HEADRACE_TEST_SCALE") == "full" or any("::" in word for word in config.args):
        return
    marked = [item for item in items if item.get_closest_marker("either_store") and _store(item) is not None]
    lines: dict[Path, set[int]] = defaultdict(set)
    for item in marked:
        lines[item.path].add(_line(item))
    left_out: set[pytest.Item] = set()
    cases: Counter[tuple[Path, int, object]] = Counter()  # each database has all of them, in the same order
    for item in marked:
        case = (item.path, _line(item), _store(item))
        turn = sorted(lines[item.path]).index(_line(item)) + cases[case]
        cases[case] += 1
        if _store(item) != STORES[turn % 2]:
            left_out.add(item)
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


def _line(item: pytest.Item) -> int:
    return item.location[1] or 0


def _store(item: pytest.Item) -> object:
    return item.callspec.params.get("store_url") if hasattr(item, "callspec") else None
