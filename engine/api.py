"""Loads from Python in one call: opens the database and the inputs, runs `ingest`, closes everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event
from typing import Unpack

from headrace.errors import UsageError
from headrace.loading.agreement import in_stored_timezone
from headrace.loading.database import is_there, open_existing, remove_if_empty
from headrace.loading.run import ingest
from headrace.observability.progress import Progress
from headrace.observability.stages import Listener
from headrace.options.declared import Named
from headrace.options.load import LoadOptions, options_of, table_from_inputs
from headrace.reading.inputs import Input, open_inputs
from headrace.report import Report
from headrace.runtime.scratch import scratch_folder
from headrace.storage import open_store
from headrace.storage.store import Store

__all__ = ["load", "load_with", "opened"]


def load(*inputs: object, **named: Unpack[Named]) -> Report:
    """Load `inputs` into a table, each event exactly once, and return the books.

    `inputs` are paths, globs, folders, URLs, Arrow tables and readers, pandas or polars frames, or iterables of dicts.
    The further keywords are described at `headrace.options.declared.Named`. A script that passes
    ``mode="parallel"`` must do so under ``if __name__ == "__main__":``, because each worker imports the script.

    Raises `headrace.HeadraceError` and its subclasses; each error says what to do next.

    >>> import headrace
    >>> report = headrace.load("quakes.csv", id=["id"], time="time")  # doctest: +SKIP
    >>> report.inserted, report.rejected  # doctest: +SKIP
    (8998, 0)
    """
    return load_with(options_of(named), inputs)


def load_with(
    options: LoadOptions,
    inputs: Sequence[object],
    *,
    progress: Progress | None = None,
    stop: Event | None = None,
    listener: Listener | None = None,
) -> Report:
    """`load` for callers that hold `LoadOptions`."""
    if options.enrichment is not None:
        options.enrichment.resolve()
    with opened(options, inputs) as (store, table, items, settled):
        return ingest(store, items, table, settled, progress=progress, stop=stop, listener=listener)


@contextmanager
def opened(
    options: LoadOptions, inputs: Sequence[object], *, existing: bool = False
) -> Iterator[tuple[Store, str, list[Input], LoadOptions]]:
    """The database with its ledger, the table's name, the inputs, and the options with the stored contract's time zone;
    spooled copies are deleted afterwards. `existing` refuses to create a database.

    The database is opened once. A database that does not exist yet is opened after the inputs: an unreadable input then
    leaves no new database behind. Neither does a refused load: `agree` creates the ledger's tables, after it has agreed
    on everything.
    """
    table = options.table or table_from_inputs(inputs)
    there = is_there(options.to)
    try:
        with ExitStack() as held:
            store = None
            if existing or there:
                store = held.enter_context(open_existing(options.to) if existing else open_store(options.to))
                options = in_stored_timezone(store, table, options)
            items = open_inputs(inputs, options.read, held.enter_context(scratch_folder()))
            store = store or held.enter_context(open_store(options.to))
            store.ledger.prepare(create=False)
            yield store, table, items, options
    except UsageError:
        if not there:
            remove_if_empty(options.to)
        raise
