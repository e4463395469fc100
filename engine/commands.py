"""What the commands do: build options, call the engine, print the result, return the exit code."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Unpack

from headrace.agreement import in_stored_timezone, stored_contract
from headrace.alerts import parse_rules
from headrace.api import Named, Plain, load_with, opened, options_of
from headrace.checkup import examine_settings
from headrace.config import LoadOptions, database_url, parse_seconds, parse_types
from headrace.database import open_existing
from headrace.demo import run_demo
from headrace.doctor import examine
from headrace.errors import Interrupted, StoreError, UsageError
from headrace.explain import explain as explain_event
from headrace.interrupt import stopping
from headrace.progress import ProgressStyle, progress_for
from headrace.recording import recording
from headrace.replay import mended, replay, without_revisions
from headrace.scratch import scratch_folder, sweep
from headrace.source import Input, open_inputs
from headrace.statement import Statement, compare, read_statement, write_statement
from headrace.storage.base import Counts, RunRecord, Store, StoredReject
from headrace.verify import verify as verify_inputs
from headrace.watching import Watching, watched

__all__ = [
    "Watching",
    "demo",
    "doctor",
    "explain",
    "load",
    "options",
    "rejects_discard",
    "rejects_list",
    "rejects_replay",
    "rejects_show",
    "runs_list",
    "runs_show",
    "verify",
]

DIFFERENCE = 4
FAILED = 1
NO_EVENT = "what is known about it stands on standard output; `headrace rejects list` shows rows that were kept aside"


def options(
    *,
    identity: str | None = None,
    types: Sequence[str] | None = None,
    lock_timeout: str = "30s",
    task_timeout: str = "10m",
    alerts: Sequence[str] | None = None,
    alert_functions: Sequence[str] | None = None,
    **named: Unpack[Plain],
) -> LoadOptions:
    """`LoadOptions` from the command line's strings. Raises `ConfigurationError`."""
    if named.get("enrich") or alert_functions:
        # as for `python -m`: the user's module lies where the user stands; the workers inherit the path
        sys.path.insert(0, "")
    parsed: Named = {
        "id": None if identity is None else split_columns(identity),
        "types": parse_types(types or []),
        "lock_timeout": parse_seconds(lock_timeout),
        "task_timeout": parse_seconds(task_timeout),
        "alerts": parse_rules(alerts or [], alert_functions or []),
    }
    return options_of({**parsed, **named})


