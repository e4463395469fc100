"""Which tests run where not all do: in ``make test``, and whenever nobody names a test.

    marked `slow`                    only in ``make test-all``: ten seconds and more for a case
    in the folders of `WHOLE`        every case
    elsewhere                        of a test's cases the few that differ in the most parameters

So each test of each guarantee runs at each commit, on both databases where it has them, and each value of few
parameters; every combination runs in ``make test-all``. A test begins with another case than the test above it. Another
name changes nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

__all__ = ["CASES", "STORES", "pytest_collection_modifyitems"]

STORES = ("sqlite", "postgresql")
WHOLE = ("contract", "golden", "unit")
CASES = 2
Parameters = dict[str, str]


@pytest.hookimpl(tryfirst=True)  # all cases are counted, also those that -k leaves out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other cases. Who names a test gets what is named."""
    if os.environ.get("HEADRACE_TEST_SCALE") == "full" or any("::" in word for word in config.args):
        return
    tests: dict[Path, dict[int, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        tests[item.path][item.location[1] or 0].append(item)
    kept: set[pytest.Item] = set()
    for path, by_line in tests.items():
        whole = any(parent.name in WHOLE for parent in path.parents)
        for turn, (_, cases) in enumerate(sorted(by_line.items())):
            chosen = range(len(cases)) if whole else spread([_parameters(case) for case in cases], turn, CASES)
            kept.update(cases[at] for at in chosen if cases[at].get_closest_marker("slow") is None)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def spread(cases: list[Parameters], turn: int, most: int) -> list[int]:
    """The positions of at most `most` of a test's `cases`, which differ in as many parameters as can be."""
    chosen = [turn % len(cases)]
    while len(chosen) < min(most, len(cases)):
        left = [at for at in range(len(cases)) if at not in chosen]
        chosen.append(max(left, key=lambda at: sum(_differences(cases[at], cases[other]) for other in chosen)))
    return sorted(chosen)


def _differences(one: Parameters, other: Parameters) -> int:
    return sum(one[name] != other.get(name) for name in one)


def _parameters(item: pytest.Item) -> Parameters:
    """The values of the case's parameters, in a form that can always be compared."""
    return {name: repr(value) for name, value in item.callspec.params.items()} if hasattr(item, "callspec") else {}
