"""Headrace's loads: whole commands over files, and batches into an engine that stays warm across the world's acts."""

from __future__ import annotations

import json
import os
import random
from threading import Event
from typing import Any

from world.database import EVENTS
from world.files import Row, make_rows
from world.judge import Said
from world.judging import Outcome, judged
from world.oracle import Input
from world.receiver import enrich
from world.world import Act, World, act

import headrace
from headrace.api import load_with
from headrace.events.alert_rule import AlertRule
from headrace.options.declared import Named
from headrace.options.load import options_of

__all__ = ["FILES", "TYPES", "draw_batch", "read_of"]

FILES = ("f0.csv", "f1.csv", "f2.jsonl")
RULE = AlertRule("fives", where="v % 5 = 0")
MODES = ("sequential", "sequential", "partitioned", "upsert", "locked")
TYPES = {"k": "integer", "at": "timestamp", "v": "integer", "w": "string", "ver": "integer", "x": "string"}


def draw_load(chance: random.Random) -> dict[str, Any]:
    """Parameters of a load, and maybe a moment inside it."""
    return {
        "files": chance.sample(FILES, chance.choice((1, 1, 1, 2))),
        **_draw_way(chance),
        "chunk_rows": chance.choice((3, 5, 8, 1000)),
        "resume": chance.random() < 0.85,
        "prove": chance.random() < 0.2,
    }


def _draw_way(chance: random.Random) -> dict[str, Any]:
    return {
        "provider": chance.choice("pppq"),
        "policy": chance.choice(("ignore", "ignore", "report", "update")),
        "mode": chance.choice(MODES),
        "window": chance.choice(("30d", "all", "1s")),
        "typed": chance.random() < 0.4,
        "named": chance.random() < 0.5,
        "alerts": chance.random() < 0.5,
        "enrich": chance.random() < 0.2,
    }


@act("headrace", weight=10, draw=draw_load)
def load(world: World, **how: Any) -> Outcome:
    files = [world.files[name] for name in how["files"]]
    contents = [[str(one.path), list(one.rows)] for one in files]
    options = _same_as_before(world, how)
    stop = Event()

    def work() -> Said:
        return _said(load_with(options_of(options), [str(one.path) for one in files], stop=stop))

    def reads() -> list[Input]:
        before = [read_of(world, how, contents)]
        now = [[str(one.path), list(one.rows)] for one in files]
        return before if now == contents else [*before, read_of(world, how, now)]

    return judged(world, how, work, reads, stop, refusable=not all(one.there for one in files))


@act("headrace", weight=7, draw=lambda chance: {**_draw_way(chance), **draw_batch(chance)})
def batch(world: World, *, pick: int, count: int, repeat: bool, **how: Any) -> Outcome:
    """A batch into the warm engine, which is opened by the first."""
    rows: list[Row] = make_rows(pick, count)
    if repeat:
        rows = list(world.copies.get("batch", rows))
    world.copies["batch"] = rows
    if world.engine is None:
        world.engine_options = how
        world.engine = headrace.Engine(**_options(world, {**how, "named": True}) | {"chunk_rows": 5})
        try:
            world.engine.__enter__()
        except BaseException:
            world.engine = None
            raise
    how = {**how, **{name: world.engine_options[name] for name in ("policy", "mode", "alerts", "enrich")}}
    stop = Event()

    def work() -> Said:
        return _said(world.engine.ingest(list(rows), provider=how["provider"], stop=stop))

    contents: list[list[Any]] = [["", rows]]
    # an engine that was told no types makes a table that is gone with those of its rows, which are text
    untyped = not world.engine_options["typed"] and not world.database.has(EVENTS)
    return judged(world, how, work, lambda: [read_of(world, how, contents)], stop, refusable=untyped)


def draw_batch(chance: random.Random) -> dict[str, Any]:
    """Which rows: those of the last batch again, or new ones."""
    return {"pick": chance.randrange(1000), "count": chance.choice((1, 6, 14)), "repeat": chance.random() < 0.6}


@act("headrace", weight=1)
def close_engine(world: World) -> None:
    if world.engine is not None:
        engine, world.engine = world.engine, None
        engine.close()


@act("headrace", weight=0.5)
def refresh_engine(world: World) -> None:
    if world.engine is not None:
        world.engine.refresh()


def _options(world: World, how: Act) -> Named:
    picture = world.database.look() if world.watch is None else world.watch.pictures[-1]
    options: dict[str, Any] = {"to": world.database.url, "table": EVENTS, "provider": how["provider"]}
    options |= {"revisions": how["policy"], "window": how["window"]}
    if how["policy"] == "update":
        options["version_column"] = "ver"
    if how["mode"] == "sequential":
        options["mode"] = None if "ENABLE_PARALLEL_CHUNK_PROCESSING" in os.environ else "sequential"
        options |= {"executor": world.executor, "workers": 2}
    else:
        options |= {"mode": "parallel", "strategy": how["mode"], "executor": world.executor, "workers": 2}
    # without a stored contract the identity must be named, or it would be another one
    if how["named"] or picture.contract is None:
        options["id"] = list(world.setup.identity)
        options["time"] = world.setup.time
    if how["typed"] or not picture.exists:
        options["types"] = {name: kind for name, kind in TYPES.items() if name != "x"}
    if how["alerts"]:
        options["alerts"] = [RULE]
    if _enriches(how):
        options |= {"enrich": enrich, "on_error": "reject"}
    return options  # type: ignore[return-value]


def _same_as_before(world: World, how: Act) -> Named:
    """The load's options: the very same where the same command was given before, so that it can be resumed.

    A table that is gone must be made with its types once more.
    """
    command = json.dumps({name: value for name, value in how.items() if name != "at"}, sort_keys=True)
    earlier = world.commands.get(command)
    if earlier is not None and ("types" in earlier or world.database.has(EVENTS)):
        return earlier  # type: ignore[return-value]
    own = {"chunk_rows": how["chunk_rows"], "resume": how["resume"], "prove": how["prove"]}
    world.commands[command] = {**_options(world, how), **own}
    return world.commands[command]  # type: ignore[return-value]


def _enriches(how: Act) -> bool:
    """Revised rows are not asked about again: an enrichment is judged where the first row wins."""
    return bool(how.get("enrich")) and how["policy"] == "ignore"


def _said(report: headrace.Report) -> Said:
    return Said(
        report.read,
        report.inserted,
        report.rejected,
        report.alerts,
        report.run_id,
        report.resumed,
    )


def read_of(world: World, how: Act, contents: list[list[Any]]) -> Input:
    rows = [(source, number, row) for source, lines in contents for number, row in enumerate(lines)]
    races = how["mode"] in ("upsert", "locked") or "ENABLE_PARALLEL_CHUNK_PROCESSING" in os.environ
    return Input(rows, how["provider"], how["policy"], races, unlucky=_enriches(how))
