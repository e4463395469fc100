"""Headrace's polls: rounds of ``headrace run`` over one file, by a service that stays warm or by one that is new."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from world.database import EVENTS
from world.judge import Said
from world.judging import Outcome, judged
from world.loads import TYPES
from world.oracle import Input
from world.world import Act, World, act

from headrace.polling.config_file import read_settings
from headrace.polling.service import Service, Wanted

__all__ = ["poll"]

POLLED = ("loaded", "unchanged", "empty")


class _Clock:
    """The machine's clock, off by what the world has set it to; nobody waits."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> Any:
        return datetime.now(UTC) + timedelta(days=float(self._world.environment.get("clock", 0)))

    def wait(self, seconds: float, stop: Any) -> None:
        """Not here."""


def draw_poll(chance: random.Random) -> Act:
    """Whether the service is the one of the last poll, and whether it reads what has not changed too."""
    return {"warm": chance.random() < 0.6, "reread": chance.random() < 0.2, "chunk_rows": chance.choice((3, 8, 1000))}


def _settings(world: World, chunk_rows: int) -> str:
    identity = json.dumps(list(world.setup.identity))
    time = f'time = "{world.setup.time}"\n' if world.setup.time else ""
    types = ", ".join(f'{name} = "{kind}"' for name, kind in TYPES.items() if name != "x")
    # a column that was altered contradicts what the file pins
    altered = any("type" in one for one in world.hindered)
    pinned = "" if altered else f"types = {{ {types} }}\n"
    return (
        f'database = "{world.database.url}"\n[run]\nlease = "1s"\n[providers.p]\npath = "f1.csv"\ntable = "{EVENTS}"\n'
        f'id = {identity}\n{time}{pinned}interval = "1s"\nmode = "sequential"\nchunk_rows = {chunk_rows}\n'
        '[[providers.p.alerts]]\nname = "fives"\nwhere = "v % 5 = 0"\n'
    )


@act("headrace", weight=3, draw=draw_poll)
def poll(world: World, *, warm: bool, reread: bool, chunk_rows: int, at: Act | None = None) -> Outcome | None:
    """One forced round."""
    if at is not None and at["kind"] == "statement":
        at = None  # a thread renews the claim meanwhile, and sends statements of its own
    file = world.files["f1.csv"]
    was, there = list(file.rows), file.there
    if not warm or world.service is None:
        world.end_service()
        (world.folder / "headrace.toml").write_text(_settings(world, chunk_rows))
        service = Service(
            read_settings(world.folder / "headrace.toml"), Wanted(force=True, reread=reread), _Clock(world), world.stop
        )
        world.service = service.__enter__()
    outcomes: list[str] = []

    def work() -> Said:
        (one,) = world.service.round().polls
        outcomes.append(one.outcome)
        if one.outcome == "failed":
            return Said(refusal=one.error)
        counts = one.counts
        loaded = one.outcome == "loaded"
        return Said(
            counts.read, counts.inserted, counts.rejected, one.alerts, one.run_id or "", resumed=True, books=loaded
        )

    def reads() -> list[Input]:
        contents = [was] if file.rows == was else [was, list(file.rows)]
        return [Input([(str(file.path), number, row) for number, row in enumerate(rows)], "p") for rows in contents]

    how = {"at": at, "alerts": True, "policy": "ignore"}
    outcome = judged(world, how, work, reads, refusable=not there, owes_if=lambda: outcomes[-1:] != ["elsewhere"])
    if outcomes and outcome.how == "done":
        outcome.how = outcomes[-1]
    return outcome
