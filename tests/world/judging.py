"""How an act of Headrace's is carried out and judged, with what the world does inside it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event

from support.program import Crash
from world.judge import Said, always, done, inserted
from world.moments import wrong_clocks
from world.oracle import Input, expected
from world.world import Act, World

from headrace.errors import HeadraceError

__all__ = ["Outcome", "judged"]

HARMLESS_INSIDE = ("delete some", "truncate", "change values", "insert others", "keep a copy", "hold a lock")
"""Acts that no command may be refused for, not even in its middle."""
DEFECT = "defect in Headrace"


@dataclass
class Outcome:
    """How an act of Headrace's ended (`how`, `words`), how many rules were judged, and what is `wrong`."""

    how: str
    words: str = ""
    wrong: list[str] = field(default_factory=list)
    rules: int = 0


def judged(
    world: World,
    how: Act,
    work: Callable[[], Said],
    reads: Callable[[], list[Input]],
    stop: Event | None = None,
    *,
    refusable: bool = False,
    owes_if: Callable[[], bool] = lambda: True,
) -> Outcome:
    """Carry out `work` with what is to happen inside it, and judge it: what it owes, where `owes_if`."""
    hindered = refusable or bool(world.hindered) or _may_be_refused(how.get("at"))
    with world.watched() as watch, _environment(world):
        said, words = _carried_out(world, how, work, stop)
    inputs = reads()
    wrong = [] if words is None else [words]
    for read in inputs:
        for key, rows in expected(read, watch.pictures[-1]).items():
            world.brought.setdefault(key, []).extend(rows)
    outcome = Outcome("done", wrong=wrong, rules=6)
    outcome.wrong += always(watch, inputs)
    if said.killed or said.refusal is not None:
        outcome.how, outcome.words = ("killed", "") if said.killed else ("refused", said.refusal or "")
        if said.refusal and DEFECT in said.refusal:
            outcome.wrong.append(f"called a defect: {said.refusal}")
        if said.refusal is not None and not hindered and not _stopped(how):
            outcome.wrong.append(f"refused, and nothing hinders it: {said.refusal}")
    elif owes_if():
        quiet = not hindered
        alerted = bool(how.get("alerts")) and how.get("policy") != "update"
        outcome.wrong += done(watch, inputs, said, quiet=quiet, alerted=alerted, ran=world.unfinished)
        outcome.rules += 8
    if outcome.how != "done":
        world.unfinished |= inserted(watch)
    return outcome


def _may_be_refused(moment: Act | None) -> bool:
    """An input that changes while it is read may be refused, and so may what meets a hindrance in the middle."""
    if moment is None or moment["what"] in ("crash", "stop"):
        return False
    return moment["what"]["do"] not in HARMLESS_INSIDE


def _stopped(how: Act) -> bool:
    return (how.get("at") or {}).get("what") == "stop"


def _carried_out(world: World, how: Act, work: Callable[[], Said], stop: Event | None) -> tuple[Said, str | None]:
    """What was said, and what no command may say."""
    with ExitStack() as inside:
        if moment := how.get("at"):
            inside.enter_context(world.moments.at(moment["kind"], moment["number"], _happening(world, moment, stop)))
        try:
            return work(), None
        except Crash:
            return Said(killed=True), None
        except HeadraceError as error:
            return Said(refusal=f"{type(error).__name__}: {error}"), None
        except Exception as error:  # noqa: BLE001 - this is what the judge is for
            where = traceback.extract_tb(error.__traceback__)[-1]
            return Said(refusal=""), f"{type(error).__name__}: {error} (in {where.name}, line {where.lineno})"


def _happening(world: World, moment: Act, stop: Event | None) -> Callable[[], None]:
    what = moment["what"]
    if what == "crash":
        return _crash
    if what == "stop":
        return (stop or Event()).set
    return lambda: world.note_inside(world.change(what))


def _crash() -> None:
    raise Crash


@contextmanager
def _environment(world: World) -> Iterator[None]:
    with ExitStack() as changed:
        if days := float(world.environment.get("clock", 0)):
            changed.enter_context(wrong_clocks(days))
        yield
