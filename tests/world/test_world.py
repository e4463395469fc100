"""The world as a test: seeded histories in which neighbours and Headrace take turns, each judged by the rule.

The fixed seeds begin at ``HEADRACE_WORLD_SEED`` (default 1). The last part takes seeds that are new each day. A failure
prints its shortest history and how it is played again; CONTRIBUTING.md says more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from support.evidence import keep_world
from support.program import scaled
from world.allowed import switched_off
from world.database import Database
from world.history import draw, play
from world.moments import Moments, listen
from world.record import Tally
from world.simulate import commit, prepared, told

BASE = int(os.environ.get("HEADRACE_WORLD_SEED", "1"))
PARTS = 8
SEEDS = {"sqlite": scaled(4800, default=48), "postgresql": scaled(2400, default=24)}
FRESH = datetime.now(UTC).toordinal() * 1000

pytestmark = pytest.mark.filterwarnings("ignore")  # what a crash leaves open is nobody's concern


@pytest.fixture(scope="module")
def moments() -> Iterator[Moments]:
    moments = Moments()
    with listen(moments):
        yield moments


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest, worker_id: str) -> Iterator[Database]:
    opened = prepared(request.getfixturevalue("postgres_server"), f"world_{worker_id}")
    yield opened
    opened.close()


def check(store: str, part: int, database: Database | None, moments: Moments) -> None:
    count = SEEDS[store] // PARTS
    first = FRESH if part == PARTS - 1 else BASE + part * count
    print("seeds", first, "to", first + count - 1)
    tally, failures = Tally(store, list(range(first, first + count))), []
    for seed in tally.seeds:
        history = draw(seed, store, switched_off)
        played = play(history, database, moments)
        tally.add(played.ended, played.pairs, played.rules, played.wrong)
        if played.failed:
            failures.append(told(history, played, database, moments))
    keep_world(tally, commit())
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("part", range(PARTS))
def test_the_rule_holds_while_the_world_moves_on_sqlite(part: int, moments: Moments) -> None:
    check("sqlite", part, None, moments)


@pytest.mark.parametrize("part", range(PARTS))
def test_the_rule_holds_while_the_world_moves_on_postgresql(part: int, moments: Moments, database: Database) -> None:
    check("postgresql", part, database, moments)
