"""The judge: pictures before and after a command, what it read and what it said, against the rule.

Each check returns what is wrong in words; nothing is wrong when none does. What holds after every command, refused and
killed ones too, is in `always`; what a command that ended with exit 0 owes besides is in `done`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from world.database import Key, Picture, norm
from world.files import key_of
from world.oracle import Input, expected, fails, good, matches, owed
from world.world import Watch

__all__ = ["Said", "always", "done", "inserted", "kind_of", "reject_key"]

Words = list[str]
SHOWN = 4


@dataclass(frozen=True)
class Said:
    """How a command ended: its books, or the words of its refusal."""

    read: int | None = None
    inserted: int = 0
    rejected: int = 0
    alerts: int = 0
    run_id: str = ""
    resumed: bool = False
    books: bool = True
    """Whether all of it is said; a poll that found nothing new says nothing."""
    refusal: str | None = None
    killed: bool = False
    kinds: Mapping[str, int] = field(default_factory=dict)


def kind_of(wrong: Sequence[str]) -> str | None:
    """What kind of violation it is, whichever events it is about; ``None`` where nothing is wrong."""
    return wrong[0].split(",", 1)[0].split(":", 1)[0] if wrong else None


def _some(keys: Any) -> str:
    named = sorted(keys)
    return f"{len(named)}: {', '.join('/'.join(map(str, key)) for key in named[:SHOWN])}"


def inserted(watch: Watch) -> set[Key]:
    """The events that the command brought into the table."""
    return {key for before, after in watch.headraces() for key in after.events.keys() - before.events.keys()}


# After every command --------------------------------------------------------------------------------------------


def always(watch: Watch, reads: Sequence[Input]) -> Words:
    """What no command may do, however it ends. `reads` are what it may have read, one of them."""
    wrong: Words = []
    touched = watch.touched()
    for before, after in watch.headraces():
        wrong += _doubled(before, after) + _lost(before, after)
        wrong += _least([_strange(before, after, touched, read) for read in reads])
        wrong += _hollow_alerts(before, after, touched)
        wrong += _settled_for_nothing(before, after, touched)
    return wrong


def _least(founds: Sequence[Words]) -> Words:
    return min(founds, key=len, default=[])


def _doubled(before: Picture, after: Picture) -> Words:
    twice = {key for key, rows in after.events.items() if len(rows) > max(1, len(before.events.get(key, [])))}
    return [f"events there twice, {_some(twice)}"] if twice else []


def _lost(before: Picture, after: Picture) -> Words:
    gone = {key for key, rows in before.events.items() if len(after.events.get(key, [])) < len(rows)}
    return [f"events that Headrace removed, {_some(gone)}"] if gone else []


def _strange(before: Picture, after: Picture, touched: set[Key], read: Input) -> Words:
    """Rows from nowhere, and rows with other values than may be."""
    wrong: Words = []
    came = expected(read, after)
    due = owed(read, before, after)
    foreign = {key for key in after.events if key not in before.events and key not in came}
    if foreign:
        wrong.append(f"events that nobody brought, {_some(foreign)}")
    false = set()
    for key, rows in after.events.items():
        if key in foreign or (len(rows) > 1 and key in before.events):
            continue
        held = before.events.get(key, [])
        # between two chunks any version may be the newest so far
        open_ = key in touched or key not in due or read.policy == "update"
        may_be = [*held, *(came.get(key, []) if open_ else due[key].may_be)]
        columns = (
            after.columns.keys() & (before.columns.keys() or after.columns.keys()) if held else after.columns.keys()
        )
        if not all(any(matches(row, one, columns) for one in may_be) for row in rows):
            false.add(key)
    if false:
        wrong.append(f"events with values that they did not come with, {_some(false)}")
    return wrong


def _hollow_alerts(before: Picture, after: Picture, touched: set[Key]) -> Words:
    raised = {after.alerts[one] for one in after.alerts.keys() - before.alerts.keys()}
    hollow = {key for key in raised if key not in after.events and key not in touched}
    return [f"alerts of events that are not there, {_some(hollow)}"] if hollow else []


def _settled_for_nothing(before: Picture, after: Picture, touched: set[Key]) -> Words:
    """A reject that was marked replayed is in the table, or kept anew."""
    kept = {one["reject_id"] for one in before.rejects if one["state"] == "kept"}
    now = [one for one in after.rejects if one["reject_id"] in kept and one["state"] == "replayed"]
    anew = {(one["source"], one["row_number"]) for one in after.rejects if one["state"] == "kept"}
    gone = set()
    for one in now:
        key = reject_key(one)
        if key and key not in after.events and key not in touched and (one["source"], one["row_number"]) not in anew:
            gone.add(key)
    return [f"rejects called replayed that are nowhere, {_some(gone)}"] if gone else []


def reject_key(reject: Mapping[str, Any]) -> Key | None:
    """The event that a kept row is one of, as far as it can be told."""
    record = json.loads(reject["record"] or "{}")
    k = norm(record.get("k")) if isinstance(record, dict) else None
    return (reject["provider"], k) if k else None


# After exit 0 ---------------------------------------------------------------------------------------------------


def done(watch: Watch, reads: Sequence[Input], said: Said, *, quiet: bool, alerted: bool, ran: set[Key]) -> Words:
    """What a command owes that ended well. `quiet`: nothing has happened that could make it reject a good row;
    `alerted`: its rule raises an alert for each event whose ``v`` is divisible by five; `ran`: what
    commands had brought that did not come to their end, which a resumed run counts as its own.
    """
    return _least([_done(watch, read, said, quiet=quiet, alerted=alerted, ran=ran) for read in reads])


def _done(watch: Watch, read: Input, said: Said, *, quiet: bool, alerted: bool, ran: set[Key]) -> Words:
    after = watch.pictures[-1]
    touched = watch.touched()
    # a poll that found nothing new refers to the rejects of an earlier run
    of_run = [one for one in after.rejects if one["run_id"] == said.run_id or not said.books]
    # rows that came in memory have no source that the oracle could know
    nameless = {source for source, _, _ in read.rows} == {""}
    kept = {("" if nameless else one["source"], one["row_number"]) for one in of_run}
    wrong = _missing(watch, read, touched, kept)
    wrong += _false(watch, read, touched)
    wrong += _unkept(read, after, kept)
    if said.books:
        wrong += _books(watch, read, said, after, quiet=quiet, ran=ran)
    if alerted:
        wrong += _unalerted(watch, touched)
    if not after.exists and read.rows and not touched:  # dropped by the world when all was in
        wrong.append("there is no table")
    return wrong


def _missing(watch: Watch, read: Input, touched: set[Key], kept: set[tuple[str, int]]) -> Words:
    """Events that are not there. One with a good row is kept as a reject only if all its good rows are; one that an
    enrichment refuses in all its rows if any of them is.
    """
    after = watch.pictures[-1]
    places: dict[Key, list[bool]] = {}
    doomed: dict[Key, list[bool]] = {}
    for source, number, row in read.rows:
        if good(row, after):
            among = doomed if read.unlucky and fails(row) else places
            among.setdefault(key_of(row, read.provider), []).append((source, number) in kept)
    absent = (places.keys() | doomed.keys()) - after.events.keys() - touched
    lost = {key for key in absent if not (all(places[key]) if key in places else any(doomed[key]))}
    return [f"events that were read and are nowhere, {_some(lost)}"] if lost else []


def _false(watch: Watch, read: Input, touched: set[Key]) -> Words:
    before, after, false = watch.pictures[0], watch.pictures[-1], set()
    # a column that was dropped on the way is empty for the rows of before, where a load has added it again
    pairs = list(pairwise(watch.pictures))
    dropped = {name for early, late in pairs if late.exists for name in early.columns.keys() - late.columns.keys()}
    for key, due in owed(read, before, after).items():
        rows = after.events.get(key, [])
        if key in touched or len(rows) != 1:
            continue
        columns = (set(after.columns) if due.new else after.columns.keys() & before.columns.keys()) - dropped
        if not any(matches(rows[0], one, columns) for one in due.may_be):
            false.add(key)
    return [f"events with other values than are due, {_some(false)}"] if false else []


def _unkept(read: Input, after: Picture, kept: set[tuple[str, int]]) -> Words:
    bad = {(source, number) for source, number, row in read.rows if not good(row, after)}
    lacking = bad - kept
    return [f"rows that could not be loaded and are kept nowhere, {_some(lacking)}"] if lacking else []


def _books(watch: Watch, read: Input, said: Said, after: Picture, *, quiet: bool, ran: set[Key]) -> Words:
    wrong: Words = []
    brought = inserted(watch)
    resumed = said.resumed or said.run_id in watch.pictures[0].runs
    if said.read != len(read.rows):
        wrong.append(f"the books say {said.read} read, of {len(read.rows)}")
    before = watch.pictures[0]
    if said.run_id in before.runs:  # also one that a restored ledger has as unfinished: what it brought is there
        ran = ran | before.events.keys()
    # what was deleted meanwhile may have been brought once more
    times = sum(len(late.events.keys() - early.events.keys()) for early, late in watch.headraces())
    least, most = len(brought), max(times, len(brought | ran) if resumed else 0)
    if not least <= said.inserted <= most:
        wrong.append(f"the books say {said.inserted} inserted, it was {least}{f' to {most}' if most > least else ''}")
    kept = [one for one in after.rejects if one["run_id"] == said.run_id and one["stage"] != "revision"]
    if said.rejected != len(kept):
        wrong.append(f"the books say {said.rejected} rejected, {len(kept)} are kept")
    bad = sum(not good(row, after) for _, _, row in read.rows)
    if quiet and not read.unlucky and said.rejected != bad:
        wrong.append(f"{said.rejected} rejected, {bad} are bad")
    raised = sum(len(late.alerts.keys() - early.alerts.keys()) for early, late in watch.headraces())
    if said.alerts < raised or (said.alerts > raised and not resumed):
        wrong.append(f"the books say {said.alerts} alerts, {raised} were raised")
    return wrong


def _unalerted(watch: Watch, touched: set[Key]) -> Words:
    silent = set()
    for before, after in watch.headraces():
        told = set(after.alerts.values())
        for key in after.events.keys() - before.events.keys() - touched:
            value = after.events[key][0].get("v") or ""
            if value.isdigit() and int(value) % 5 == 0 and key not in told:
                silent.add(key)
    return [f"new events without the alert that is due, {_some(silent)}"] if silent else []
