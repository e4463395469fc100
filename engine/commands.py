"""What the commands do: build options, call the engine, print the result, return the exit code."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
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
from headrace.flames import flamegraph
from headrace.interrupt import stopping
from headrace.progress import ProgressStyle, progress_for
from headrace.recording import recording
from headrace.scratch import scratch_folder, sweep
from headrace.showing import show
from headrace.source import Input, open_inputs
from headrace.statement import Statement, compare, read_statement, write_statement
from headrace.verify import verify as verify_inputs
from headrace.watching import Watching, watched

__all__ = [
    "Watching",
    "demo",
    "doctor",
    "explain",
    "load",
    "options",
    "verify",
]

DIFFERENCE = 4
FAILED = 1
NO_EVENT = "what is known about it stands on standard output; `headrace rejects list` shows rows that were kept aside"


def options(
    *,
    identity: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
    lock_timeout: str = "30s",
    task_timeout: str = "10m",
    alerts: Sequence[str] | None = None,
    alert_functions: Sequence[str] | None = None,
    alert_revisions: Sequence[str] | None = None,
    **named: Unpack[Plain],
) -> LoadOptions:
    """`LoadOptions` from the command line's strings. Raises `ConfigurationError`."""
    if named.get("enrich") or alert_functions:
        # as for `python -m`: the user's module lies where the user stands; the workers inherit the path
        sys.path.insert(0, "")
    parsed: Named = {
        "id": None if identity is None else [name for text in identity for name in split_columns(text)],
        "types": parse_types(types or []),
        "lock_timeout": parse_seconds(lock_timeout),
        "task_timeout": parse_seconds(task_timeout),
        "alerts": parse_rules(alerts or [], alert_functions or [], alert_revisions or []),
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
    flames: str | None = None,
) -> int:
    """``headrace load``."""
    with watched(watching), stopping(sweep) as stop, flamegraph(flames), recording(page, trace) as listener:
        try:
            report = load_with(wanted, inputs, progress=progress_for(progress), stop=stop, listener=listener)
        except Interrupted as error:
            error.exit_code = stop.exit_code
            raise
    show(output, report.to_dict, report.to_text)
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
    show(output, told.to_dict, told.to_text)
    return 0 if told.ok else DIFFERENCE


def _verify_statement(wanted: LoadOptions, stated: Statement | None, output: str) -> int:
    """A table against a statement, without any input."""
    if stated is None:
        raise UsageError("there is nothing to verify", hint="name the inputs, or a statement with --against FILE")
    with open_existing(wanted.to) as store:
        stored_contract(store, stated.table)
        told = compare(store, stated, None)
    show(output, told.to_dict, told.to_text)
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
        show(output, stories[0].to_dict, stories[0].to_text)
    elif stories:
        show(
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
    show(
        output,
        lambda: {"findings": [finding.to_dict() for finding in findings]},
        lambda: "\n".join(finding.to_text() for finding in findings),
    )
    return FAILED if any(finding.state == "failed" for finding in findings) else 0


def demo(folder: str, progress: ProgressStyle) -> int:
    """``headrace demo``."""
    run_demo(Path(folder), print, progress_for(progress))
    return 0
