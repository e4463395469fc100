"""Histories: drawn from a seed, played, judged, and shortened where they fail.

A history is a setup and a list of acts with plain parameters. Nothing in it depends on how it goes, so that any part of
it can be played as well: that is how a failing one is shortened.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.program import Crash
from world import commands, loads, places, polling, servers, tables  # noqa: F401 - they register their acts
from world.database import Database, Sqlite
from world.files import make_rows
from world.judging import Outcome
from world.moments import Moments
from world.world import ACTS, Act, Known, Setup, World

from headrace import storage
from headrace.errors import HeadraceError

__all__ = ["History", "Played", "draw", "play", "shortened"]

SETUPS = (Setup(("k",), None), Setup(("k",), "at"), Setup(("k", "at"), "at"))
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
BY_WORLD, AGAIN, OTHER_ROWS = 0.65, 0.6, 0.4
"""How often the next act is the world's; how often the same command comes again right after it, which shows most; and
how often that command then brings other rows, so that something is written.
"""
FLAG = "ENABLE_PARALLEL_CHUNK_PROCESSING"


@dataclass(frozen=True)
class History:
    """What happens, and on which database."""

    seed: int
    store: str
    setup: Setup
    first: int
    """The number that the files' first rows are made from."""
    acts: tuple[Act, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.store}, identity {self.setup.identity}, time {self.setup.time}"]
        return "\n".join([*lines, *(f"  {number}. {_told(one)}" for number, one in enumerate(self.acts, 1))])

    def to_json(self) -> str:
        """The history in one line, to be played again from."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> History:
        """The history that `to_json` wrote."""
        said = json.loads(text)
        said["setup"] = Setup(tuple(said["setup"]["identity"]), said["setup"]["time"])
        return cls(**{**said, "acts": tuple(said["acts"])})


def _told(one: Act) -> str:
    words = ", ".join(f"{name} {value}" for name, value in one.items() if name not in ("do", "at"))
    inside = ""
    if moment := one.get("at"):
        what = moment["what"] if isinstance(moment["what"], str) else _told(moment["what"])
        inside = f"\n       before its {moment['kind']} {moment['number']}: {what}"
    return f"{one['do']}{': ' if words else ''}{words}{inside}"


# Drawing --------------------------------------------------------------------------------------------------------


def draw(seed: int, store: str, off: Callable[[Act], bool] = lambda _: False) -> History:
    """The history of `seed`. Acts for which `off` holds are not drawn."""
    chance = random.Random(f"{store} {seed}")
    known = [one for one in ACTS.values() if store in one.stores]
    acts: list[Act] = [_one(chance, [ACTS["load"], ACTS["batch"]], known, off)]
    by_world, by_headrace = [[one for one in known if (one.by != "headrace") is world] for world in (True, False)]
    for _ in range(chance.randrange(1, 5)):
        if chance.random() < BY_WORLD:
            acts.append(_one(chance, by_world, known, off))
            acts += [_again(chance, acts)] if chance.random() < AGAIN else []
        else:
            acts.append(_one(chance, by_headrace, known, off))
    # what a command that was refused or killed owes shows in the next one
    acts.append(_again(chance, acts))
    return History(seed, store, chance.choice(SETUPS), chance.randrange(1000), tuple(acts))


def _again(chance: random.Random, acts: Sequence[Act]) -> Act:
    """An earlier load or batch, the same command once more, with nothing inside it."""
    earlier = [one for one in acts if one["do"] in ("load", "batch", "poll")]
    same = {name: value for name, value in chance.choice(earlier[-2:]).items() if name != "at"}
    others = chance.random() < OTHER_ROWS
    if same["do"] == "batch":
        return {**same, **loads.draw_batch(chance), "repeat": not others}
    return {**same, "files": [chance.choice(loads.FILES)]} if others and same["do"] == "load" else same


def _one(chance: random.Random, among: Sequence[Known], known: Sequence[Known], off: Callable[[Act], bool]) -> Act:
    while True:
        chosen = chance.choices(among, [one.weight for one in among])[0]
        drawn = {"do": chosen.name, **chosen.draw(chance)}
        if chosen.name in ("load", "batch", "replay", "poll", "deliver") and chance.random() < 0.4:
            drawn["at"] = _moment(chance, known, off)
        if not off(drawn):
            return drawn


def _moment(chance: random.Random, known: Sequence[Known], off: Callable[[Act], bool]) -> Act:
    kind = chance.choice(("statement", "statement", "chunk"))
    what: str | Act = chance.choice(("crash", "stop", "act", "act"))
    if what == "act":
        world = [one for one in known if one.by != "headrace" and one.mid]
        while True:
            chosen = chance.choices(world, [one.weight for one in world])[0]
            what = {"do": chosen.name, **chosen.draw(chance)}
            if not off({**what, "inside": True}):
                break
    return {"kind": kind, "number": chance.randrange(1, 60 if kind == "statement" else 5), "what": what}


# Playing --------------------------------------------------------------------------------------------------------


@dataclass
class Played:
    """What came of a history: how each act ended, and what was wrong."""

    ended: list[tuple[str, str, str]] = field(default_factory=list)
    """Of each act its name, how it ended, and its words."""
    inside: list[str | None] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    rules: int = 0
    pairs: set[tuple[str, str]] = field(default_factory=set)
    """Acts that have followed each other, or one inside the other."""

    @property
    def failed(self) -> bool:
        """Whether a rule was broken."""
        return bool(self.wrong)


def play(history: History, database: Database | None, moments: Moments) -> Played:
    """Play it in an empty database (`None`: an SQLite file of its own), up to the first act that breaks a rule."""
    played = Played()
    with _folder() as folder:
        of_ours = database or Sqlite(folder / "h.db")
        of_ours.clear()
        if history.first % 5:
            _have_a_ledger(of_ours)
        world = World(of_ours, folder, history.setup, moments)
        for number, file in enumerate(world.files.values()):
            file.write(make_rows(history.first + number, 22, bad=0.05 if number == 1 else 0.0))
        try:
            before = ""
            for one in history.acts:
                _play_one(world, one, played)
                played.pairs |= {(before, one["do"])} if before else set()
                if one.get("at"):
                    what = one["at"]["what"]
                    played.pairs.add((one["do"], f"in it {what if isinstance(what, str) else what['do']}"))
                before = one["do"]
                if played.failed:
                    break
        finally:
            world.close()
        played.inside = world.inside
    return played


def _have_a_ledger(database: Database) -> None:
    """Most histories begin with one: to make it takes more statements than a load, and moments would fall there."""
    with storage.open_store(database.url) as store:
        store.ledger.prepare()


def _play_one(world: World, one: Act, played: Played) -> None:
    known = ACTS[one["do"]]
    if known.by != "headrace":
        became = world.change(one)
        played.ended.append((known.name, "done" if became is None else "impossible", became or ""))
        return
    try:
        outcome = known.do(world, **{name: value for name, value in one.items() if name != "do"})
    except HeadraceError as error:  # an engine that cannot be opened, or closed
        outcome = Outcome("refused", f"{type(error).__name__}: {error}")
    except Crash:
        outcome = Outcome("killed")
    if outcome is None:
        played.ended.append((known.name, "nothing", ""))
        return
    played.ended.append((known.name, outcome.how, outcome.words))
    played.rules += outcome.rules
    played.wrong += outcome.wrong


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder of the history's own, temporary files included; the process is in it meanwhile."""
    place, temporary, flag = Path.cwd(), tempfile.tempdir, os.environ.pop(FLAG, None)
    folder = Path(tempfile.mkdtemp(prefix="world-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
    (folder / "tmp").mkdir()
    os.chdir(folder)
    tempfile.tempdir = str(folder / "tmp")
    try:
        yield folder
    finally:
        os.chdir(place)
        tempfile.tempdir = temporary
        os.environ.pop(FLAG, None)
        if flag is not None:
            os.environ[FLAG] = flag
        shutil.rmtree(folder, ignore_errors=True)


# Shortening -----------------------------------------------------------------------------------------------------


def shortened(history: History, fails: Callable[[History], bool], tries: int = 120) -> History:
    """A shorter history that still fails: acts are left out, then what happens inside them."""
    left = tries

    def still(acts: Sequence[Act]) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(_with(history, acts))

    acts = list(history.acts)
    size = max(1, len(acts) // 2)
    while size:
        start = 0
        while start < len(acts):
            without = acts[:start] + acts[start + size :]
            if without and still(without):
                acts = without
            else:
                start += size
        size //= 2
    for number, one in enumerate(acts):
        plain: Any = [*acts[:number], {k: v for k, v in one.items() if k != "at"}, *acts[number + 1 :]]
        if "at" in one and still(plain):
            acts = plain
    return _with(history, acts)


def _with(history: History, acts: Sequence[Act]) -> History:
    return History(history.seed, history.store, history.setup, history.first, tuple(acts))
