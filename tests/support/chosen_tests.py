"""Which tests run where not all do: in ``make test``, and whenever nobody names a test.

    marked `slow`                    only in ``make test-all``: ten seconds and more for a case
    in the folders of `WHOLE`        every case
    elsewhere                        one case of each test

Each test of each guarantee runs at each commit. The tests of a file take turns: a test runs the case behind that of the
test above it, so that both databases are met. Another name changes nothing. ``make test-cases`` runs every case, and
``make test-all`` repeats what repeats as often as it should.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

__all__ = ["STORES", "pytest_collection_modifyitems"]

STORES = ("sqlite", "postgresql")
WHOLE = ("contract", "golden", "unit")


@pytest.hookimpl(tryfirst=True)  # all cases are counted, also those that -k leaves out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other cases. Who names a test gets what is named."""
    if os.environ.get("HEADRACE_TEST_SCALE") in ("cases", "full") or any("::" in word for word in config.args):
        return
    tests: dict[Path, dict[int, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        tests[item.path][item.location[1] or 0].append(item)
    kept: set[pytest.Item] = set()
    for path, by_line in tests.items():
        whole = any(parent.name in WHOLE for parent in path.parents)
        for turn, (_, cases) in enumerate(sorted(by_line.items())):
            chosen = cases if whole else [_in_turn(cases, turn)]
            kept.update(case for case in chosen if case.get_closest_marker("slow") is None)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _in_turn(cases: list[pytest.Item], turn: int) -> pytest.Item:
    """The case of the test that is number `turn` in its file: each turn another database, then another case of it."""
    stores: dict[object, list[pytest.Item]] = defaultdict(list)
    for case in cases:
        stores[case.callspec.params.get("store_url") if hasattr(case, "callspec") else None].append(case)
    of_store = list(stores.values())[turn % len(stores)]
    return of_store[turn // len(stores) % len(of_store)]
