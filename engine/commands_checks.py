"""What ``headrace verify``, ``explain`` and ``doctor`` do: they look, print what they found, and change nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headrace.api import opened
from headrace.checking.attestation import Statement, compare, read_statement, write_statement
from headrace.checking.doctor import examine
from headrace.checking.explain import explain as explain_event
from headrace.checking.verify import verify as verify_inputs
from headrace.errors import StoreError, UsageError
from headrace.loading.agreement import in_stored_timezone, stored_contract
from headrace.loading.database import open_existing
from headrace.observability.progress import ProgressStyle, progress_for
from headrace.options.load import LoadOptions, database_url
from headrace.polling.checkup import examine_settings
from headrace.reading.inputs import Input, open_inputs
from headrace.runtime.scratch import scratch_folder
from headrace.showing import show

__all__ = ["StatementFiles", "doctor", "explain", "verify"]

DIFFERENCE = 4
FAILED = 1
NO_EVENT = "what is known about it stands on standard output; `headrace rejects list` shows rows that were kept aside"


@dataclass(frozen=True, slots=True)
class StatementFiles:
    """Where a verification's statement is written to, and the one that it is compared with."""

    receipt: str | None = None
    against: str | None = None


def verify(
    wanted: LoadOptions,
    inputs: Sequence[str],
    output: str,
    progress: ProgressStyle,
    files: StatementFiles,
    *,
    limit: int = 10,
    values: bool = True,
) -> int:
    """``headrace verify``."""
    stated = None if files.against is None else read_statement(Path(files.against))
    if stated is not None:
        wanted = replace(wanted, table=wanted.table or stated.table)
        _require_same_table(wanted, stated)
    if not inputs:
        return _verify_statement(wanted, stated, output)
    with opened(wanted, inputs, existing=True) as (store, table, items, settled):
        watched = progress_for(progress)
        found = verify_inputs(store, items, table, settled, progress=watched, limit=limit, values=values)
        if files.receipt is not None:
            write_statement(Path(files.receipt), found, stored_contract(store, table), store.url)
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
