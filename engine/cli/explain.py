"""``headrace explain``: find an event's history, and print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.checking.explain import explain as explain_event
from headrace.cli.load import options
from headrace.cli.show import show
from headrace.errors import StoreError
from headrace.loading.agreement import in_stored_timezone
from headrace.loading.database import open_existing
from headrace.options.load import LoadOptions
from headrace.reading.inputs import Input, open_inputs
from headrace.runtime.scratch import scratch_folder

__all__ = ["explain"]

NO_EVENT = "standard output shows what is known about it; `headrace rejects list` shows the rejects"


def explain(event_id: str, inputs: Sequence[str], told: Mapping[str, Any]) -> int:
    """``headrace explain``."""
    load_options, output = options(told), told["output"]
    with open_existing(load_options.to) as store, scratch_folder() as folder:

        def given(table: str) -> tuple[Sequence[Input], LoadOptions]:
            settled = in_stored_timezone(store, table, load_options)
            return open_inputs(inputs, settled.read, folder), settled

        tables = [load_options.table] if load_options.table else store.ledger.tables()
        stories = explain_event(store, event_id, tables, load_options, given if inputs else None)
    histories = [story for story in stories if story.origin is not None]
    if len(stories) == 1:
        show(output, stories[0].to_dict, stories[0].to_text)
    elif stories:
        show(
            output,
            lambda: {"stories": [story.to_dict() for story in stories]},
            lambda: "\n\n".join(story.to_text() for story in stories),
        )
    if not histories:
        tables_named = ", ".join(tables) or "this database, which has no event tables"
        raise StoreError(f"no event {event_id} in {tables_named}", hint=NO_EVENT)
    return 0
