"""The world's acts around the database: files, folders, flags and clocks."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from world.database import Blocked, Postgres
from world.files import make_rows
from world.world import World, act

__all__: list[str] = []

NAMES = ("f0.csv", "f1.csv", "f2.jsonl")


def draw_file(chance: random.Random) -> dict[str, Any]:
    """A file, and the number that its new rows are made from."""
    return {"file": chance.choice(NAMES), "pick": chance.randrange(10_000), "count": chance.choice((1, 7, 20))}


def draw_new(chance: random.Random) -> dict[str, Any]:
    """A file's new rows: how many, and what is odd about them."""
    return {**draw_file(chance), "odd": chance.choice(("", "", "bad", "extra", "nameless"))}


@act("files", weight=4, draw=draw_new)
def replace_file(world: World, *, file: str, pick: int, count: int, odd: str) -> None:
    rare = 0.15
    world.files[file].write(
        make_rows(
            pick,
            count,
            extra=odd == "extra",
            bad=rare if odd == "bad" else 0.0,
            nameless=rare if odd == "nameless" else 0.0,
        )
    )


@act("files", weight=0.5, draw=lambda chance: {"file": chance.choice(NAMES)})
def remove_file(world: World, *, file: str) -> None:
    world.files[file].remove()


@act("files", weight=2, draw=draw_file)
def grow_file(world: World, *, file: str, pick: int, count: int) -> None:
    if not world.files[file].there:
        raise Blocked("there is no such file")
    world.files[file].grow(make_rows(pick, count))


@act("files", weight=1, draw=lambda chance: {"file": chance.choice(NAMES), "rows": chance.choice((1, 4))})
def cut_file(world: World, *, file: str, rows: int) -> None:
    if not world.files[file].there or len(world.files[file].rows) <= rows:
        raise Blocked("there is not so much of it")
    world.files[file].cut(rows)


@act("files", weight=1, draw=draw_file)
def disguise_file(world: World, *, file: str, pick: int, count: int) -> None:
    if not world.files[file].there:
        raise Blocked("there is no such file")
    world.files[file].disguise(make_rows(pick, max(1, len(world.files[file].rows) - 1)))


@act("files", weight=1, draw=lambda chance: {"file": chance.choice(NAMES)})
def touch_file(world: World, *, file: str) -> None:
    if not world.files[file].there:
        raise Blocked("there is no such file")
    world.files[file].path.touch()


@act("files", weight=0.7, draw=lambda chance: {"file": chance.choice(NAMES)})
def reorder_file(world: World, *, file: str) -> None:
    """The same rows, from the last to the first."""
    if not world.files[file].there:
        raise Blocked("there is no such file")
    world.files[file].write(world.files[file].rows[::-1])


@act("places", weight=1.5, draw=lambda chance: {"value": chance.choice(("on", "on", "off", "canary:50"))}, mid=False)
def flip_flag(world: World, *, value: str) -> None:
    os.environ["ENABLE_PARALLEL_CHUNK_PROCESSING"] = value


@act("places", weight=1, draw=lambda chance: {"days": chance.choice((-400, -1, 0, 1, 40, 400))}, mid=False)
def set_clock(world: World, *, days: int) -> None:
    world.environment["clock"] = str(days)


@act("places", weight=1, hinders=True)
def sweep_temporary_folder(world: World) -> None:
    """A cleaner removes what lies in the temporary folder, whoever needs it."""
    folder = Path(tempfile.gettempdir())
    if not folder.is_relative_to(world.folder):  # never anybody else's
        raise Blocked("the temporary folder is not this history's own")
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@act("places", weight=1)
def change_folder(world: World) -> None:
    beside = world.folder / "elsewhere"
    beside.mkdir(exist_ok=True)
    os.chdir(beside if Path.cwd() != beside else world.folder)


@act(
    "places",
    weight=1,
    stores=("postgresql",),
    draw=lambda chance: {"what": chance.choice(("read only", "statement timeout", "lock timeout", "nothing"))},
    hinders=True,
)
def server_settings(world: World, *, what: str) -> None:
    """Settings that new sessions of Headrace's user get; the old ones end."""
    if isinstance(world.database, Postgres):
        world.database.settings(
            {
                "read only": ["default_transaction_read_only = on"],
                "statement timeout": ["statement_timeout = '3ms'"],
                "lock timeout": ["lock_timeout = '20ms'"],
                "nothing": [],
            }[what]
        )
