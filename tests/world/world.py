"""The world of one history: a database, a folder with files, warm engines, and what has been done to them so far.

Headrace's acts (`world.commands`) and the world's (`world.tables`, `world.places`) are functions over it, registered by
name with how they are drawn: a history is a list of names with plain parameters, so that it can be printed, shortened
and played again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from world.database import Blocked, Database, Key, Picture
from world.files import File
from world.moments import Moments

__all__ = ["ACTS", "Act", "Known", "Setup", "Watch", "World", "act"]

Act = dict[str, Any]
"""One act: ``do`` is its name, the rest its parameters, all of them plain values of JSON."""


@dataclass(frozen=True)
class Known:
    """A registered act. `draw` makes its parameters; `stores` says where it can be done; `mid` whether it may happen
    inside a command; `hinders` whether Headrace may refuse to work afterwards.
    """

    name: str
    do: Callable[..., Any]
    draw: Callable[[random.Random], dict[str, Any]]
    weight: float
    by: str
    stores: tuple[str, ...]
    mid: bool
    hinders: bool


ACTS: dict[str, Known] = {}


def act(
    by: str,
    *,
    weight: float = 1.0,
    draw: Callable[[random.Random], dict[str, Any]] | None = None,
    stores: tuple[str, ...] = ("sqlite", "postgresql"),
    mid: bool = True,
    hinders: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as an act `by` the world or by Headrace, under its own name."""

    def register(do: Callable[..., Any]) -> Callable[..., Any]:
        name = do.__name__.replace("_", " ")
        ACTS[name] = Known(name, do, draw or (lambda _: {}), weight, by, stores, mid, hinders)
        return do

    return register


@dataclass(frozen=True)
class Setup:
    """What a history begins with: which columns are the identity, and whether there is a time column."""

    identity: tuple[str, ...] = ("k",)
    time: str | None = None


@dataclass
class Watch:
    """The pictures of one command: at its start, around each act of the world inside it, and at its end."""

    pictures: list[Picture]

    def headraces(self) -> list[tuple[Picture, Picture]]:
        """Before and after each stretch in which Headrace alone was at work."""
        return list(zip(self.pictures[::2], self.pictures[1::2], strict=True))

    def touched(self) -> set[Key]:
        """The events that the world changed, removed or brought during the command."""
        inside = zip(self.pictures[1:-1:2], self.pictures[2:-1:2], strict=True)
        return set().union(*(before.changed(after) for before, after in inside))


class _OneThread(Executor):
    """An executor with one worker that keeps its connection warm; it is waited for, so that nothing runs beside it."""

    def __init__(self) -> None:
        self.inner = ThreadPoolExecutor(1)

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        done = self.inner.submit(function, *args, **named)
        done.exception()
        return done


@dataclass
class World:
    """See above. `hindered` are the acts after which Headrace may refuse."""

    database: Database
    folder: Path
    setup: Setup
    moments: Moments
    files: dict[str, File] = field(default_factory=dict)
    hindered: set[str] = field(default_factory=set)
    moved: bool = False
    """Whether the world has touched table or ledger at all."""
    engine: Any = None
    service: Any = None
    stop: Event = field(default_factory=Event)
    engine_options: dict[str, Any] = field(default_factory=dict)
    watch: Watch | None = None
    brought: dict[Key, list[dict[str, str | None]]] = field(default_factory=dict)
    """Every row that any command has read, by event: what the table may hold of it."""
    unfinished: set[Key] = field(default_factory=set)
    """What commands have inserted that did not come to their end: a resumed run counts it as its own."""
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The options of each load by its parameters."""
    copies: dict[str, Any] = field(default_factory=dict)
    holding: list[Thread] = field(default_factory=list)
    """Who holds a lock and will let it go."""
    environment: dict[str, str] = field(default_factory=dict)
    inside: list[str | None] = field(default_factory=list)
    """What became of the acts inside commands: why they could not be carried out, ``None`` where they were."""

    def __post_init__(self) -> None:
        self.executor = _OneThread()
        for name in ("f0.csv", "f1.csv", "f2.jsonl"):
            self.files[name] = File(self.folder / name)

    def close(self) -> None:
        """End what is warm."""
        if self.engine is not None:
            engine, self.engine = self.engine, None
            engine.close()
        self.end_service()
        for thread in self.holding:
            thread.join()
        self.executor.inner.shutdown()

    def end_service(self) -> None:
        """End the service of `headrace run`, if there is one."""
        if self.service is not None:
            service, self.service = self.service, None
            service.__exit__(None, None, None)

    def change(self, one: Act) -> str | None:
        """Carry out an act of the world. Returns why it could not be, ``None`` if it was."""
        known = ACTS[one["do"]]
        parameters = {name: value for name, value in one.items() if name not in ("do", "at")}
        before = None
        try:
            if self.watch is not None:
                self.database.may_look()
                before = self.database.look()
            known.do(self, **parameters)
        except Blocked as error:
            return str(error).split("\n", 1)[0]
        finally:
            if self.watch is not None and before is not None:
                self.watch.pictures += [before, self.database.look()]
        self.moved = True
        if known.hinders:
            self.hindered.add(known.name)
        return None

    def note_inside(self, became: str | None) -> None:
        """Keep what became of an act inside a command."""
        self.inside.append(became)

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """Take the pictures of a command."""
        self.watch = Watch([self.database.look()])
        try:
            yield self.watch
        finally:
            self.watch.pictures.append(self.database.look())
            self.watch = None