def split_columns(text: str) -> list[str]:
    """``a,b`` as two names; a name with a comma is quoted as in CSV: ``'"last, first",born'``."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip()]


def load(
    wanted: LoadOptions,
    inputs: Sequence[str],
    output: str,
    progress: ProgressStyle,
    watching: Watching,
    *,
    page: str | None = None,
    trace: str | None = None,
) -> int:
    """``headrace load``."""
    with watched(watching), stopping(sweep) as stop, recording(page, trace) as listener:
        try:
            report = load_with(wanted, inputs, progress=progress_for(progress), stop=stop, listener=listener)
        except Interrupted as error:
            error.exit_code = stop.exit_code
            raise
    _print(output, report.to_dict, report.to_text)
    return report.exit_code


def verify(
    wanted: LoadOptions,
    inputs: Sequence[str],
    output: str,
    progress: ProgressStyle,
    *,
    limit: int = 10,
    receipt: str | None = None,
    against: str | None = None,
) -> int:
    """``headrace verify``."""
    stated = None if against is None else read_statement(Path(against))
    if stated is not None:
        wanted = replace(wanted, table=wanted.table or stated.table)
        _require_same_table(wanted, stated)
    if not inputs:
        return _verify_statement(wanted, stated, output)
    with opened(wanted, inputs, existing=True) as (store, table, items, settled):
        found = verify_inputs(store, items, table, settled, progress=progress_for(progress), limit=limit)
        if receipt is not None:
            write_statement(Path(receipt), found, stored_contract(store, table), store.url)
        told = found if stated is None else compare(store, stated, found)
    _print(output, told.to_dict, told.to_text)
    return 0 if told.ok else DIFFERENCE


def _verify_statement(wanted: LoadOptions, stated: Statement | None, output: str) -> int:
    """A table against a statement, without any input."""
    if stated is None:
        raise UsageError("there is nothing to verify", hint="name the inputs, or a statement with --against FILE")
    with open_existing(wanted.to) as store:
        stored_contract(store, stated.table)
        told = compare(store, stated, None)
    _print(output, told.to_dict, told.to_text)
    return 0 if told.ok else DIFFERENCE


def _require_same_table(wanted: LoadOptions, stated: Statement) -> None:
    if wanted.table != stated.table:
        raise UsageError(
            f"the statement is about the table {stated.table!r}, not {wanted.table!r}", hint="leave out --table"
        )


def explain(wanted: LoadOptions, event_id: str, inputs: Sequence[str], output: str) -> int:
    """``headrace explain``."""
    with open_existing(wanted.to) as store, scratch_folder() as folder:

        def given(table: str) -> tuple[Sequence[Input], LoadOptions]:
            settled = in_stored_timezone(store, table, wanted)
            return open_inputs(inputs, settled.read, folder), settled

        tables = [wanted.table] if wanted.table else store.tables()
        stories = explain_event(store, event_id, tables, wanted, given if inputs else None)
    found = [story for story in stories if story.origin is not None]
    if len(stories) == 1:
        _print(output, stories[0].to_dict, stories[0].to_text)
    elif stories:
        _print(
            output,
            lambda: {"stories": [story.to_dict() for story in stories]},
            lambda: "\n\n".join(story.to_text() for story in stories),
        )
    if not found:
        tables_named = ", ".join(tables) or "this database, which has no event tables"
        raise StoreError(f"no event {event_id} in {tables_named}", hint=NO_EVENT)
    return 0


def doctor(to: str | None, config: str | None, output: str) -> int:
    """``headrace doctor``."""
    if config is not None and to is not None:
        raise UsageError("--to and --config each name a database", hint="the file's is in its key database")
    if config is not None:
        sys.path.insert(0, str(Path(config).resolve().parent))  # as `headrace run` does, for the user's functions
    findings = list(examine(database_url(to)) if config is None else examine_settings(config))
    _print(
        output,
        lambda: {"findings": [finding.to_dict() for finding in findings]},
        lambda: "\n".join(finding.to_text() for finding in findings),
    )
    return FAILED if any(finding.state == "failed" for finding in findings) else 0


def demo(folder: str, progress: ProgressStyle) -> int:
    """``headrace demo``."""
    run_demo(Path(folder), print, progress_for(progress))
    return 0


# Rejects --------------------------------------------------------------------------------------------------------


def rejects_list(to: str | None, table: str | None, run: str | None, *, settled: bool, limit: int, output: str) -> int:
    """``headrace rejects list``."""
    with open_existing(database_url(to)) as store:
        found = store.rejects(
            table=table, run_id=_whole_run_id(store, run), state=None if settled else "kept", limit=limit
        )
    _print(output, lambda: {"rejects": [_reject_object(one) for one in found]}, lambda: _reject_lines(found))
    return 0


def rejects_show(to: str | None, ids: Sequence[int], output: str) -> int:
    """``headrace rejects show``."""
    with open_existing(database_url(to)) as store:
        found = _named(store, ids, any_state=True)
    _print(
        output,
        lambda: {"rejects": [_reject_object(one) for one in found]},
        lambda: "\n\n".join(_reject_page(one) for one in found),
    )
    return 0


def rejects_replay(
    wanted: LoadOptions, ids: Sequence[int], run: str | None, changes: Sequence[str], raw: str | None, output: str
) -> int:
    """``headrace rejects replay``."""
    with open_existing(wanted.to) as store:
        chosen = (
            _named(store, ids)
            if ids
            else store.rejects(table=wanted.table, run_id=_whole_run_id(store, run), state="kept")
        )
        chosen, left = without_revisions(chosen, wanted, named=bool(ids))
        given = _with_raw(store, chosen, raw)
        reports = replay(store, given, wanted, changes=_changes(changes))
    unsplit = [one for one in given if one.reject.record is None]
    total = sum((report.counts for report in reports), Counts(read=len(unsplit), rejected=len(unsplit)))
    _print(output, lambda: {**asdict(total), "revisions_left": left}, lambda: _replay_text(total, unsplit, left))
    return 3 if total.rejected else 0


def rejects_discard(to: str | None, ids: Sequence[int], table: str | None, run: str | None) -> int:
    """``headrace rejects discard``."""
    if not (ids or table or run):
        raise UsageError("nothing was named to discard", hint="give reject numbers, --run or --table")
    with open_existing(database_url(to)) as store:
        chosen = (
            _named(store, ids) if ids else store.rejects(table=table, run_id=_whole_run_id(store, run), state="kept")
        )
        changed = store.discard_rejects([one.reject_id for one in chosen])
    print(f"{changed:,} rejects discarded")
    return 0


def _named(store: Store, ids: Sequence[int], *, any_state: bool = False) -> list[StoredReject]:
    if not ids:
        raise UsageError("no reject was named", hint="`headrace rejects list` shows their numbers")
    found = store.rejects(ids=ids, state=None if any_state else "kept")
    missing = sorted(set(ids) - {one.reject_id for one in found})
    if missing:
        raise UsageError(
            f"no {'' if any_state else 'kept '}reject has the number {', '.join(map(str, missing))}",
            hint="`headrace rejects list --all` shows every one with its state",
        )
    return found


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
            f"--raw mends one reject, not {len(chosen)}", hint="name the one: headrace rejects replay 17 --raw …"
        )
    return [mended(store, chosen[0], raw)]


def _reject_lines(found: Sequence[StoredReject]) -> str:
    lines = [f"{one.reject_id:>8}  {one.state:<9}  {_place(one)}: {one.reject.reason}" for one in found]
    return "\n".join(lines) if lines else "no rejects"


def _reject_page(one: StoredReject) -> str:
    return (
        f"reject {one.reject_id} ({one.state}), table {one.table}, provider {one.provider}\n"
        f"  where   {_place(one)}\n  reason  {one.reject.reason}\n  run     {one.run_id}\n  raw     {one.reject.raw}"
        f"{_differences(one)}"
    )


def _differences(one: StoredReject) -> str:
    """For a revision, the columns that differ: what the table held, and what came."""
    differs = json.loads(one.reject.differs or "{}")
    return "".join(f"\n  {name}: {json.dumps(held)} → {json.dumps(came)}" for name, (held, came) in differs.items())


def _place(one: StoredReject) -> str:
    reject = one.reject
    parts = [reject.source]
    if reject.line is not None:
        parts.append(f"line {reject.line}")
    elif reject.row is not None:
        parts.append(f"row {reject.row}")
    if reject.column is not None:
        parts.append(f"column {reject.column}")
    return ", ".join(parts)


def _reject_object(one: StoredReject) -> dict[str, object]:
    return {**asdict(one), "created_at": one.created_at.isoformat()}


def _replay_text(total: Counts, unsplit: Sequence[StoredReject], left: int) -> str:
    kept = f"; {left:,} revisions were left (see --revisions)" if left else ""
    if not total.read:
        return f"no rejects to replay{kept}"
    duplicates = total.duplicate_in_input + total.duplicate_in_store
    if total.revised:
        kept = f", {total.revised:,} of the duplicates with another payload{kept}"
    text = (
        f"{total.read:,} replayed: {total.inserted:,} inserted, {duplicates:,} duplicate, "
        f"{total.rejected:,} rejected again{kept}"
    )
    if not unsplit:
        return text
    return (
        f"{text}\n{len(unsplit):,} of them could not be split into columns; give each as it should be: "
        f"headrace rejects replay {unsplit[0].reject_id} --raw '…'"
    )


# Runs -----------------------------------------------------------------------------------------------------------


def runs_list(to: str | None, table: str | None, limit: int, output: str) -> int:
    """``headrace runs list``."""
    with open_existing(database_url(to)) as store:
        found = store.runs(table=table, limit=limit)
    _print(output, lambda: {"runs": [_run_object(run) for run in found]}, lambda: _run_lines(found))
    return 0


def runs_show(to: str | None, run: str, output: str) -> int:
    """``headrace runs show``."""
    with open_existing(database_url(to)) as store:
        found = _run(store, run)
        receipts = store.receipts(found.run_id)
    _print(
        output,
        lambda: {
            **_run_object(found),
            "receipts": [{**asdict(one), "committed_at": one.committed_at.isoformat()} for one in receipts],
        },
        lambda: "\n".join(
            [
                *(f"{name:<20} {value}" for name, value in _run_object(found).items()),
                *(f"  {one.address}: {one.counts.inserted:,} inserted of {one.counts.read:,}" for one in receipts),
            ]
        ),
    )
    return 0


def _run(store: Store, run: str) -> RunRecord:
    found = store.run(run)
    if found is None:
        raise UsageError(f"no single run begins with {run!r}", hint="`headrace runs list` shows the newest ones")
    return found


def _whole_run_id(store: Store, run: str | None) -> str | None:
    return None if run is None else _run(store, run).run_id


def _run_object(run: RunRecord) -> dict[str, object]:
    flat = {**asdict(run), **asdict(run.counts)}
    del flat["counts"], flat["job"], flat["inputs_key"]
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in flat.items()}


def _run_lines(found: Sequence[RunRecord]) -> str:
    lines = [
        f"{run.run_id[:8]}  {run.started_at:%Y-%m-%d %H:%M:%S}  {run.status:<11}  {run.table:<24}  "
        f"{run.counts.inserted:,} inserted of {run.counts.read:,}"
        for run in found
    ]
    return "\n".join(lines) if lines else "no runs"


# ----------------------------------------------------------------------------------------------------------------


def _print(output: str, as_object: Callable[[], object], as_text: Callable[[], str]) -> None:
    text = json.dumps(as_object(), ensure_ascii=False, default=str) if output == "json" else as_text()
    print(text, file=sys.stdout)
