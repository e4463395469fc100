"""What ``headrace rejects …`` does: find rejects, act, print the result, return the exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from headrace.cli.load import options
from headrace.cli.runs import whole_run_id
from headrace.cli.show import show
from headrace.errors import UsageError
from headrace.loading.database import open_existing
from headrace.loading.replay import ReplayOutcome, mended, replay_all, without_revisions
from headrace.observability.progress import progress_for
from headrace.options.load import database_url
from headrace.storage.records import Counts
from headrace.storage.rejects import StoredReject
from headrace.storage.store import Store

__all__ = ["discard", "listed", "replay", "shown"]

SHOWN = 20  # new rejects of a replay


def listed(to: str | None, table: str | None, run: str | None, *, settled: bool, limit: int, output: str) -> int:
    """``headrace rejects list``."""
    with open_existing(database_url(to)) as store:
        rejects = store.rejects.find(
            table=table, run_id=whole_run_id(store, run), state=None if settled else "kept", limit=limit
        )
    show(output, lambda: {"rejects": [_reject_object(reject) for reject in rejects]}, lambda: _reject_lines(rejects))
    return 0


def shown(to: str | None, ids: Sequence[int], output: str) -> int:
    """``headrace rejects show``."""
    with open_existing(database_url(to)) as store:
        rejects = _named(store, ids, any_state=True)
        before = {reject.reject_id: _earlier(store, reject) for reject in rejects}
    show(
        output,
        lambda: {"rejects": [_reject_object(reject) for reject in rejects]},
        lambda: "\n\n".join(_reject_page(reject, before[reject.reject_id]) for reject in rejects),
    )
    return 0


def replay(
    ids: Sequence[int], run: str | None, changes: Sequence[str], raw: str | None, told: Mapping[str, Any]
) -> int:
    """``headrace rejects replay``."""
    load_options, progress = options(told), progress_for(told["progress"])
    with open_existing(load_options.to) as store:
        chosen = (
            _named(store, ids)
            if ids
            else store.rejects.find(table=load_options.table, run_id=whole_run_id(store, run), state="kept")
        )
        chosen, left = without_revisions(chosen, load_options, named=bool(ids))
        given = _with_raw(store, chosen, raw)
        outcome = replay_all(store, given, load_options, changes=_changes(changes), progress=progress)
    unsplit = [reject for reject in given if reject.reject.record is None]
    total = outcome.counts + Counts(read=len(unsplit), rejected=len(unsplit))
    shown = {
        **asdict(total),
        "replayed": outcome.counts.read if outcome.errors else len(given) - len(unsplit) - outcome.settled,
        "settled_meanwhile": outcome.settled,
        "revisions_left": left,
        "again": [_reject_object(reject) for reject in outcome.again],
    }
    if given or not outcome.errors:
        show(told["output"], lambda: shown, lambda: _replay_text(outcome, total, unsplit, left, len(given)))
    if outcome.errors:
        raise outcome.errors[0]
    return 3 if total.rejected else 0


def discard(to: str | None, ids: Sequence[int], table: str | None, run: str | None, output: str) -> int:
    """``headrace rejects discard``."""
    if not (ids or table or run):
        raise UsageError("nothing was named to discard", hint="give reject numbers, --run or --table")
    with open_existing(database_url(to)) as store:
        chosen = (
            _named(store, ids)
            if ids
            else store.rejects.find(table=table, run_id=whole_run_id(store, run), state="kept")
        )
        changed = store.rejects.discard([reject.reject_id for reject in chosen])
    show(output, lambda: {"discarded": changed}, lambda: f"{changed:,} rejects discarded")
    return 0


def _named(store: Store, ids: Sequence[int], *, any_state: bool = False) -> list[StoredReject]:
    if not ids:
        raise UsageError("no reject was named", hint="`headrace rejects list` shows their numbers")
    rejects = store.rejects.find(ids=ids, state=None if any_state else "kept")
    missing = sorted(set(ids) - {reject.reject_id for reject in rejects})
    if missing:
        raise UsageError(
            f"no {'' if any_state else 'kept '}reject has the number {', '.join(map(str, missing))}",
            hint="`headrace rejects list --all` shows every one with its state",
        )
    return rejects


def _changes(pairs: Sequence[str]) -> dict[str, str | None]:
    changes: dict[str, str | None] = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not equals or not column:
            raise UsageError(
                f"--set {pair!r} is not COLUMN=VALUE", hint="for example --set mag=4.5; --set mag= is null"
            )
        changes[column] = value or None
    return changes


def _with_raw(store: Store, chosen: Sequence[StoredReject], raw: str | None) -> Sequence[StoredReject]:
    if raw is None:
        return chosen
    if len(chosen) != 1:
        raise UsageError(
            f"--raw changes one reject, not {len(chosen)}", hint="name it: headrace rejects replay 17 --raw …"
        )
    return [mended(store, chosen[0], raw)]


def _reject_lines(rejects: Sequence[StoredReject]) -> str:
    lines = [
        f"{stored.reject_id:>8}  {stored.state:<9}  {_place(stored)}: {stored.reject.reason}" for stored in rejects
    ]
    return "\n".join(lines) if lines else "no rejects"


def _earlier(store: Store, reject: StoredReject) -> list[StoredReject]:
    """What the row was before, the newest first."""
    chain: list[StoredReject] = []
    while reject.reject.replaces is not None and (
        earlier := store.rejects.find(ids=[reject.reject.replaces], state=None)
    ):
        reject = earlier[0]
        chain.append(reject)
    return chain


def _reject_page(stored: StoredReject, earlier: Sequence[StoredReject]) -> str:
    return (
        f"reject {stored.reject_id} ({stored.state}), table {stored.table}, provider {stored.provider}\n"
        f"  where   {_place(stored)}\n  reason  {stored.reject.reason}\n  run     {stored.run_id}\n"
        f"  raw     {stored.reject.raw}{_differences(stored)}{_history(earlier)}"
    )


def _history(earlier: Sequence[StoredReject]) -> str:
    return "".join(f"\n  before  reject {stored.reject_id}: {stored.reject.reason}" for stored in earlier)


def _differences(stored: StoredReject) -> str:
    """For a revision, the columns that differ: what the table held, and what came."""
    differs = json.loads(stored.reject.differs or "{}")
    return "".join(f"\n  {name}: {json.dumps(held)} → {json.dumps(came)}" for name, (held, came) in differs.items())


def _place(stored: StoredReject) -> str:
    reject = stored.reject
    parts = [reject.source]
    if reject.line is not None:
        parts.append(f"line {reject.line}")
    elif reject.row is not None:
        parts.append(f"row {reject.row}")
    if reject.column is not None:
        parts.append(f"column {reject.column}")
    return ", ".join(parts)


def _reject_object(stored: StoredReject) -> dict[str, object]:
    return {**asdict(stored), "created_at": stored.created_at.isoformat()}


def _replay_text(outcome: ReplayOutcome, total: Counts, unsplit: Sequence[StoredReject], left: int, given: int) -> str:
    kept = f"; {left:,} revisions were skipped (see --revisions)" if left else ""
    if outcome.settled:
        kept = f"; {outcome.settled:,} were replayed or discarded by somebody else meanwhile{kept}"
    if given == outcome.settled:
        return f"no rejects to replay{kept}"
    duplicates = total.duplicate_in_input + total.duplicate_in_store
    if total.revised:
        kept = f", {total.revised:,} of the duplicates with another payload{kept}"
    # where something failed, what it left is kept: only what was committed has been replayed
    rows = total.read if outcome.errors else given - outcome.settled
    if total.read != rows and not outcome.errors:
        kept = f" ({total.read:,} rows behind the select){kept}"
    text = (
        f"{rows:,} replayed: {total.inserted:,} inserted, {duplicates:,} duplicate, "
        f"{total.rejected:,} rejected again{kept}"
    )
    lines = [text, *map(_again_line, outcome.again[:SHOWN])]
    if len(outcome.again) > SHOWN:
        runs = " or ".join(f"--run {one}" for one in dict.fromkeys(one.run_id[:8] for one in outcome.again))
        lines.append(f"  … and {len(outcome.again) - SHOWN:,} more: headrace rejects list {runs}")
    if unsplit:
        lines.append(
            f"{len(unsplit):,} of them could not be split into columns; give the corrected row of each: "
            f"headrace rejects replay {unsplit[0].reject_id} --raw '…'"
        )
    return "\n".join(lines)


def _again_line(stored: StoredReject) -> str:
    before = "" if stored.reject.replaces is None else f" (was {stored.reject.replaces})"
    return f"  now reject {stored.reject_id}{before}, {_place(stored)}: {stored.reject.reason}"
