"""Headrace's other commands: verifications, replays of rejects, deliveries of alerts."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import typer
from world.database import EVENTS, Key, Picture
from world.judge import Said, reject_key
from world.judging import Outcome, judged
from world.loads import TYPES, read_of
from world.oracle import Input, expected, matches
from world.receiver import TAKEN
from world.world import Act, World, act

from headrace.cli import main
from headrace.loading.database import open_existing
from headrace.loading.replay import replay as replay_rejects
from headrace.options.declared import Named
from headrace.options.load import options_of

__all__: list[str] = []

COMMAND = typer.main.get_command(main.app)


def command(*words: str) -> tuple[int, str]:
    """A command line, in this process: exit code, and standard output. Raises what it raises."""
    said, complained = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(complained):
        try:
            code = COMMAND.main(list(words), standalone_mode=False)
        except SystemExit as end:
            code = end.code
    return code if isinstance(code, int) else 0, said.getvalue()


@act(
    "headrace", weight=3, draw=lambda chance: {"file": chance.choice(("f0.csv", "f1.csv", "f2.jsonl")), "provider": "p"}
)
def verify(world: World, *, file: str, provider: str) -> Outcome | None:
    one = world.files[file]
    if not one.there or not world.database.look().exists:
        return None
    rows = list(one.rows)
    how = {"mode": "sequential", "policy": "update", "provider": provider}
    read = read_of(world, how, [[str(one.path), rows]])
    codes: list[int] = []

    def work() -> Said:
        words = ["verify", str(one.path), "--table", EVENTS, "--to", world.database.url, "--provider", provider]
        codes.append(command(*words, "--output", "json")[0])
        return Said()

    outcome = judged(world, how, work, lambda: [read], owes_if=lambda: False)
    picture = world.database.look()
    if codes:
        missing = expected(read, picture).keys() - picture.events.keys()
        outcome.how = f"exit {codes[0]}"
        outcome.rules += 1
        if codes[0] == 0 and missing:
            outcome.wrong.append(f"verified, and {len(missing)} events of the input are not in the table")
        if codes[0] == 0 and (false := _falsified(world, picture, expected(read, picture))):
            outcome.wrong.append(f"verified, and {len(false)} events have values that no input has brought")
        if codes[0] != 0 and not missing and not world.moved:
            outcome.wrong.append("a difference is told of, and there is none")
    return outcome


def _falsified(world: World, picture: Picture, keys: Iterable[Key]) -> list[Key]:
    """The events whose row in the table is none that any command has read."""
    return [
        key
        for key in keys
        for row in picture.events.get(key, [])
        if not any(matches(row, one, picture.columns) for one in world.brought.get(key, []))
    ]


@act(
    "headrace",
    weight=2,
    draw=lambda chance: {"v": str(chance.randrange(200)), "mode": chance.choice(("off", "off", "on"))},
)
def replay(world: World, *, v: str, mode: str, at: Act | None = None) -> Outcome | None:
    picture = world.database.look()
    kept = [one for one in picture.rejects if one["state"] == "kept" and one["stage"] != "revision" and reject_key(one)]
    if not kept or not picture.exists:
        return None
    rows = [
        (
            one["source"],
            one["row_number"],
            {**{name: "" if text is None else str(text) for name, text in json.loads(one["record"]).items()}, "v": v},
        )
        for one in kept
    ]
    by_provider = {one["provider"] for one in kept}
    provider = sorted(by_provider)[0]
    read = Input(
        [row for row, one in zip(rows, kept, strict=True) if one["provider"] == provider],
        provider,
        "ignore",
        races=True,
    )
    how = {"at": at, "mode": "upsert", "policy": "ignore", "provider": provider}
    numbers = [one["reject_id"] for one in kept if one["provider"] == provider]
    options: Named = {"to": world.database.url, "table": EVENTS, "executor": world.executor, "workers": 2}

    def work() -> Said:
        with open_existing(world.database.url) as store:
            reports = replay_rejects(store, store.rejects.find(ids=numbers), options_of(options), changes={"v": v})
        return Said(books=False, rejected=sum(report.rejected for report in reports))

    with _flag(mode):
        return judged(world, how, work, lambda: [read])


@contextmanager
def _flag(value: str | None) -> Iterator[None]:
    name = "ENABLE_PARALLEL_CHUNK_PROCESSING"
    before = os.environ.pop(name, None)
    if value not in (None, "off"):
        os.environ[name] = str(value)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@act("headrace", weight=2)
def deliver(world: World, *, at: Act | None = None) -> Outcome | None:
    picture = world.database.look()
    if not picture.alerts:
        return None
    TAKEN.clear()

    def work() -> Said:
        command(
            "alerts", "deliver", "--to", world.database.url, "--function", "world.receiver:take", "--output", "json"
        )
        return Said()

    outcome = judged(world, {"at": at}, work, lambda: [Input([], "")], owes_if=lambda: False)
    outcome.rules += 1
    if outcome.how == "done" and set(TAKEN) - picture.alerts.keys():
        outcome.wrong.append("alerts were delivered that nobody raised")
    return outcome


def draw_kill(chance: random.Random) -> Act:
    """Before which statement it dies, and what it loads in which pieces."""
    return {
        "number": chance.randrange(1, 50),
        "files": [chance.choice(("f0.csv", "f2.jsonl"))],
        "chunk_rows": chance.choice((3, 5, 8)),
    }


@act("headrace", weight=0.06, draw=draw_kill)
def load_killed(world: World, *, number: int, files: list[str], chunk_rows: int) -> Outcome | None:
    """A load in a process of its own, ended by SIGKILL, or by its end."""
    opened = [world.files[name] for name in files]
    how = {"provider": "p", "policy": "ignore", "mode": "sequential", "window": "30d", "typed": False, "named": True}
    words = ["load", *(str(one.path) for one in opened), "--to", world.database.url, "--table", EVENTS]
    words += ["--provider", "p", "--mode", "sequential", "--chunk-rows", str(chunk_rows), "--output", "json"]
    words += ["--id", ",".join(world.setup.identity), *(["--time", world.setup.time] if world.setup.time else [])]
    if not world.database.has(EVENTS):
        words += [word for name, kind in TYPES.items() if name != "x" for word in ("--type", f"{name}={kind}")]
    contents = [[str(one.path), list(one.rows)] for one in opened]

    def work() -> Said:
        program = [sys.executable, "-m", "world.victim", str(number), *words]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
        done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
        if done.returncode == -signal.SIGKILL:
            return Said(killed=True)
        if done.returncode not in (0, 3):
            return Said(refusal=done.stderr.strip())
        said = json.loads(done.stdout)
        return Said(said["read"], said["inserted"], said["rejected"], said["alerts"], said["run_id"], resumed=True)

    return judged(world, how, work, lambda: [read_of(world, how, contents)], refusable=not all(f.there for f in opened))
